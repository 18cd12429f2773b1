"""Every proposal is put to the test: ⟨Qw, ∇L⟩ = 0 by backward passes on perturbed weights and the batch itself."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from conslaw.models.families import Family
from conslaw.models.objective import Objective
from conslaw.quadratic import LinearLaws

__all__ = ["Rejection", "Verified", "moments", "verify"]


class Verified(NamedTuple):
    """A family of laws of which every one holds."""

    family: Family
    residuals: Tensor
    """|⟨Qw, ∇L⟩| of each law relative to the size of its terms, the largest over all trials, shape (laws,)."""


class Rejection(NamedTuple):
    """What was proposed, or is proposed elsewhere, and is no law of this model."""

    where: str
    """The first of them."""
    kind: str
    count: int
    """How many of this form were rejected for this reason."""
    formula: str
    residual: float
    """The smallest of them, NaN where the structure decides."""
    reason: str


def moments(objective: Objective, seeds: Sequence[int] = (0, 1)) -> list[tuple[Mapping, Mapping]]:
    """Draw weights near those of the model, and compute the gradient at each.

    Args:
        objective: The loss.
        seeds: One for each trial.

    Returns:
        Pairs (w, ∇L(w)); the gradient is zero where the loss does not depend on a parameter.
    """
    trials = []
    for seed in seeds:
        weights = objective.perturbed(seed)
        gradients = objective.gradients(weights)
        trials.append((weights, {name: gradients.get(name, torch.zeros_like(w)) for name, w in weights.items()}))
    return trials


def verify(
    families: Sequence[Family], trials: Sequence[tuple[Mapping, Mapping]], tolerance: float
) -> tuple[list[Verified], list[Rejection]]:
    """Keep the laws that hold.

    Args:
        families: Proposals.
        trials: As made by `moments`.
        tolerance: Largest residual, relative to the size of the terms.

    Returns:
        What holds, and what does not, with the reason.
    """
    kept, rejected = [], []
    for family in families:
        residuals, seen = _residuals(family, trials)
        good = residuals <= tolerance
        if bool((good & seen).any()):
            keep = good & seen
            kept.append(Verified(family if bool(keep.all()) else family.subset(keep), residuals[keep]))
        lacks = " and ".join(family.neglected)
        reasons = {
            "no gradient reaches it on this batch": ~seen,
            f"only but for {lacks}" if lacks else "its terms do not cancel": seen & ~good,
        }
        for reason, bad in reasons.items():
            if bool(bad.any()):
                first = int(bad.nonzero()[0])
                smallest = residuals[bad].min().item() if bool((seen & bad).any()) else torch.nan
                where, formula = family.where(first), family.formula(first)
                rejected.append(Rejection(where, family.kind, int(bad.sum()), formula, smallest, reason))
    return kept, rejected


def _residuals(family: Family, trials: Sequence[tuple[Mapping, Mapping]]) -> tuple[Tensor, Tensor]:
    """The largest residual of each law, and whether its terms are not all zero, in every trial."""
    worst, seen = [], []
    for weights, gradients in trials:
        if isinstance(family.form, LinearLaws):
            value, size = family.form(gradients), family.form.size(gradients)
        else:
            value, size = family.form(weights, gradients), family.form.size(weights, gradients)
        relative = (value.abs() / size).nan_to_num(0.0)
        there = size > 0
        if family.form.pairs:
            relative, there = relative.flatten(1).amax(1), there.flatten(1).all(1)
        worst.append(relative)
        seen.append(there)
    return torch.stack(worst).amax(0).cpu(), torch.stack(seen).all(0).cpu()
