"""Every proposal is put to the test: ⟨Qw, ∇L⟩ = 0 by backward passes on perturbed weights and the batch itself."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from conslaw.models.families import Family
from conslaw.models.objective import Objective
from conslaw.quadratic import LinearLaws

__all__ = ["Rejection", "Verified", "verify"]

SCALES = (0.1, 0.3, 1.0, 1.0)  # of the perturbations, relative to the weights: a unit dead in one is alive in another
FAINT = 1e-6  # of the largest gradient of a family: what is smaller is mostly rounding, and tells nothing


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
    """One of `KINDS`, or "parameter"."""
    count: int
    """How many of this form are none for this reason."""
    formula: str
    residual: float
    """The smallest of them, NaN where the structure decides."""
    reason: str


def verify(
    families: Sequence[Family], objective: Objective, tolerance: float
) -> tuple[list[Verified], list[Rejection], set[str]]:
    """Keep the laws that hold.

    Each trial draws weights near those of the model or further off, and takes one backward pass for all laws. There are
    two trials; two more where no gradient has reached a law so far.

    Args:
        families: Proposals. Constants are no rejections where they fail, as every sum is proposed.
        objective: The loss.
        tolerance: Largest residual, relative to the size of the terms.

    Returns:
        What holds; what does not, with the reason; and the parameters that have a gradient.
    """
    worst: list[Tensor | float] = [0.0 for _ in families]
    seen: list[Tensor | bool] = [False for _ in families]
    moving: set[str] = set()
    for number, scale in enumerate(SCALES):
        if number > 1 and all(there.all() for there in seen):
            break
        weights = objective.perturbed(number, scale)
        gradients = objective.gradients(weights)
        moving |= {name for name, gradient in gradients.items() if bool(gradient.any())}
        gradients |= {name: torch.zeros_like(w) for name, w in weights.items() if name not in gradients}
        for place, family in enumerate(families):
            value, size = _value_and_size(family, weights, gradients)
            there = size > FAINT * size.max()
            relative = torch.where(there, value.abs() / size, 0.0)
            worst[place] = relative.cpu().clamp(min=worst[place])
            seen[place] = there.cpu() | seen[place]
    kept, rejected = [], []
    for family, residuals, there in zip(*_without_mixing(families, worst, seen, tolerance), strict=True):
        keep = (residuals <= tolerance) & there
        if family.kind == "constant" and family.beside is None and bool((there & ~keep).any()):
            continue  # sums of one parameter are constant together, or by chance
        if bool(keep.any()):
            kept.append(Verified(family if bool(keep.all()) else family.subset(keep), residuals[keep]))
        if family.kind != "constant":
            rejected += _rejections(family, residuals, there, tolerance)
    return kept, rejected, moving


def _without_mixing(
    families: Sequence[Family], worst: Sequence[Tensor], seen: Sequence[Tensor], tolerance: float
) -> tuple[list[Family], list[Tensor], list[Tensor]]:
    """Reduce matrices to one residual each; one whose diagonal alone holds becomes a family of that."""
    lists = [], [], []
    for family, residuals, there in zip(families, worst, seen, strict=True):
        entries = (family, residuals, there)
        if family.form.pairs:
            diagonals = [x.diagonal(dim1=-2, dim2=-1) for x in (residuals, there)]
            if (residuals <= tolerance).all() or not (diagonals[0] <= tolerance).all():
                entries = (family, residuals.flatten(1).amax(1), there.flatten(1).all(1))
            else:
                entries = (family.diagonal(), *(x.flatten() for x in diagonals))
        for entry, values in zip(entries, lists, strict=True):
            values.append(entry)
    return lists


def _value_and_size(family: Family, weights: Mapping, gradients: Mapping) -> tuple[Tensor, Tensor]:
    """⟨Qw, ∇L⟩ or ⟨v, ∇L⟩ of each law, and the size of its terms."""
    if not isinstance(family.form, LinearLaws):
        return family.form(weights, gradients), family.form.size(weights, gradients)
    if family.beside is None:
        return family.form(gradients), family.form.size(gradients)
    beside = family.beside.view(gradients[family.beside.parameter])
    return family.form(gradients), torch.linalg.vector_norm(beside, dim=-1)


def _rejections(family: Family, residuals: Tensor, there: Tensor, tolerance: float) -> list[Rejection]:
    """Say why laws of a family do not hold."""
    lacks = " and ".join(family.neglected)
    reasons = {
        "no gradient reaches it on this batch": ~there,
        f"only but for {lacks}" if lacks else "its terms do not cancel": there & ~(residuals <= tolerance),
    }
    rejected = []
    for number, (reason, bad) in enumerate(reasons.items()):
        if bool(bad.any()):
            first, smallest = int(bad.nonzero()[0]), residuals[bad].min().item() if number else torch.nan
            where, formula = family.where(first), family.formula(first)
            rejected.append(Rejection(where, family.kind, int(bad.sum()), formula, smallest, reason))
    return rejected
