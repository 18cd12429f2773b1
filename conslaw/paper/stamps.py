"""Stamps: what the files of a notebook were made from, so that only what has changed is made again.

A stamp lies in figures/.stamps, of this machine alone. Besides, each notebook carries in its metadata a hash of the
code that made its outputs, which travels with the repository: outputs of other code are found by a test.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from conslaw.paper import notebooks
from conslaw.paper.files import replace_file
from conslaw.paper.notebooks import is_summary, read_cells
from conslaw.paper.provenance import versions
from conslaw.paper.records import figures_folder

__all__ = ["code_of", "is_as_made", "is_up_to_date", "state_of", "write_stamp"]

PACKAGE = Path(__file__).resolve().parents[1]
UNUSED = {
    "cards",
    "commands",
    "execution",
    "prints",
    "rebuild",
    "site",
    "stamps",
    "sweep",
}  # of paper/: no notebook needs them


def code_of(name: str) -> str:
    """Hash what the outputs and figures of a notebook show, besides numbers: its code and the style of figures.

    That of a summary includes the files of the other notebooks, which it shows.
    """
    digest = hashlib.sha256((PACKAGE / "paper" / "plotting.py").read_bytes())
    for cell in read_cells(name):
        digest.update(cell["source"].encode() if cell["cell_type"] == "code" else b"")
    if is_summary(name):
        digest.update(_hash_of(path for path in figures_folder().glob("*.*") if not is_summary(path.name)).encode())
    return digest.hexdigest()[:16]


def state_of(name: str) -> str:
    """Hash all that a notebook's results depend on: its code, the package, published values, and libraries."""
    modules = [path for path in PACKAGE.rglob("*.py") if path.parent.name != "paper" or path.stem not in UNUSED]
    sources = [*modules, *PACKAGE.rglob("*.toml"), *notebooks.NOTEBOOKS.glob("published/*")]
    return " ".join([code_of(name), _hash_of(sources), *versions().values()])


def is_up_to_date(name: str) -> bool:
    """Tell whether all that a notebook has made is as it was made, and would be made so again."""
    try:
        stamp = json.loads(_stamp(name).read_text(encoding="utf-8"))
        return stamp["state"] == state_of(name) and stamp["made"] == _made(name, map(Path, stamp["made"]))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def is_as_made(name: str, state: str) -> bool:
    """Tell whether all is as it was last made here, by this code and package; what was not made here is trusted."""
    try:
        stamp = json.loads(_stamp(name).read_text(encoding="utf-8"))
        same_code = stamp["state"].split(" ")[:2] == state.split(" ")[:2]  # whatever the libraries
        return same_code and stamp["made"] == _made(name, map(Path, stamp["made"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return True


def write_stamp(name: str, state: str, files: Iterable[Path]) -> None:
    """Note that a notebook is up to date.

    Args:
        name: Name of the notebook.
        state: `state_of` before it ran.
        files: Those that it made, as paths inside the folder of figures.
    """
    replace_file(_stamp(name), json.dumps({"state": state, "made": _made(name, files)}, indent=1))


def _stamp(name: str) -> Path:
    return figures_folder() / ".stamps" / f"{name}.json"


def _made(name: str, files: Iterable[Path]) -> Mapping[str, str]:
    """Hash the files that a notebook has made, and its outputs."""
    made = {str(file): _hash_of([figures_folder() / file]) for file in files if str(file) != "outputs"}
    outputs = [cell.get("outputs") for cell in read_cells(name) if cell["cell_type"] == "code"]
    return made | {"outputs": hashlib.sha256(json.dumps(outputs).encode()).hexdigest()}


def _hash_of(paths: Iterable[Path]) -> str:
    """Hash the names and contents of files."""
    digest = hashlib.sha256()
    for path in sorted(path for path in paths if path.is_file()):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)} ".encode() + content)
    return digest.hexdigest()
