"""Published numbers that are not per run: means, exponents and the like, one file for each notebook.

They are inputs of comparisons, never of results. Per-run numbers stand in the CSV files beside these, see `tables`.
"""

import tomllib

import pandas as pd

from conslaw.paper.records import NOTEBOOKS

__all__ = ["published_table"]


def published_table(name: str, table: str) -> pd.DataFrame:
    """Read a table of published numbers from notebooks/published/<name>.toml.

    Args:
        name: Name of the notebook.
        table: Name of the table in the file: columns of equal length, of which the first is the index.

    Returns:
        The table.

    Raises:
        ValueError: If there is no such file or table; the message names both.
    """
    path = NOTEBOOKS / "published" / f"{name}.toml"
    try:
        columns = tomllib.loads(path.read_text(encoding="utf-8"))[table]
    except (OSError, KeyError) as error:
        raise ValueError(f"there are no published numbers {table!r} in {path}") from error
    frame = pd.DataFrame(columns)
    return frame.set_index(frame.columns[0])
