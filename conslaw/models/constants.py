"""Sums of parameters that no learning rate changes: directions along which the loss is constant.

A shift that a softmax or a norm takes out again, such as the bias of the keys in attention, the sum over the vocabulary
of the rows of a head, or the bias of a convolution before BatchNorm, has no gradient. What gradient descent, with or
without momentum, makes of it is nothing, up to rounding; weight decay and Adam do change it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from conslaw.models.families import Family, Slices
from conslaw.models.labels import Axis
from conslaw.models.objective import Objective
from conslaw.models.verification import Verified
from conslaw.quadratic import LinearLaws, Term

__all__ = ["all_sums", "constant_sums"]


def all_sums(objective: Objective) -> list[Family]:
    """Propose all sums: of every parameter along every dimension, and every entry of a bias by itself.

    Args:
        objective: The loss.

    Returns:
        Families of linear laws, of which a verification leaves few. Beside an entry of a bias, whose gradient can only
        be zero by itself, stand the weights that lead to the same unit.
    """
    families = []
    for name, p in objective.parameters.items():
        if p.dim() == 1:
            every = torch.arange(len(p))
            beside = _beside(name, objective)
            families += [_family(name, Axis(0), every.unsqueeze(-1), p, beside)] if beside else []
            families += [_family(name, Axis(0), every.unsqueeze(0), p)] if len(p) > 1 else []
        else:
            for dim in range(p.dim()):
                axis = Axis(1 - dim) if p.dim() == 2 else Axis(dim, across=True)
                if p.shape[dim] > 1:
                    families.append(_family(name, axis, torch.arange(p.numel() // p.shape[dim]).unsqueeze(-1), p))
    return families


def _family(name: str, axis: Axis, index: Tensor, parameter: Tensor, beside: Term | None = None) -> Family:
    form = LinearLaws((Term(name, Slices(axis, index), 1),))
    return Family(form, "constant", {(name, axis): axis(parameter).shape}, beside=beside)


def _beside(name: str, objective: Objective) -> Term | None:
    """The weights that lead to the same units as a bias."""
    weight, units = name.replace("bias", "weight"), len(objective.parameters[name])
    matrix = objective.parameters.get(weight) if weight != name else None
    dims = (
        [] if matrix is None or matrix.dim() < 2 else [dim for dim in range(matrix.dim()) if matrix.shape[dim] == units]
    )
    return Term(weight, Slices(Axis(dims[0]), torch.arange(units).unsqueeze(-1)), 1) if dims else None


def constant_sums(found: Sequence[Verified], objective: Objective, tolerance: float) -> list[Verified]:
    """Keep those sums along which a large shift leaves the loss as it is, as a zero gradient alone may be chance.

    Args:
        found: Families of linear laws that the gradients have verified.
        objective: The loss.
        tolerance: Largest relative change of the loss.

    Returns:
        Those that hold; the sum of a bias is left out where all of its entries are constant.
    """
    entire = {f.form.terms[0].parameter for f, _ in found if f.beside and len(f) == f.beside.view.index.numel()}
    kept = [entry for entry in found if entry.family.beside or entry.family.form.terms[0].parameter not in entire]
    if _is_flat([family for family, _ in kept], objective, tolerance):
        return kept
    return [entry for entry in kept if _is_flat([entry.family], objective, tolerance)]


def _is_flat(families: Sequence[Family], objective: Objective, tolerance: float) -> bool:
    """Whether the loss stays the same under a shift by random multiples of all directions of families."""
    weights, generator = objective.perturbed(0), torch.Generator().manual_seed(0)
    with torch.no_grad():
        before = objective.loss(weights)
    for family in families:
        (term,) = family.form.terms
        direction = torch.zeros_like(weights[term.parameter]).requires_grad_()
        amounts = torch.randn(len(family), generator=generator, dtype=torch.float64).to(direction)
        # The gradient of Σ amount · sum is the direction itself.
        (shift,) = torch.autograd.grad((term.view(direction).sum(-1) * amounts).sum(), direction)
        weights[term.parameter] = weights[term.parameter] + shift
    with torch.no_grad():
        return bool(abs(objective.loss(weights) - before) <= tolerance * (1 + abs(before)))
