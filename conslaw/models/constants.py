"""Sums of parameters that no learning rate changes: directions along which the loss is constant.

A shift that a softmax or a norm takes out again, such as the bias of the keys in attention, the sum over the vocabulary
of the rows of a head, or the bias of a convolution before BatchNorm, has no gradient. What gradient descent, with or
without momentum, makes of it is nothing, up to rounding; weight decay and Adam do change it.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from conslaw.models.families import Family, Slices
from conslaw.models.labels import Axis
from conslaw.models.objective import Objective
from conslaw.quadratic import LinearLaws, Term

__all__ = ["constants"]


def constants(objective: Objective, trials: Sequence[tuple[Mapping, Mapping]], tolerance: float) -> list[Family]:
    """Find constant sums: along every dimension of a parameter, and single entries of a bias.

    The gradient proposes them. They are accepted where a shift of the parameters by random multiples of these
    directions, as large as the parameters themselves, leaves the loss as it is.

    Args:
        objective: The loss.
        trials: Pairs of weights and gradients, by name.
        tolerance: Largest residual, relative to the size of the terms.

    Returns:
        Families of linear laws.
    """
    families = []
    for name, p in objective.parameters.items():
        gradients = [gradient[name] for _, gradient in trials]
        zero = _zero_entries(name, gradients, trials, tolerance) if p.dim() == 1 else torch.zeros(0, dtype=torch.int64)
        if len(zero):
            families.append(_family(name, p, Axis(0), zero.unsqueeze(-1)))
        if len(zero) == p.numel():
            continue
        for dim in range(p.dim()):
            lines = _lines(dim, p.dim())
            sums = [lines(g) if p.dim() > 1 else g.unsqueeze(0) for g in gradients]
            size = [entries.abs().sum(-1) for entries in sums]
            if p.shape[dim] > 1 and all(
                bool((s > 0).any()) and bool((entries.sum(-1).abs() <= tolerance * s).all())
                for entries, s in zip(sums, size, strict=True)
            ):
                index = torch.arange(len(sums[0])).unsqueeze(-1) if p.dim() > 1 else torch.arange(len(p)).unsqueeze(0)
                families.append(_family(name, p, lines, index))
    return [family for family in families if _is_flat(objective, trials[0][0], family, tolerance)]


def _lines(dim: int, dims: int) -> Axis:
    """Lines along a dimension: in a matrix they are its rows or columns."""
    return Axis(1 - dim) if dims == 2 else Axis(dim, across=dims > 2)


def _family(name: str, parameter: Tensor, axis: Axis, index: Tensor) -> Family:
    view = Slices(axis, index)
    return Family(LinearLaws((Term(name, view, 1),)), "constant", {(name, axis): len(axis(parameter))})


def _zero_entries(name: str, gradients: Sequence[Tensor], trials: Sequence, tolerance: float) -> Tensor:
    """Entries of a bias without a gradient, beside which the weights that lead to the same unit have one."""
    weight = name.removesuffix("bias") + "weight" if name.endswith("bias") else ""
    weight = name.removesuffix("in_proj_bias") + "in_proj_weight" if name.endswith("in_proj_bias") else weight
    zero = torch.ones(len(gradients[0]), dtype=torch.bool, device=gradients[0].device)
    for gradient, (_, every) in zip(gradients, trials, strict=True):
        beside = every.get(weight)
        dims = [dim for dim in range(beside.dim()) if beside.shape[dim] == len(gradient)] if beside is not None else []
        if not dims or beside.dim() < 2:
            return torch.zeros(0, dtype=torch.int64)
        size = torch.linalg.vector_norm(Axis(dims[0])(beside), dim=1)
        zero &= (size > 0) & (gradient.abs() <= tolerance * size)
    return zero.nonzero().flatten().cpu()


def _is_flat(objective: Objective, weights: Mapping[str, Tensor], family: Family, tolerance: float) -> bool:
    """Whether the loss stays the same under a large shift along all directions of a family."""
    (term,) = family.form.terms
    parameter = weights[term.parameter]
    direction = torch.zeros_like(parameter).requires_grad_()
    amounts = torch.randn(len(family), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # The gradient of Σ amount · sum is the direction itself.
    (shift,) = torch.autograd.grad((term.view(direction).sum(-1) * amounts.to(parameter)).sum(), direction)
    with torch.no_grad():
        losses = [objective.loss({**weights, term.parameter: parameter + s * shift}) for s in (0.0, 1.0, -1.0)]
    return all(abs(loss - losses[0]) <= tolerance * (1 + abs(losses[0])) for loss in losses[1:])
