"""Published numbers that are not per run: means, exponents and the like, one file for each notebook.

They are inputs of comparisons, never of results. Per-run numbers stand in the CSV files beside these, see `tables`.
"""

import math
import tomllib

import pandas as pd

from conslaw.paper.notebooks import NOTEBOOKS
from conslaw.paper.records import Record

__all__ = ["published_table"]


def published_table(record: Record, table: str, *, is_claim: bool = False, notebook: str | None = None) -> pd.DataFrame:
    """Read a table of published numbers from notebooks/published/<name>.toml.

    Args:
        record: Record of the notebook. In a run with other than the published parameters nothing stands beside the
            published numbers: they are NaN.
        table: Name of the table in the file: columns of equal length, of which the first is the index.
        is_claim: Whether the numbers are what the paper claims of any run, such as a line in a figure, and stay.
        notebook: Whose file it is; by default the record's own.

    Returns:
        The table.

    Raises:
        ValueError: If there is no such file or table; the message names both.
    """
    path = NOTEBOOKS / "published" / f"{notebook or record.name}.toml"
    try:
        columns = tomllib.loads(path.read_text(encoding="utf-8"))[table]
    except (OSError, KeyError) as error:
        raise ValueError(f"there are no published numbers {table!r} in {path}") from error
    frame = pd.DataFrame(columns)
    frame = frame.set_index(frame.columns[0])
    return frame if record.is_default or is_claim else frame.astype(float) * math.nan
