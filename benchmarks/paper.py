"""Cost of the whole paper: its eleven panels, all notebooks, the start of a notebook, and figure 1b as published.

The notebooks are run as `make rebuild` runs them, and written. Of each the time is measured, which depends on what runs
beside it, and what its processes take: core-seconds (user and system) and the largest resident memory of one of them,
its kernel. The subset that is also run in the published way, one network after another, is the sweep of figure 1b: ten
learning rates, five seeds, 2000 steps.
"""

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import click
import nbformat
from machine import environment, product_rates_of_one_core, seconds
from nbformat.v4 import new_code_cell, new_notebook
from peers import published_way
from speed import CASES, SEEDS
from tqdm import tqdm

from conslaw import draw, gradient_descent
from conslaw.paper import ledger
from conslaw.paper.execution import PAPERMILL, Processes
from conslaw.paper.files import replace_file
from conslaw.paper.notebooks import notebook_names
from conslaw.paper.rebuild import rebuild
from conslaw.paper.stamps import code_of

USAGE = """
import json, os, resource
own, kernel = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
with open(os.environ["CONSLAW_USAGE"], "w", encoding="utf-8") as file:
    json.dump([sum(u.ru_utime + u.ru_stime for u in (own, kernel)), kernel.ru_maxrss], file)
"""
"""What papermill's process does at its end, when its kernel, the largest of its children, has ended."""
MEGABYTE = 2**20 if sys.platform == "darwin" else 2**10
"""In the unit of `ru_maxrss`."""


class MeasuredProcesses(Processes):
    """Processes of papermill, and what each has used: core-seconds and the resident memory of its kernel in MB."""

    used: dict[str, tuple[float, float]] = {}  # noqa: RUF012

    def run(self, name, folder, parameters, environment):
        """Run a notebook, see `Processes.run`."""
        usage = folder / "usage.json"
        error = super().run(name, folder, parameters, {**environment, "CONSLAW_USAGE": str(usage)})
        if not error:
            core_seconds, memory = json.loads(usage.read_text(encoding="utf-8"))
            self.used[name] = round(core_seconds, 1), round(memory / MEGABYTE)
        return error


def start_of_notebook(source: str) -> float:
    """Seconds that a notebook with one cell takes, run as all are."""
    notebook = new_notebook(cells=[new_code_cell(source)], metadata={"language_info": {"name": "python"}})
    with TemporaryDirectory() as folder:
        nbformat.write(notebook, Path(folder) / "source.ipynb")
        taken, error = seconds(lambda: Processes().run("start", Path(folder), {}, {}), "cpu")
    if error:
        raise click.ClickException(error)
    return taken


def figure_1b(steps: int = 2000) -> dict:
    """Train the networks of figure 1b both ways."""
    problem, case = draw(SEEDS), CASES["relu, cross-entropy"]
    alone = [problem.select([index]) for index in range(len(SEEDS))]
    published = sum(
        seconds(published_way(network, rate, steps), "cpu")[0]
        for network in tqdm(alone, desc="published way", disable=None)
        for rate in case["rates"]
    )
    core, _ = seconds(lambda: gradient_descent(problem, case["rates"], steps, record_every=steps), "cpu")
    return {"published_way": round(published, 1), "core": round(core, 2), "ratio": round(published / core, 1)}


def timed_rebuild(names: list[str]) -> tuple[float, dict[str, float]]:
    """Run notebooks; return the seconds of all and of each, which share the cores."""
    with (
        patch("conslaw.paper.rebuild.Processes", MeasuredProcesses),
        patch("conslaw.paper.execution.PAPERMILL", PAPERMILL + USAGE),
    ):
        total, outcomes = seconds(lambda: rebuild(names, force=True), "cpu")
    if failed := [f"{outcome.name}: {outcome.error}" for outcome in outcomes if outcome.status == "failed"]:
        raise click.ClickException("; ".join(failed))
    return total, {outcome.name: round(outcome.seconds, 1) for outcome in outcomes}


def of_notebooks(names: list[str]) -> dict:
    """Run notebooks, the panels first; return what all and each take."""
    panels = [name for name in names if name.startswith("fig")]
    of_panels, each = timed_rebuild(panels) if panels else (0.0, {})
    of_rest, others = timed_rebuild(rest) if (rest := [name for name in names if name not in panels]) else (0.0, {})
    core_seconds = {name: MeasuredProcesses.used[name][0] for name in [*each, *others]}
    return {
        "seconds": {"panels": round(of_panels, 1), "all": round(of_panels + of_rest, 1)},
        "seconds_of_each": each | others,
        "core_seconds": {
            "panels": round(sum(core_seconds[name] for name in panels), 1),
            "all": round(sum(core_seconds.values()), 1),
        },
        "core_seconds_of_each": core_seconds,
        "code_of_each": {name: code_of(name) for name in core_seconds},  # a card says no time of other code
        "peak_megabytes_of_each": {name: MeasuredProcesses.used[name][1] for name in core_seconds},
    }


@click.command()
@click.option("--notebook", "names", multiple=True, help="Only these; of results/ what it says of each is replaced.")
def main(names: tuple[str, ...]) -> None:
    """Measure, and write results/paper.json."""
    path = Path(__file__).parent / "results" / "paper.json"
    if names:
        result, measured = json.loads(path.read_text(encoding="utf-8")), of_notebooks(list(names))
        for key in (key for key in measured if key.endswith("_of_each")):
            result[key] |= measured[key]
    else:
        rates = {"matrix_product_gflops_of_one_core": product_rates_of_one_core()}
        sources = ("", "from conslaw import draw", "from conslaw import draw\nimport matplotlib.pyplot, pandas")
        starts = {source: min(start_of_notebook(source) for _ in range(3)) for source in sources}
        subset = figure_1b()
        result = of_notebooks(notebook_names())
        ledger.write_ledger()
        result["start_of_a_notebook"] = {name: round(value, 2) for name, value in starts.items()}
        result |= {"figure_1b": subset, **rates, "environment": environment("cpu")}
    text = json.dumps(result, indent=1)
    replace_file(path, text + "\n")
    click.echo(text)


if __name__ == "__main__":
    main()
