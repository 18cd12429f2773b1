"""Records: the numbers, runs and figures a notebook leaves in figures/, written so that nothing already made is lost.

A notebook's record is figures/<name>.json (parameters, values, tolerances, provenance), .csv (one row per trained
network), _published.csv (our numbers beside the published ones), .png and .svg, and further tables as _<key>.csv. Runs
with other than the default parameters go to figures/variants/<name>/<parameters>/ and never replace the paper's, nor
each other.
"""

import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from conslaw.paper import parameters
from conslaw.paper.comparison import compare
from conslaw.paper.files import replace_file, replace_files
from conslaw.paper.notebooks import PROJECT
from conslaw.paper.provenance import provenance

if TYPE_CHECKING:  # a command that only reads records need not wait for these
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["Record", "figures_folder", "read_record", "records_folder", "variant_folder"]

DIGITS = 10
LARGEST_TOLERANCE = math.log(10)


def figures_folder() -> Path:
    """Return the folder of the records: $CONSLAW_FIGURES, or figures/ of the project."""
    return Path(os.environ.get("CONSLAW_FIGURES") or PROJECT / "figures")


def variant_folder(name: str, values: Mapping[str, object]) -> Path:
    """Return where a run belongs, as a path inside `figures_folder`.

    Args:
        name: Name of the notebook.
        values: Those of its parameters that are not the defaults.

    Returns:
        variants/<name>/<parameters>, or the folder itself where nothing differs.
    """
    return Path("variants", name, parameters.label(values)) if values else Path()


