"""What `track` has recorded: a table, a figure, a file."""

import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from conslaw.models.found import FoundLaws

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["Record", "Run", "Values"]


class Values(NamedTuple):
    """Of the laws of one family, at one record; shape (laws,), or (blocks, n, n) for matrices."""

    value: Tensor
    """C."""
    first: Tensor | None
    """2⟨Qw, d⟩ of the recorded step; none where it was not split."""
    second: Tensor | None
    """dᵀQd."""
    error: float | None
    """The largest difference of the measured change and the sum of the parts, relative to C's terms at the start."""


class Record(NamedTuple):
    """One record."""

    step: int
    """Number of steps made so far."""
    learning_rate: float
    """Of the first group of parameters."""
    numbers: Sequence[Tensor]
    """Of every family C, C − C(0), 2⟨Qw, d⟩ and dᵀQd, shape (4, laws)."""
    error: float
    """The largest of the errors in `Values`; NaN where the step was not split."""
    observed: Mapping[str, float]
    """What the observers returned."""


class Run:
    """The records of one training. A matrix counts as one law: its value, drift and parts are Frobenius norms."""

    def __init__(self, laws: FoundLaws):
        """Start without records."""
        self.laws = laws
        """The laws that are followed."""
        self.records: list[Record] = []
        self._names = [[family.where(place) for place in range(len(family))] for family in laws.families]
        self._start: list[Tensor] = []

    def __repr__(self) -> str:
        """One line: how many laws, how many records, and up to which step."""
        last = self.records[-1].step if self.records else 0
        return f"Run({len(self.laws)} laws, {len(self.records)} records up to step {last})"

    def add(self, step: int, learning_rate: float, values: Sequence[Values], observed: Mapping[str, float]) -> None:
        """Keep a record; of matrices no more than norms, but for those at the start."""
        self._start = self._start or [entry.value for entry in values]
        kept = []
        for family, start, entry in zip(self.laws.families, self._start, values, strict=True):
            drift = entry.value - start
            numbers = (entry.value, drift, *(torch.full_like(drift, torch.nan) if x is None else x for x in entry[1:3]))
            if family.form.pairs:
                numbers = map(torch.linalg.matrix_norm, numbers)
            kept.append(torch.stack(tuple(numbers)))
        errors = [entry.error for entry in values if entry.error is not None]
        self.records.append(Record(step, learning_rate, kept, max(errors, default=math.nan), observed))

    @property
    def steps(self) -> Tensor:
        """At which steps there are records, shape (R,)."""
        return torch.tensor([record.step for record in self.records])

    @property
    def drifts(self) -> list[Tensor]:
        """C − C(0) of every family, shape (R, laws) each."""
        return [numbers[:, 1] for numbers in self.numbers]

    @property
    def numbers(self) -> list[Tensor]:
        """Of every family C, C − C(0), 2⟨Qw, d⟩ and dᵀQd, shape (R, 4, laws) each; NaN where a step was not split."""
        return [torch.stack(of_family) for of_family in zip(*(record.numbers for record in self.records), strict=True)]

    @property
    def identity_error(self) -> float:
        """The largest difference of the measured change in a step and the sum of its parts, relative to C's terms.

        It is rounding: some 1e-16, whatever the precision of the training; NaN where no step was split.
        """
        return max((record.error for record in self.records if record.error == record.error), default=math.nan)

    def rows(self, number: int) -> Iterator[dict]:
        """Go through the rows of the table that belong to one record."""
        record = self.records[number]
        for family, names, numbers in zip(self.laws.families, self._names, record.numbers, strict=True):
            for name, entries in zip(names, numbers.T.tolist(), strict=True):
                yield {
                    "step": record.step,
                    "law": name,
                    "kind": family.kind,
                    **dict(zip(("value", "drift", "first_order", "second_order"), entries, strict=True)),
                    "learning_rate": record.learning_rate,
                    **record.observed,
                }

    @property
    def table(self) -> "pd.DataFrame":
        """One row for each record and law. Needs pandas.

        Columns: step, law, kind, value C, drift C − C(0), first_order 2⟨Qw, d⟩ and second_order dᵀQd of the recorded
        step, learning_rate, and one for every observer.
        """
        import pandas as pd

        return pd.DataFrame([row for number in range(len(self.records)) for row in self.rows(number)])

    def save(self, path: str | Path) -> None:
        """Write the table.

        Args:
            path: A file that ends in .csv or .parquet; it is replaced when the new one is complete.

        Raises:
            ValueError: If it ends otherwise.
            ImportError: If a .parquet is asked for and pyarrow is not installed.
        """
        path = Path(path)
        if path.suffix not in (".csv", ".parquet"):
            raise ValueError(f"path must end in .csv or .parquet, got {path.name!r}")
        table = self.table
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=path.suffix)
        os.close(handle)
        try:
            if path.suffix == ".csv":
                table.to_csv(temporary, index=False)
            else:
                table.to_parquet(temporary, index=False)
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        finally:
            Path(temporary).unlink(missing_ok=True)

    def plot(self) -> "Figure":
        """Draw the drift of every family against the step: the median of its laws, with a band from least to largest.

        Returns:
            A figure with a panel for each kind of law, whose legend has a parameter of each family and how many laws it
            has. Needs matplotlib.
        """
        import matplotlib.pyplot as plt

        kinds = list(dict.fromkeys(family.kind for family in self.laws.families))
        figure, axes = plt.subplots(
            1, len(kinds), figsize=(1.5 + 4.5 * len(kinds), 4), layout="constrained", squeeze=False
        )
        for axis, kind in zip(axes[0], kinds, strict=True):
            of_kind = [i for i, family in enumerate(self.laws.families) if family.kind == kind]
            for shade, i in zip(plt.cm.viridis(torch.linspace(0, 0.9, len(of_kind)).numpy()), of_kind, strict=True):
                drift, count = self.drifts[i], len(self.laws.families[i])
                label = kind if kind == "stream" else self.laws.families[i].first.parameter
                axis.plot(self.steps, drift.median(1).values, color=shade, marker="", label=f"{label}: {count}")
                axis.fill_between(self.steps, drift.amin(1), drift.amax(1), color=shade, alpha=0.2, linewidth=0)
            axis.set(xlabel="step", ylabel="C − C(0)", title=kind)
            axis.ticklabel_format(axis="y", scilimits=(-3, 4), useMathText=True)
            axis.legend(fontsize=7, ncols=1 + len(of_kind) // 12)
        return figure


def _norms(values: Tensor, pairs: bool) -> Tensor:
    """Frobenius norms of matrices, anything else as it is."""
    return torch.linalg.matrix_norm(values) if pairs else values
