"""Agreement with the published numbers: every per-seed value the project holds, beside ours, and how they differ.

Published drifts are differences of float32 norms. Where rounding alone could move such a number by more than a
thousandth, no other machine can reproduce its digits; such numbers are told apart by a criterion, not by hand.
"""

import pandas as pd

from conslaw.paper.records import records_folder

__all__ = ["FLOAT32_NOISE", "FLOAT32_UNIT", "RESOLVED", "comparisons", "report"]

FLOAT32_UNIT = 2.0**-24
"""Relative rounding of a float32 number; times Σ‖W_l‖² it is the unit of the rounding of a drift."""
FLOAT32_NOISE = 20
"""Rounding of a drift after 2000 updates, in these units: more than figure 1b's notebook measures."""
RESOLVED = 1e-3
"""A number whose relative rounding is below this should come out on any machine."""


def comparisons() -> pd.DataFrame:
    """Collect the comparisons that the notebooks have left in the records' folder.

    Returns:
        One row per published number: notebook, quantity, key, published, here, relative_error; expected_rounding, the
        relative rounding to expect, from our own float32 runs where there are any, else for drifts from the norms of
        the weights, else 0; and resolved, whether that is below 1e-3.

    Raises:
        ValueError: If there are none.
    """
    paths = sorted(records_folder().glob("*_published.csv"))
    if not paths:
        raise ValueError(f"there are no comparisons in {records_folder()}; make them with `conslaw rebuild` in a clone")
    tables = [
        pd.read_csv(path, encoding="utf-8").assign(notebook=path.stem.removesuffix("_published")) for path in paths
    ]
    table = pd.concat(tables, ignore_index=True)
    table["relative_error"] = (table.here / table.published - 1).abs()
    of_norms = FLOAT32_NOISE * table.rounding_unit / table.published
    table["expected_rounding"] = table.rounding.fillna(of_norms).fillna(0.0)
    table["resolved"] = table.expected_rounding < RESOLVED
    columns = ["notebook", "quantity", "key", "published", "here", "relative_error", "expected_rounding", "resolved"]
    return table[columns]


def report(table: pd.DataFrame) -> pd.DataFrame:
    """Summarise comparisons for each notebook and quantity.

    Args:
        table: As returned by `comparisons`.

    Returns:
        Indexed by notebook and quantity: how many numbers are resolved, the median and the worst of their relative
        deviations; how many are limited by rounding, the worst of those, and how many of those are off by less than
        twice the rounding to expect.
    """

    def summary(of: pd.DataFrame) -> pd.Series:
        resolved, limited = of[of.resolved], of[~of.resolved]
        return pd.Series(
            {
                "resolved": len(resolved),
                "median": resolved.relative_error.median(),
                "worst": resolved.relative_error.max(),
                "limited by rounding": len(limited),
                "worst of these": limited.relative_error.max(),
                "within rounding": int((limited.relative_error < 2 * limited.expected_rounding).sum()),
            }
        )

    counts = dict.fromkeys(("resolved", "limited by rounding", "within rounding"), int)
    return table.groupby(["notebook", "quantity"], sort=True)[list(table)].apply(summary).astype(counts)
