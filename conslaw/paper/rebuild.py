"""Batch rebuild: run notebooks, and put what they make in its place, all of a notebook or nothing.

A default run whose numbers all agree with those already there, and whose code is the same, leaves the files as they
are, to the last digit: what a rebuild on another machine changes is what differs. papermill alone only warns about a
misspelt parameter and leaves times and paths behind.
"""

import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from conslaw.paper import notebooks
from conslaw.paper.comparison import Comparison, compare
from conslaw.paper.execution import Processes
from conslaw.paper.files import check_writable, replace_file, replace_files
from conslaw.paper.notebooks import is_summary, notebook_names
from conslaw.paper.parameters import changed, check
from conslaw.paper.prints import print_differences
from conslaw.paper.provenance import cores
from conslaw.paper.records import figures_folder, variant_folder
from conslaw.paper.stamps import code_of, is_as_made, is_up_to_date, state_of, write_stamp

__all__ = ["Outcome", "rebuild"]

SMALL = {"00_agreement", "00_overview", "01_minimal"}
"""Notebooks whose work is too small to be shared among threads."""
ROOM = 2**26
"""Bytes that must be free on a disk that is written to."""


@dataclass(frozen=True)
class Outcome:
    """What became of one notebook."""

    name: str
    status: str
    """"rebuilt", "up to date" or "failed"."""
    seconds: float = 0.0
    error: str = ""
    """Of a failed notebook: the cell and what it raised, or what else went wrong."""
    folder: Path | None = None
    """Of a rebuilt notebook: where its figures and numbers are."""
    kept: bool = False
    """Whether all agrees with the files that were there, which therefore stay."""
    comparison: Comparison | None = None
    """Of a default run: how its numbers compare with those that were there."""


