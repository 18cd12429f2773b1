"""Records: the numbers, runs and figures a notebook leaves in figures/, written so that nothing already made is lost.

A notebook's record is figures/<name>.json (parameters, values, tolerances, provenance), .csv (one row per trained
network), _published.csv (our numbers beside the published ones), .png and .svg. Runs with other than the default
parameters go to figures/variants/ and never replace the paper's.
"""

import ast
import json
import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import scipy
import torch
from matplotlib.figure import Figure

__all__ = [
    "NOTEBOOKS",
    "PROJECT",
    "Record",
    "default_parameters",
    "figures_folder",
    "read_record",
    "records_folder",
    "replace_file",
]

PROJECT = Path(__file__).resolve().parents[2]
NOTEBOOKS = PROJECT / "notebooks"
DIGITS = 10


def figures_folder() -> Path:
    """Return the folder of the records: $CONSLAW_FIGURES, or figures/ of the project."""
    return Path(os.environ.get("CONSLAW_FIGURES") or PROJECT / "figures")


def replace_file(path: Path, content: bytes | str) -> None:
    """Write a file under a temporary name and rename it, so that the old one stays until the new one is complete.

    Args:
        path: File to make or replace; its folder is made where missing.
        content: What it shall hold.

    Raises:
        OSError: If the folder cannot be made or written; the message names it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
        try:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
            temporary.chmod(0o644)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OSError(f"cannot write {path.name} into the folder {path.parent}: {error.strerror or error}") from error


def default_parameters(name: str) -> dict[str, object]:
    """Read the parameters of a notebook and their defaults from its cell tagged "parameters".

    Args:
        name: Name of the notebook, without suffix.

    Returns:
        Values by name, in the order of the cell.

    Raises:
        ValueError: If there is no such notebook or it has no such cell.
    """
    path = NOTEBOOKS / f"{name}.ipynb"
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in NOTEBOOKS.glob("*.ipynb")))
        raise ValueError(f"there is no notebook {name!r}; there are {known}")
    # Read as plain JSON: every notebook's kernel comes by here, and nbformat takes two seconds to import.
    for cell in json.loads(path.read_text())["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            source = "".join(cell["source"])
            assignments = [node for node in ast.parse(source).body if isinstance(node, ast.AnnAssign)]
            return {node.target.id: ast.literal_eval(node.value) for node in assignments}
    raise ValueError(f"notebook {name!r} has no cell tagged 'parameters'")


def plain(value):
    """Turn tensors and arrays into lists and round floats to ten digits, which is what a record promises."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None
    return value


class Record:
    """What one notebook measured.

    Values are set like those of a dictionary, figures are saved when they are drawn, and `save` writes the rest.
    """

    def __init__(self, name: str, namespace: Mapping[str, object]):
        """Start a record.

        Args:
            name: Name of the notebook.
            namespace: Its `globals()`, from which the current values of its parameters are taken.

        Raises:
            ValueError: If there is no such notebook.
        """
        defaults = default_parameters(name)
        self.name = name
        self.parameters = {key: namespace[key] for key in defaults}
        self.is_default = plain(self.parameters) == plain(defaults)
        self.folder = figures_folder() if self.is_default else figures_folder() / "variants"
        self.values: dict[str, object] = {}
        self.tolerances: dict[str, float] = {}
        self.comparisons: list[pd.DataFrame] = []

    def __setitem__(self, quantity: str, value: object) -> None:
        """Set a value: a number, a tensor or array, or lists and mappings of these."""
        self.values[quantity] = plain(value)

    def __getitem__(self, quantity: str):
        """Return a value as it will be saved."""
        return self.values[quantity]

    def approximate(self, tolerance: float, **quantities: object) -> None:
        """Set values whose digits depend on the machine: of chaotic runs, or rounding errors.

        Args:
            tolerance: Relative difference to allow between machines; other values are compared to a millionth.
            **quantities: The values.
        """
        for quantity, value in quantities.items():
            self[quantity] = value
            self.tolerances[quantity] = tolerance

    def compare(self, comparison: pd.DataFrame) -> None:
        """Keep a comparison with published values; `tables.beside_published` makes it."""
        columns = ["quantity", "key", "published", "here", "rounding", "rounding_unit"]
        self.comparisons.append(comparison.reindex(columns=columns))

    def figure(self, figure: Figure, suffix: str = "", formats: Sequence[str] = ("png", "svg")) -> None:
        """Save a figure.

        Args:
            figure: The figure.
            suffix: For further figures of a notebook: the files are <name>_<suffix>.
            formats: Kinds of files.
        """
        stem = f"{self.name}_{suffix}" if suffix else self.name
        for extension in formats:
            with tempfile.TemporaryFile() as file, matplotlib.rc_context({"svg.hashsalt": stem}):
                metadata = {"Software": None} if extension == "png" else {"Date": None, "Creator": None}
                figure.savefig(file, format=extension, metadata=metadata)
                file.seek(0)
                replace_file(self.folder / f"{stem}.{extension}", file.read())
            figure.set_layout_engine("none")  # the layout is found, which takes as long as drawing: the next keep it

    def save(self, runs: pd.DataFrame | None = None) -> None:
        """Write the numbers.

        Args:
            runs: One row per trained network; none where a notebook trains none.
        """
        content = {
            "notebook": self.name,
            "parameters": plain(self.parameters),
            "values": self.values,
            "tolerances": self.tolerances,
            "provenance": {
                "python": platform.python_version(),
                "torch": torch.__version__.split("+")[0],
                "numpy": np.__version__,
                "scipy": scipy.__version__,
            },
        }
        tables = {"": runs, "_published": pd.concat(self.comparisons) if self.comparisons else None}
        for suffix, table in tables.items():
            if table is not None:
                text = table.to_csv(index=False, float_format=f"%.{DIGITS}g")
                replace_file(self.folder / f"{self.name}{suffix}.csv", text)
        replace_file(self.folder / f"{self.name}.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def records_folder() -> Path:
    """Return the folder of the records of other notebooks: $CONSLAW_RECORDS, or `figures_folder`."""
    return Path(os.environ.get("CONSLAW_RECORDS") or figures_folder())


def read_record(name: str) -> dict:
    """Read the record of a notebook's default run.

    Args:
        name: Name of the notebook.

    Returns:
        Its JSON: notebook, parameters, values, provenance.

    Raises:
        ValueError: If the record is missing or damaged; the message names the file and what to do.
    """
    path = records_folder() / f"{name}.json"
    try:
        record = json.loads(path.read_text())
        record["values"], record["parameters"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"cannot read the record {path}; make it anew with `conslaw rebuild --force {name}`"
        ) from error
    return record
