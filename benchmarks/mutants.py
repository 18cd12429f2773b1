"""Mutation test of the core: do the tests notice when one operator, comparison or constant of it is changed?

Mutants come from cosmic-ray. Places where a mutant can be made are sampled at random, one mutant is drawn for each,
and the tests that run the changed line are run on it in a copy of the project, until one fails. Tests that do not run
a line cannot notice its change, so this is `pytest conslaw tests`, but for processes that tests start.

Left out are annotations and decorators, and replacements that can only end in a TypeError, such as shifts of floats.
"""

import ast
import difflib
import json
import math
import os
import queue
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click
from cosmic_ray.ast import Visitor, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

PROJECT = Path(__file__).parents[1]
FOLDERS = ("conslaw", "conslaw/training", "conslaw/theory")  # not conslaw/paper, which the notebooks test
OPERATORS = re.compile(
    r"core/(NumberReplacer|AddNot|Replace(AndWithOr|OrWithAnd|TrueWithFalse|FalseWithTrue|BreakWithContinue"
    r"|ContinueWithBreak)|ZeroIterationForLoop|ReplaceComparisonOperator_\w+"
    r"|ReplaceUnaryOperator_(UAdd_USub|USub_UAdd|Delete_\w+)|ReplaceBinaryOperator_"
    r"((Add|Sub|Mul|Div|FloorDiv|Mod|Pow)_(Add|Sub|Mul|Div|FloorDiv|Mod|Pow)|Bit(Or|And|Xor)_Bit(Or|And|Xor)))"
)
PLUGIN = '''
"""Write which tests run which line, and how long they take."""
import json, os, time
from pathlib import Path
import coverage, pytest

TIMES, FAILED = {}, []
CORE = os.path.join(os.environ["MUTANTS_COPY"], "conslaw")
COVERAGE = coverage.Coverage(data_file=None, source=[CORE], config_file=False)

def pytest_configure(config):
    COVERAGE.start()

@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    COVERAGE.switch_context(item.nodeid)
    start = time.perf_counter()
    result = yield
    TIMES[item.nodeid] = time.perf_counter() - start
    COVERAGE.switch_context("")
    return result

def pytest_runtest_logreport(report):
    if report.failed:
        FAILED.append(report.nodeid)

def pytest_unconfigure(config):
    COVERAGE.stop()
    data, root = COVERAGE.get_data(), Path(os.environ["MUTANTS_COPY"])
    lines = {str(Path(f).relative_to(root)): data.contexts_by_lineno(f) for f in data.measured_files()}
    text = json.dumps({"times": TIMES, "failed": FAILED, "lines": lines})
    Path(os.environ["MUTANTS_REPORT"]).write_text(text, encoding="utf-8")
'''


@dataclass(frozen=True)
class Mutant:
    """A change of one module: the `occurrence`-th place of an operator of cosmic-ray."""

    module: str
    line: int
    operator: str
    occurrence: int

    def code(self, source: str) -> str:
        """Apply it."""
        return mutate_code(source, get_operator(self.operator)(), self.occurrence)


class Places(Visitor):
    """Collects where an operator applies."""

    def __init__(self, operator: str):
        self.operator, self.found = get_operator(operator)(), []

    def visit(self, node):
        """Note where the operator applies to a node, and leave it as it is."""
        self.found += [start for start, _ in self.operator.mutation_positions(node)]
        return node


