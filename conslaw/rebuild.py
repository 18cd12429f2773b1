"""Batch rebuild: run notebooks with papermill, one process each, and write them back clean.

papermill alone only warns about a misspelt parameter, runs in the caller's folder and leaves times and paths behind.
"""

import hashlib
import os
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
import papermill
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError
from tqdm import tqdm

from conslaw import record

__all__ = ["Outcome", "notebook_names", "rebuild", "title"]


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
    """Return the names of all notebooks, sorted."""
    return sorted(path.stem for path in record.NOTEBOOKS.glob("*.ipynb"))


def title(name: str) -> str:
    """Return the first heading of a notebook."""
    return nbformat.read(record.NOTEBOOKS / f"{name}.ipynb", 4).cells[0].source.splitlines()[0].lstrip("# ")


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
        names: Which notebooks; all by default.
        parameters: Values that replace defaults, in every one of these notebooks.
        jobs: How many run at once; by default two where there are two cores or more. They share the cores.
        force: Run also those that are up to date.

    Returns:
        One outcome for each notebook, in their order.

    Raises:
        ValueError: If a notebook or a parameter is unknown; the message lists those that are known.
        OSError: If the folder of figures cannot be written.
    """
    names, parameters = list(names) or notebook_names(), dict(parameters or {})
    for name in names:
        known = record.default_parameters(name)
        unknown = [key for key in parameters if key not in known]
        if unknown:
            raise ValueError(f"notebook {name!r} has no parameter {', '.join(unknown)}; it has {', '.join(known)}")
    # Before any work: a folder that cannot be written is found out now.
    record.replace_file(record.figures_folder() / ".stamps" / "writable", "")

    cores = os.cpu_count() or 1
    jobs = jobs or min(2, cores, len(names))
    os.environ["OMP_NUM_THREADS"] = str(max(1, cores // jobs))
    outcomes = {}
    with ThreadPoolExecutor(jobs) as pool, tqdm(total=len(names), unit="notebook", disable=None) as bar:
        futures = {pool.submit(_rebuild_one, name, parameters, force): name for name in names}
        try:
            for future in as_completed(futures):
                outcomes[futures[future]] = future.result()
                bar.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [outcomes[name] for name in names]


def _rebuild_one(name: str, parameters: Mapping[str, object], force: bool) -> Outcome:
    """Run one notebook unless it is up to date."""
    source = record.NOTEBOOKS / f"{name}.ipynb"
    defaults = record.default_parameters(name)
    is_default = all(record.plain(parameters[key]) == record.plain(defaults[key]) for key in parameters)
    stamp = record.figures_folder() / ".stamps" / name
    state = _state(source)
    if is_default and not force and stamp.exists() and stamp.read_text() == state:
        return Outcome(name, "up to date")

    start = time.perf_counter()
    with TemporaryDirectory() as folder:
        try:
            papermill.execute_notebook(
                str(source),
                str(Path(folder) / source.name),
                parameters={} if is_default else parameters,
                cwd=str(record.NOTEBOOKS),
                kernel_name="python3",
                progress_bar=False,
                extra_arguments=["--log-level=CRITICAL"],  # of the kernel, which else reports every shutdown
            )
        except PapermillExecutionError as error:
            message = f"cell {error.cell_index + 1}: {error.ename}: {error.evalue}"
            return Outcome(name, "failed", time.perf_counter() - start, message)
        executed = nbformat.read(Path(folder) / source.name, 4)
    target = source if is_default else record.NOTEBOOKS / "variants" / source.name
    record.replace_file(target, nbformat.writes(_clean(executed)) + "\n")
    if is_default:
        record.replace_file(stamp, state)
    return Outcome(name, "rebuilt", time.perf_counter() - start)


def _state(source: Path) -> str:
    """Hash all that a notebook's results depend on: its code, the package, the published values and Python."""
    digest = hashlib.sha256(sys.version.encode())
    for cell in nbformat.read(source, 4).cells:
        digest.update(cell.source.encode() if cell.cell_type == "code" else b"")
    package = Path(__file__).parent
    for path in sorted([*package.glob("*.py"), *package.glob("*.toml"), *record.NOTEBOOKS.glob("published/*.csv")]):
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
