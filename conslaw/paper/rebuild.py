"""Batch rebuild: run notebooks with papermill, one process each, and write them back clean.

papermill alone only warns about a misspelt parameter and leaves times and paths behind. It changes the folder of the
whole process while it runs, which is why each notebook has a papermill process of its own.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbformat import NotebookNode
from tqdm import tqdm

from conslaw.paper import records

__all__ = ["Outcome", "is_summary", "notebook_names", "rebuild", "title"]

PAPERMILL = "import json, sys, papermill; papermill.execute_notebook(**json.load(sys.stdin))"
LIBRARIES = ("torch", "numpy", "scipy", "pandas", "matplotlib", "mlxtend")
UNUSED = {"__main__", "rebuild", "site", "sweep"}  # modules that no notebook imports
# Notebooks that start first, so that no core is left waiting for one of them.
LONGEST = {"e04_edge_of_stability", "e06_architecture_and_optimizer", "fig4c_switch_rate", "fig2a_spectral_crossover"}
ADDED = {"injected-parameters", "papermill-error-cell-tag"}  # tags of cells that papermill inserts


@dataclass(frozen=True)
class Outcome:
    """What became of one notebook."""

    name: str
    status: str
    """"rebuilt", "up to date" or "failed"."""
    seconds: float = 0.0
    error: str = ""
    """Of a failed notebook: the cell and what it raised."""


def notebook_names() -> list[str]:
    """Return the names of all notebooks, sorted.

    Raises:
        ValueError: If there are none, as in an installation without the repository.
    """
    names = sorted(path.stem for path in records.NOTEBOOKS.glob("*.ipynb"))
    if not names:
        raise ValueError(f"there are no notebooks in {records.NOTEBOOKS}; install from a clone with `pip install -e .`")
    return names


def is_summary(name: str) -> bool:
    """Tell whether a notebook reads what the others have made, and therefore runs after them: 00_overview and such."""
    return name.startswith("00_")


def title(name: str) -> str:
    """Return the first heading of a notebook."""
    cells = nbformat.read(records.NOTEBOOKS / f"{name}.ipynb", 4).cells
    lines = [line for cell in cells if cell.cell_type == "markdown" for line in cell.source.splitlines()]
    return next((line.lstrip("# ") for line in lines if line.startswith("#")), "")


def rebuild(
    names: Sequence[str] = (),
    parameters: Mapping[str, object] | None = None,
    *,
    jobs: int | None = None,
    force: bool = False,
) -> list[Outcome]:
    """Run notebooks and write their figures, records and outputs.

    A run with default parameters replaces the outputs in notebooks/; another goes to notebooks/variants/ and
    figures/variants/. One that fails leaves everything as it was, and the others go on.

    Args:
        names: Which notebooks; by default all that have these parameters.
        parameters: Values that replace defaults, in every one of these notebooks.
        jobs: How many run at once; by default two where there are two cores or more. They share the cores.
        force: Run also those that are up to date.

    Returns:
        One outcome for each notebook, in their order.

    Raises:
        ValueError: If a notebook or a parameter is unknown; the message lists those that are known.
        OSError: If the folder of figures cannot be written.
    """
    parameters = dict(parameters or {})
    all_names = notebook_names()
    takers = [name for name in all_names if parameters.keys() <= records.default_parameters(name).keys()]
    names = list(dict.fromkeys(names)) or takers or all_names
    for name in names:
        known = records.default_parameters(name)
        unknown = [key for key in parameters if key not in known]
        if unknown:
            raise ValueError(f"notebook {name!r} has no parameter {', '.join(unknown)}; it has {', '.join(known)}")
    # Before any work: a folder that cannot be written is found out now.
    records.replace_file(records.figures_folder() / ".stamps" / "writable", "")

    cores = os.cpu_count() or 1
    jobs = jobs or max(1, min(2, cores, len(names)))
    threads = max(1, cores // jobs)
    outcomes, running = {}, []
    with ThreadPoolExecutor(jobs) as pool, tqdm(total=len(names), unit="notebook", disable=None) as bar:
        try:
            for summaries in (False, True):
                chosen = [name for name in names if is_summary(name) is summaries]
                chosen.sort(key=lambda name: name not in LONGEST)
                futures = {
                    pool.submit(_rebuild_one, name, parameters, force, threads, running): name for name in chosen
                }
                for future in as_completed(futures):
                    outcomes[futures[future]] = future.result()
                    bar.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.send_signal(signal.SIGINT)  # papermill then ends its kernel
            raise
    return [outcomes[name] for name in names]


def _rebuild_one(name: str, parameters: Mapping[str, object], force: bool, threads: int, running: list) -> Outcome:
    """Run one notebook unless it is up to date."""
    source, figures = records.NOTEBOOKS / f"{name}.ipynb", records.figures_folder()
    defaults = records.default_parameters(name)
    is_default = all(records.plain(parameters[key]) == records.plain(defaults[key]) for key in parameters)
    stamp = figures / ".stamps" / name
    state = _state(source)
    if is_default and not force and stamp.exists():
        stamped = stamp.read_text(errors="replace").splitlines()
        if stamped[:1] == [state] and all((figures / file).exists() for file in stamped[1:]):
            return Outcome(name, "up to date")

    start = time.perf_counter()
    with TemporaryDirectory() as folder:
        output, fresh = Path(folder) / source.name, Path(folder) / "figures"
        fresh.mkdir()
        options = {
            "input_path": str(source),
            "output_path": str(output),
            "parameters": {} if is_default else parameters,
            "cwd": str(records.NOTEBOOKS),
            "kernel_name": "python3",
            "progress_bar": False,
            "coalesce_streams": True,  # else the pieces of printed text depend on timing
            "extra_arguments": ["--log-level=CRITICAL"],  # of the kernel, which else reports every shutdown
        }
        process = subprocess.Popen(
            [sys.executable, "-c", PAPERMILL],
            env={
                **os.environ,
                "CONSLAW_FIGURES": str(fresh),
                "CONSLAW_RECORDS": str(figures.resolve()),
                "OMP_NUM_THREADS": str(threads),
            },
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        _, log = process.communicate(json.dumps(options))
        if process.returncode:
            return Outcome(name, "failed", time.perf_counter() - start, _error(output, log))

        # All is made. From here on only whole files are replaced, and the stamp comes last.
        if is_default:
            stamp.unlink(missing_ok=True)
        made = sorted(path.relative_to(fresh) for path in fresh.rglob("*") if path.is_file())
        for file in made:
            records.replace_file(figures / file, (fresh / file).read_bytes())
        target = source if is_default else records.NOTEBOOKS / "variants" / source.name
        records.replace_file(target, nbformat.writes(_clean(nbformat.read(output, 4))) + "\n")
    if is_default:
        records.replace_file(stamp, "\n".join([state, *map(str, made)]))
    return Outcome(name, "rebuilt", time.perf_counter() - start)


def _error(output: Path, log: str) -> str:
    """Name the cell that failed, as it is counted in the source, and what it raised; else the end of the log."""
    cells = nbformat.read(output, 4).cells if output.exists() else []
    own = [cell for cell in cells if not ADDED.intersection(cell.metadata.get("tags", []))]
    for number, cell in enumerate(own, 1):
        for raised in cell.get("outputs", []):
            if raised.output_type == "error":
                return f"cell {number}: {raised.ename}: {raised.evalue}"
    begun = [number for number, cell in enumerate(own, 1) if cell.metadata.get("papermill", {}).get("start_time")]
    where = f"cell {begun[-1]}: " if begun else ""
    return where + (log.strip().splitlines() or ["papermill ended without a message"])[-1]


def _state(source: Path) -> str:
    """Hash all that a notebook's results depend on: code, package, published values, libraries; and the figures."""
    versions = [sys.version, *(f"{library} {version(library)}" for library in LIBRARIES)]
    digest = hashlib.sha256("\n".join(versions).encode())
    for cell in nbformat.read(source, 4).cells:
        digest.update(cell.source.encode() if cell.cell_type == "code" else b"")
    package = Path(__file__).parent
    paths = [*package.glob("*.py"), *package.glob("*.toml"), *records.NOTEBOOKS.glob("published/*.csv")]
    paths = [path for path in paths if path.stem not in UNUSED]
    if is_summary(source.stem):
        made = records.figures_folder().glob("*")
        paths += [path for path in made if path.is_file() and not is_summary(path.name)]
    for path in sorted(paths):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _clean(notebook: NotebookNode) -> NotebookNode:
    """Drop what changes from run to run: times and paths."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        cell.metadata = {"tags": tags} if tags else {}
    return notebook
