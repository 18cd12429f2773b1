"""How new numbers compare with those already there: which are equal, which deviate, and by how much of what is allowed.

A number agrees with another if |ln(a/b)| is at most a tolerance: a millionth, unless the record states another one. Of
what is rounding a record states an upper bound instead. Rows of runs whose digits depend on the machine, because they
are in float32, at the edge of stability or blow up, are compared in what was asked for, not in what came out.
"""

import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["TOLERANCE", "Comparison", "compare", "compare_records", "compare_runs", "deviation"]

TOLERANCE = 1e-6
ITERATED = 1e-3
"""Of eigenvalues along a trajectory: they are iterated to a residual of 1e-2 only, whose square is their error."""
ROUNDING = 1e-12
"""Absolute difference in a table of runs that is never counted."""
STABLE = 1.25
"""Energy ratio above which runs overshoot: at the edge of stability, chaotic, or blowing up."""
ASKED = ("dataset", "n", "dim", "width", "depth", "activation", "loss", "optimizer", "seed", "eta", "steps", "dtype")


@dataclass
class Comparison:
    """What came out."""

    compared: int = 0
    equal: int = 0
    beyond: list[str] = field(default_factory=list)
    """What differs by more than is allowed."""
    worst: tuple[float, str] = (0.0, "")
    """Of what is allowed the largest share that a deviation takes, and what it is."""

    def note(self, name: str, difference: float, allowed: float, count: int = 1, equal: int | None = None) -> None:
        """Add numbers: the largest of their differences, and how many of them are equal."""
        self.compared += count
        self.equal += (count if difference == 0 else 0) if equal is None else equal
        if difference > allowed:
            self.beyond.append(name)
        self.worst = max(self.worst, (difference / allowed, f"{difference:.1e} of {allowed:.0e} in {name}"))

    def __add__(self, other: "Comparison") -> "Comparison":
        """Put two comparisons together."""
        return Comparison(
            self.compared + other.compared,
            self.equal + other.equal,
            self.beyond + other.beyond,
            max(self.worst, other.worst),
        )

    def __str__(self) -> str:
        """One line."""
        line = f"{self.compared} numbers compared with those before: {self.equal} equal"
        if self.worst[0] > 0:
            line += f", the largest deviation {self.worst[1]}"
        beyond = ", ".join(self.beyond[:10]) + (f" and {len(self.beyond) - 10} more" if len(self.beyond) > 10 else "")
        return f"{line}; {f'beyond their tolerance: {beyond}' if beyond else 'all within their tolerance'}"


def deviation(new: object, old: object) -> float:
    """Return |ln(new/old)| of two numbers; 0 where both are the same or missing, inf for all else."""
    if new == old or (new != new and old != old):
        return 0.0
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (new, old))
    if not numbers or not new * old > 0 or math.isinf(new) or math.isinf(old):
        return math.inf
    return abs(math.log(abs(new)) - math.log(abs(old)))


def compare_records(new: Mapping, old: Mapping) -> Comparison:
    """Compare two records: their parameters, and each value under the tolerance or bound that both state."""
    name, result = new.get("notebook", ""), Comparison()
    result.beyond += [
        f"{name}: {part}"
        for part in ("parameters", "tolerances", "bounds", "figures")
        if new.get(part, {}) != old.get(part, {})
    ]
    fresh, before = (dict(_leaves(record["values"])) for record in (new, old))
    result.beyond += [f"{name}: {'.'.join(key)}" for key in sorted(fresh.keys() ^ before.keys())]
    for key in fresh.keys() & before.keys():
        limit = new.get("bounds", {}).get(key[0])
        if limit is None:
            allowed = new.get("tolerances", {}).get(key[0], TOLERANCE)
            result.note(f"{name}: {'.'.join(key)}", deviation(fresh[key], before[key]), allowed)
        elif fresh[key] is None or not max(abs(fresh[key]), abs(before[key] or 0)) <= limit:
            result.note(f"{name}: {'.'.join(key)}", math.inf, limit)
        else:
            result.note(f"{name}: {'.'.join(key)}", 0.0, limit, equal=int(fresh[key] == before[key]))
    return result