def plain(value):
    """Turn tensors and arrays into lists and round floats to ten digits, which is what a record promises."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


class Record:
    """What one notebook measured.

    Values are set like those of a dictionary, figures are saved when they are drawn, and `save` writes the rest.
    """

    def __init__(self, name: str, namespace: Mapping[str, object]):
        """Start a record, and check the parameters of the run.

        A run is the paper's where all parameters are at their defaults and, if there is a record already, at that
        record's: a notebook whose defaults were edited makes a variant until `conslaw rebuild` runs it.

        Args:
            name: Name of the notebook.
            namespace: Its `globals()`, from which the current values of its parameters are taken.

        Raises:
            ValueError: If there is no such notebook, or a parameter is not what it takes; the message names it.
        """
        defaults = parameters.read_parameters(name)
        if missing := [key for key in defaults if key not in namespace]:
            raise ValueError(f"{name} has no value of {', '.join(missing)}; run its cell of parameters first")
        self.name = name
        self.parameters = parameters.check(name, {key: namespace[key] for key in defaults})
        self.changed = parameters.changed(name, self.parameters)
        present = figures_folder() / f"{name}.json"
        if not self.changed and present.exists():
            kept = read_record(name, present)["parameters"]
            self.changed = {key: value for key, value in self.parameters.items() if kept.get(key) != plain(value)}
        self.is_default = not self.changed
        self.folder = figures_folder() / variant_folder(name, self.changed)
        self.values: dict[str, object] = {}
        self.tolerances: dict[str, float] = {}
        self.bounds: dict[str, float] = {}
        self.figures: dict[str, str] = {}
        self.comparisons: list[pd.DataFrame] = []

    def __setitem__(self, quantity: str, value: object) -> None:
        """Set a value: a number, a tensor or array, or lists and mappings of these."""
        self.values[quantity] = plain(value)

    def __getitem__(self, quantity: str):
        """Return a value as it will be saved; nan where it is missing, which can be printed as a number."""
        value = self.values[quantity]
        return math.nan if value is None else value

    def approximate(self, tolerance: float, **quantities: object) -> None:
        """Set values whose digits depend on the machine, as those of chaotic runs.

        Args:
            tolerance: Largest |ln(a/b)| of the values a and b of two machines: 0.1 for a tenth, ln 10 for an order of
                magnitude, which is the most. Other values are compared to a millionth.
            **quantities: The values. Zero agrees with nothing else: what may be zero needs a `bound`.

        Raises:
            ValueError: If the tolerance allows nothing or anything.
        """
        if not 0 < tolerance <= LARGEST_TOLERANCE + 1e-9:
            raise ValueError(f"tolerance must be above 0 and at most ln 10 = {LARGEST_TOLERANCE:.4f}, got {tolerance}")
        self._state(self.tolerances, tolerance, quantities)

    def bound(self, limit: float, **quantities: object) -> None:
        """Set values that are nothing but rounding, or that only an upper bound is claimed of.

        Args:
            limit: What no value exceeds in size, on any machine.
            **quantities: The values.

        Raises:
            ValueError: If the limit is not a positive number.
        """
        if not 0 < limit < math.inf:
            raise ValueError(f"limit must be positive and finite, got {limit}")
        self._state(self.bounds, limit, quantities)

    def _state(self, statements: dict[str, float], number: float, quantities: Mapping[str, object]) -> None:
        for quantity, value in quantities.items():
            self[quantity] = value
            statements[quantity] = number

    def compare(self, comparison: "pd.DataFrame") -> None:
        """Keep a comparison with published values; `tables.beside_published` makes it."""
        columns = ["quantity", "key", "published", "here", "rounding", "rounding_unit"]
        self.comparisons.append(comparison.reindex(columns=columns))

    def figure(self, figure: "Figure", suffix: str = "", formats: Sequence[str] = ("png", "svg")) -> None:
        """Save a figure, and what it shows in words.

        Args:
            figure: The figure.
            suffix: For further figures of a notebook: the files are <name>_<suffix>.
            formats: Kinds of files.
        """
        import matplotlib

        from conslaw.paper.plotting import described

        stem = f"{self.name}_{suffix}" if suffix else self.name
        self.figures[stem] = described(figure)
        for extension in formats:
            with tempfile.TemporaryFile() as file, matplotlib.rc_context({"svg.hashsalt": stem}):
                metadata = {"Software": None} if extension == "png" else {"Date": None, "Creator": None}
                figure.savefig(file, format=extension, metadata=metadata)
                file.seek(0)
                replace_file(self.folder / f"{stem}.{extension}", file.read())
            figure.set_layout_engine("none")  # the layout is found, which takes as long as drawing: the next keep it

    def save(self, runs: "pd.DataFrame | None" = None, **tables: "pd.DataFrame") -> None:
        """Write the numbers, unless they all agree with those already there, which then stay to the last digit.

        Args:
            runs: One row per trained network; none where a notebook trains none.
            **tables: More of them: the files are <name>_<key>.csv.
        """
        import pandas as pd

        content = {
            "notebook": self.name,
            "parameters": plain(self.parameters),
            "values": self.values,
            "tolerances": self.tolerances,
            "bounds": self.bounds,
            "figures": self.figures,
            "provenance": provenance(),
        }
        files = {Path(f"{self.name}.json"): json.dumps(content, indent=1, ensure_ascii=False) + "\n"}
        published = pd.concat(self.comparisons) if self.comparisons else None
        for suffix, table in {"": runs, "_published": published, **{f"_{key}": tables[key] for key in tables}}.items():
            if table is not None:
                files[Path(f"{self.name}{suffix}.csv")] = table.to_csv(index=False, float_format=f"%.{DIGITS}g")
        files = {file: text.encode() for file, text in files.items()}
        if compare(files, self.folder).beyond:
            replace_files({self.folder / file: text for file, text in files.items()})


def records_folder() -> Path:
    """Return the folder of the records of other notebooks: $CONSLAW_RECORDS, or `figures_folder`."""
    return Path(os.environ.get("CONSLAW_RECORDS") or figures_folder())


def read_record(name: str, path: Path | None = None) -> dict:
    """Read the record of a notebook's default run.

    Args:
        name: Name of the notebook.
        path: Its file; by default in `records_folder`.

    Returns:
        Its JSON: notebook, parameters, values, provenance.

    Raises:
        ValueError: If the record is missing or damaged; the message names the file and what to do.
    """
    path = path or records_folder() / f"{name}.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        record["values"], record["parameters"].keys()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"cannot read the record {path}; make it anew with `conslaw rebuild --force {name}` in a clone"
        ) from error
    return record