def rebuild(
    names: Sequence[str] = (),
    parameters: Mapping[str, object] | None = None,
    *,
    jobs: int | None = None,
    force: bool = False,
) -> list[Outcome]:
    """Run notebooks and write their figures, records and outputs.

    A run with default parameters replaces the outputs in notebooks/; another goes, with its notebook, to a folder of
    its own in figures/variants/. One that fails leaves everything as it was, and the others go on.

    Args:
        names: Which notebooks; by default all that have these parameters.
        parameters: Values that replace defaults, in every one of these notebooks.
        jobs: How many run at once; by default two where there are two cores or more. They share the cores.
        force: Run also those that are up to date.

    Returns:
        One outcome for each notebook, in their order.

    Raises:
        ValueError: If a notebook or a parameter is unknown, or a value not what it takes; the message says what is.
        OSError: If something cannot be written that a run would write.
    """
    parameters, all_names = dict(parameters or {}), notebook_names()
    takers = [name for name in all_names if parameters.keys() <= notebooks.default_parameters(name).keys()]
    names = list(dict.fromkeys(names)) or takers or all_names
    values = {name: changed(name, check(name, parameters)) for name in names}
    _check_places([name for name in names if not values[name]])

    seconds = notebooks.measured_times().get("seconds_of_each", {})
    jobs = jobs or max(1, min(2, cores(), len(names)))
    threads = max(1, cores() // jobs)
    processes, outcomes = Processes(), {}
    with ThreadPoolExecutor(jobs) as pool, tqdm(total=len(names), unit="notebook", disable=None) as bar:
        try:
            for summaries in (False, True):
                chosen = [name for name in names if is_summary(name) is summaries]
                chosen.sort(key=lambda name: -seconds.get(name, math.inf))  # so that no core waits for a long one
                futures = {
                    pool.submit(_try, name, values[name], force, 1 if name in SMALL else threads, processes)
                    for name in chosen
                }
                outcomes |= {outcome.name: outcome for outcome in _follow(futures, processes, bar)}
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            processes.stop()
            raise
    return [outcomes[name] for name in names]


def _check_places(names: Sequence[str]) -> None:
    """Find out before any work what cannot be written."""
    replace_file(figures_folder() / ".stamps" / "writable", "")
    for name in names:
        check_writable(notebooks.NOTEBOOKS / f"{name}.ipynb")
    for folder in (Path(tempfile.gettempdir()), figures_folder()):
        if shutil.disk_usage(folder).free < ROOM:
            raise OSError(f"there is no room in {folder}: less than {ROOM >> 20} MB are free")


def _follow(futures: set[Future], processes: Processes, bar: tqdm) -> list[Outcome]:
    """Wait for notebooks, and show which are running."""
    waiting, outcomes = futures, []
    while waiting:
        done, waiting = wait(waiting, timeout=1, return_when=FIRST_COMPLETED)
        outcomes += [future.result() for future in done]
        bar.set_postfix_str(", ".join(processes.names()), refresh=False)
        bar.update(len(done))
        bar.refresh()
    return outcomes


def _try(name: str, values: Mapping[str, object], force: bool, threads: int, processes: Processes) -> Outcome:
    """Run one notebook unless it is up to date; whatever goes wrong is its own failure."""
    start = time.perf_counter()
    try:
        if not values and not force and is_up_to_date(name):
            return Outcome(name, "up to date")
        fields = _run(name, values, threads, processes)
    except Exception as error:
        fields = {
            "error": f"{error}" if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: {error}"
        }
    return Outcome(name, "failed" if fields.get("error") else "rebuilt", time.perf_counter() - start, **fields)


def _run(name: str, values: Mapping[str, object], threads: int, processes: Processes) -> dict[str, object]:
    """Run one notebook and put what it makes in its place; return fields of the outcome."""
    source, figures = notebooks.NOTEBOOKS / f"{name}.ipynb", figures_folder()
    before, state, code = source.read_bytes(), state_of(name), code_of(name)
    with tempfile.TemporaryDirectory() as temporary:
        folder, fresh = Path(temporary), Path(temporary) / "figures"
        fresh.mkdir()
        (folder / "source.ipynb").write_bytes(before)
        environment = {
            "CONSLAW_FIGURES": str(fresh),
            "CONSLAW_RECORDS": str(figures.resolve()),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(threads),
            "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY")
            or "PASSIVE",  # threads that wait leave cores to others
        }
        if error := processes.run(name, folder, values, environment):
            return {"error": error}
        made = {path.relative_to(fresh): path.read_bytes() for path in fresh.rglob("*") if path.is_file()}
        executed = _clean(json.loads((folder / "executed.ipynb").read_text(encoding="utf-8")), code)
    if values:  # the card is about the run with default parameters
        executed["cells"] = [cell for cell in executed["cells"] if "card" not in cell["metadata"].get("tags", [])]
    text = json.dumps(executed, indent=1, sort_keys=True, ensure_ascii=False) + "\n"

    if values:
        place = figures / variant_folder(name, values)
        files = {figures / file if file.parts[0] == "variants" else place / file: made[file] for file in made}
        replace_files({**files, place / source.name: text})
        return {"folder": place}
    if source.read_bytes() != before:
        return {"error": "the notebook was edited while it ran; the edit stays, nothing was written, run it again"}
    comparison, former = compare(made, figures), json.loads(before)
    same_code = former["metadata"].get("conslaw") == executed["metadata"]["conslaw"] and is_as_made(name, state)
    kept = same_code and not comparison.beyond and not print_differences(executed["cells"], former["cells"])
    if not kept:
        replace_files({**{figures / file: made[file] for file in made}, source: text})
    write_stamp(name, state, made)
    return {"folder": figures, "kept": kept, "comparison": comparison}


def _clean(notebook: dict, code: str) -> dict:
    """Drop what changes from run to run, times and paths, and note the code."""
    notebook["metadata"] = {
        "conslaw": {"code": code},
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook["cells"]:
        tags, is_folded = cell["metadata"].get("tags", []), cell["metadata"].get("jupyter", {}).get("source_hidden")
        cell["metadata"] = {"jupyter": {"source_hidden": True}} if is_folded else {}
        cell["metadata"] |= {"tags": tags} if tags else {}
    return notebook