def _leaves(value: object, key: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """Walk through mappings and lists to what is neither, or empty."""
    entries = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    if not entries or not value:
        yield key, value
    for name, entry in entries:
        yield from _leaves(entry, (*key, str(name)))


def compare_runs(name: str, new, old) -> Comparison:
    """Compare two tables of runs, or of our numbers beside the published ones.

    Args:
        name: What to call them.
        new: A data frame.
        old: Another.

    Returns:
        The comparison; of columns that are beyond their tolerance the names.
    """
    import numpy as np
    import pandas as pd

    result = Comparison()
    if list(new) != list(old) or len(new) != len(old):
        return Comparison(beyond=[f"{name}: its columns or number of rows"])
    same = pd.Series(True, new.index)
    if {"dtype", "energy_ratio", "diverged_at"} <= set(old):
        same = (old.dtype == "float64") & (old.diverged_at < 0) & old.energy_ratio.between(0, STABLE, inclusive="left")
        same |= old.energy_ratio.isna() & (old.dtype == "float64") & (old.diverged_at < 0)
    for column in old:
        rows = same | (column in ASKED)
        a, b = new.loc[rows, column], old.loc[rows, column]
        allowed = pd.Series(ITERATED if column == "sharpness_final" else TOLERANCE, b.index)
        if column == "rounding":  # of float32, which says itself how little its digits mean
            continue
        if column == "here" and "rounding" in old:
            allowed = old.rounding.fillna(0).clip(lower=TOLERANCE)
        if not (pd.api.types.is_numeric_dtype(a) and pd.api.types.is_numeric_dtype(b)):
            unequal = (a != b) & ~(a.isna() & b.isna())
            result.note(f"{name}: {column}", math.inf if unequal.any() else 0.0, TOLERANCE, len(b), (~unequal).sum())
            continue
        a, b = a.to_numpy(float), b.to_numpy(float)
        with np.errstate(all="ignore"):
            difference = np.where(a * b > 0, np.abs(np.log(np.abs(a)) - np.log(np.abs(b))), np.inf)
            difference[(np.abs(a - b) <= ROUNDING) | (a == b) | (np.isnan(a) & np.isnan(b))] = 0
        if len(b):
            row = np.argmax(difference / allowed)
            result.note(
                f"{name}: {column}", difference[row], allowed.iloc[row], len(b), int(((a == b) | (a != a)).sum())
            )
    return result


def compare(new: Mapping[Path, bytes], folder: Path) -> Comparison:
    """Compare the records and tables that a run has made with those in a folder.

    Args:
        new: Content of each file that was made, by its place in the folder.
        folder: Where files of former runs are, or not.

    Returns:
        The comparison; files that are not there, cannot be read or are incomplete are beyond all tolerance.
    """
    import pandas as pd

    result = Comparison()
    for file, content in new.items():
        try:
            before = (folder / file).read_bytes()
            if file.suffix == ".json":
                result += compare_records(json.loads(content), json.loads(before))
            elif file.suffix == ".csv":
                tables = (pd.read_csv(io.BytesIO(table), encoding="utf-8") for table in (content, before))
                result += compare_runs(file.name, *tables)
            elif not _is_whole(file, before):
                result.beyond.append(f"{file}, which was incomplete")
        except FileNotFoundError:
            result.beyond.append(f"{file}, which is new")
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            result.beyond.append(f"{file}, which could not be read")
    return result


def _is_whole(file: Path, content: bytes) -> bool:
    """Tell a complete figure by its end."""
    ends = {".png": b"IEND\xaeB`\x82", ".svg": b"</svg>"}
    return content.rstrip().endswith(ends.get(file.suffix, b""))
