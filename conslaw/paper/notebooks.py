"""The notebooks as files: which there are, their titles, parameters and code, read without Jupyter's packages.

Every kernel and every command comes by here, and nbformat takes a second to import.
"""

import ast
import io
import json
import tokenize
from pathlib import Path
from typing import NamedTuple

__all__ = [
    "NOTEBOOKS",
    "PROJECT",
    "TIMES",
    "Parameter",
    "default_parameters",
    "is_summary",
    "measured_times",
    "notebook_names",
    "read_cells",
    "read_parameters",
    "skipped",
    "title",
]

PROJECT = Path(__file__).resolve().parents[2]
NOTEBOOKS = PROJECT / "notebooks"
TIMES = PROJECT / "benchmarks" / "results" / "paper.json"


class Parameter(NamedTuple):
    """One line of a notebook's cell of parameters."""

    kind: str
    """Its annotation: int, float, str or list."""
    default: object
    text: str
    """The default as it is written."""
    comment: str


def notebook_names() -> list[str]:
    """Return the names of all notebooks that have a cell of parameters, sorted.

    Raises:
        ValueError: If there are none, as in an installation without the repository.
    """
    names = [name for name, problem in _survey().items() if not problem]
    if not names:
        raise ValueError(f"there are no notebooks in {NOTEBOOKS}; install from a clone with `pip install -e .`")
    return names


def skipped() -> dict[str, str]:
    """Return the files that `notebook_names` leaves out, and why: unfinished or damaged notebooks."""
    return {name: problem for name, problem in _survey().items() if problem}


def _survey() -> dict[str, str]:
    """Say of each notebook what is wrong with it, or nothing."""
    problems = {}
    for name in sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb") if not path.name.startswith(".")):
        try:
            read_parameters(name)
            problems[name] = ""
        except ValueError as error:
            problems[name] = str(error)
    return problems


def is_summary(name: str) -> bool:
    """Tell whether a notebook reads what the others have made, and therefore runs after them: 00_overview and such."""
    return name.startswith("00_")


def measured_times() -> dict[str, dict]:
    """Return what benchmarks/paper.py has measured of every notebook last; nothing where it has not."""
    return json.loads(TIMES.read_text(encoding="utf-8")) if TIMES.exists() else {}


def read_cells(name: str) -> list[dict]:
    """Read the cells of a notebook, with their sources as text.

    Args:
        name: Name of the notebook, without suffix.

    Raises:
        ValueError: If there is no such notebook, or the file is none; the message names it.
    """
    path = NOTEBOOKS / f"{name}.ipynb"
    if Path(name).name != name or not path.exists():
        known = ", ".join(sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")))
        raise ValueError(f"there is no notebook {name!r}; there are {known}")
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        return [{**cell, "source": "".join(cell["source"]), "metadata": cell["metadata"]} for cell in cells]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no notebook: {error}") from error


def title(name: str) -> str:
    """Return the first heading of a notebook."""
    lines = [
        line for cell in read_cells(name) if cell["cell_type"] == "markdown" for line in cell["source"].split("\n")
    ]
    return next((line.lstrip("# ") for line in lines if line.startswith("#")), "")


def read_parameters(name: str) -> dict[str, Parameter]:
    """Read the parameters of a notebook from its cell tagged "parameters".

    Args:
        name: Name of the notebook, without suffix.

    Returns:
        Parameters by name, in the order of the cell.

    Raises:
        ValueError: If there is no such notebook, or it has no such cell, or that cell holds more than literals.
    """
    sources = [cell["source"] for cell in read_cells(name) if "parameters" in cell["metadata"].get("tags", [])]
    if not sources:
        raise ValueError(f"notebook {name!r} has no cell tagged 'parameters'")
    try:
        tokens = tokenize.generate_tokens(io.StringIO(sources[0]).readline)
        comments = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
        return {
            node.target.id: Parameter(
                ast.unparse(node.annotation),
                ast.literal_eval(node.value),
                ast.get_source_segment(sources[0], node.value),
                comments.get(node.end_lineno, ""),
            )
            for node in ast.parse(sources[0]).body
            if isinstance(node, ast.AnnAssign)
        }
    except (SyntaxError, tokenize.TokenError, ValueError, AttributeError) as error:
        raise ValueError(f"notebook {name!r} has parameters that cannot be read: {error}") from error


def default_parameters(name: str) -> dict[str, object]:
    """Return the defaults of a notebook's parameters; see `read_parameters`."""
    return {key: parameter.default for key, parameter in read_parameters(name).items()}