def left_out(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Spans of annotations and decorators."""
    lines = source.splitlines()

    def position(line: int, column: int) -> tuple[int, int]:
        return line, len(lines[line - 1].encode()[:column].decode())  # ast counts bytes, parso characters

    spans = []
    for node in ast.walk(ast.parse(source)):
        parts = [
            getattr(node, "annotation", None),
            getattr(node, "returns", None),
            *getattr(node, "decorator_list", []),
        ]
        spans += [
            (position(part.lineno, part.col_offset), position(part.end_lineno, part.end_col_offset))
            for part in parts
            if isinstance(part, ast.expr)
        ]
    return spans


def places(module: str) -> list[list[Mutant]]:
    """List the places of a module where a mutant can be made, each with its mutants."""
    source = (PROJECT / module).read_text(encoding="utf-8")
    spans, found = left_out(source), defaultdict(list)
    for operator in sorted(filter(OPERATORS.fullmatch, operator_names())):
        visitor = Places(operator)
        visitor.walk(get_ast(source))
        for occurrence, start in enumerate(visitor.found):
            if not any(first <= start < last for first, last in spans):
                kind = operator.split("_")[0]
                found[start, kind].append(Mutant(module, start[0], operator, occurrence))
    return [found[place] for place in sorted(found)]


class Copy:
    """A copy of the project in which tests run, so that nothing happens to the project itself."""

    def __init__(self, folder: Path):
        self.folder, self.cache = folder / "project", folder / "numba"
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        for name in subprocess.check_output(command, cwd=PROJECT, encoding="utf-8").split("\0"):
            if name and (PROJECT / name).is_file():
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(PROJECT / name, self.folder / name)

    def pytest(
        self, option: str, tests: list[str], timeout: float | None = None, cache: Path | None = None, **variables: str
    ) -> tuple[int | None, str]:
        """Run tests on one core; return the exit status, none if the time was over, and the first failure."""
        variables |= {"PYTHONPATH": f"{self.folder}{os.pathsep}{self.folder.parent}", "PYTHONDONTWRITEBYTECODE": "1"}
        variables |= {"NUMBA_CACHE_DIR": str(cache or self.cache), "OMP_NUM_THREADS": "1"}
        (self.folder.parent / "tests.txt").write_text("\n".join(tests), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0", option]
        try:
            run = subprocess.run(
                [*command, f"@{self.folder.parent / 'tests.txt'}"],
                cwd=self.folder,
                env=os.environ | variables,
                capture_output=True,
                encoding="utf-8",
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return None, "timeout"
        failure = re.search(r"^(?:FAILED|ERROR) (.*)", run.stdout, re.M)
        return run.returncode, failure[1] if failure else run.stdout[-2000:] + run.stderr[-2000:]

    def baseline(self) -> dict:
        """Run all tests once; return which of them run which line."""
        (self.folder.parent / "mutants_plugin.py").write_text(PLUGIN, encoding="utf-8")
        report = self.folder.parent / "report.json"
        variables = {"MUTANTS_COPY": str(self.folder), "MUTANTS_REPORT": str(report)}
        tests = ["tests", "conslaw", "--ignore=tests/test_variants.py"]  # which runs notebooks
        status, failure = self.pytest("-pmutants_plugin", tests, **variables)
        if not report.exists():
            raise click.ClickException(f"the tests do not run (status {status}): {failure}")
        return json.loads(report.read_text(encoding="utf-8"))

    def judge(self, mutant: Mutant, tests: list[str], seconds: float) -> tuple[str, str]:
        """Run tests on a mutant until one fails; return what kills it, or nothing, and the difference of the code."""
        path = self.folder / mutant.module
        source, times = path.read_text(encoding="utf-8"), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
        changed = mutant.code(source)
        difference = "".join(
            difflib.unified_diff(source.splitlines(True), changed.splitlines(True), mutant.module, mutant.module, n=0)
        )
        with tempfile.TemporaryDirectory() as own:
            # Compiled code of a changed module is compiled anew, and does not replace that of the unchanged one.
            cache = Path(own) if "numba" in source else None
            path.write_text(changed, encoding="utf-8")
            try:
                status, failure = self.pytest("-x", tests, 60 + 10 * seconds, cache)
            finally:
                path.write_text(source, encoding="utf-8")
                os.utime(path, ns=times)
        return "" if status == 0 else failure, difference


def tests_of(mutant: Mutant, report: dict) -> list[str]:
    """Tests that run the changed line, the fastest first; those of its module where it runs at import or compiled."""
    lines = report["lines"].get(mutant.module, {})
    tests = set(lines.get(str(mutant.line), [])) - {""}
    if mutant.module.endswith("_kernel.py"):  # compiled, so that nobody sees which test runs which line
        tests = {test for test in report["times"] if test.startswith("tests/test_compiled.py")}
    if not tests:
        tests = {test for of_line in lines.values() for test in of_line} - {""}
    return sorted(tests - set(report["failed"]), key=report["times"].get)


def interval(killed: int, number: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    share, z = killed / number, 1.96
    centre, half = share + z**2 / (2 * number), z * math.sqrt(share * (1 - share) / number + z**2 / (4 * number**2))
    return (centre - half) / (1 + z**2 / number), (centre + half) / (1 + z**2 / number)


@click.command()
@click.option("--sample", default=200, help="Number of mutants.")
@click.option("--seed", default=0, help="Seed of the sample.")
@click.option("--module", "modules", multiple=True, help="Only this file (repeatable); default: the whole core.")
@click.option("--jobs", default=os.cpu_count(), help="Mutants tested at once.")
@click.option("--output", type=click.Path(path_type=Path), help="Write the results to this JSON file.")
def main(sample: int, seed: int, modules: tuple[str, ...], jobs: int, output: Path | None) -> None:
    """Sample mutants of the core, run the tests on each, and report which survive."""
    files = [path for folder in FOLDERS for path in sorted((PROJECT / folder).glob("*.py"))]
    modules = modules or [str(path.relative_to(PROJECT)) for path in files if not path.stem.startswith("__")]
    every = [place for module in modules for place in places(module)]
    chance = random.Random(seed)
    mutants = [chance.choice(place) for place in chance.sample(every, min(sample, len(every)))]
    click.echo(f"{len(mutants)} of {len(every)} places in {len(modules)} modules, seed {seed}")
    with tempfile.TemporaryDirectory(prefix="conslaw-mutants-") as folder:
        copies, results = queue.Queue(), []
        for job in range(jobs):
            copies.put(Copy(Path(folder) / str(job)))
        start, copy = time.perf_counter(), copies.get()
        report = copy.baseline()
        copies.put(copy)
        click.echo(f"{len(report['times'])} tests in {time.perf_counter() - start:.0f} s")
        if report["failed"]:
            click.echo(f"these fail without any change and are left out: {', '.join(report['failed'])}")

        def judge(mutant: Mutant) -> None:
            tests = tests_of(mutant, report)
            start, copy = time.perf_counter(), copies.get()
            try:
                killer, difference = (
                    copy.judge(mutant, tests, sum(map(report["times"].get, tests)))
                    if tests
                    else ("", "no test runs it")
                )
            finally:
                copies.put(copy)
            name = f"{mutant.module}:{mutant.line} {mutant.operator.removeprefix('core/')}"
            results.append({"mutant": name, "killer": killer, "difference": difference})
            seconds = time.perf_counter() - start
            click.echo(
                f"{len(results):4} {'killed' if killer else 'SURVIVED':8} {seconds:4.0f} s  {name}  {killer[:100]}"
            )
            if not killer:
                click.echo(difference)

        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(judge, mutants))
    killed = sum(bool(result["killer"]) for result in results)
    low, high = interval(killed, len(results))
    click.echo(
        f"{killed} of {len(results)} mutants killed: {killed / len(results):.1%} (95 % interval {low:.1%}–{high:.1%})"
    )
    if output:
        results.sort(key=lambda result: result["mutant"])
        summary = {
            "seed": seed,
            "places": len(every),
            "mutants": len(results),
            "killed": killed,
            "interval": [low, high],
        }
        text = json.dumps(summary | {"results": results}, indent=1, ensure_ascii=False)
        output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
