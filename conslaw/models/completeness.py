"""How many diagonal laws a model has, counted from gradients at random weights: a check that none was missed.

Of the structure the count knows the shapes of parameters and the groups of convolutions.

A diagonal law is Σ c_s ‖w_s‖² over rows and columns s of the parameters. It is one if Σ c_s ⟨w_s, g_s⟩ = 0 for all
weights. So these features ⟨w_s, g_s⟩ are computed at many random weights, and the laws are the null space of their
matrix, but for the relations that any vectors in place of gradients have: the rows of a matrix add up to what its
columns add up to.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from conslaw.models.found import FoundLaws
from conslaw.models.labels import Axis
from conslaw.models.objective import Objective
from conslaw.quadratic import LinearLaws

__all__ = ["DiagonalLaws", "count_diagonal_laws", "diagonal_rank"]

LARGEST = 2000
FAINT = 1e-12  # of the largest ‖w_s‖ ‖g_s‖: what is smaller has no gradient
NULL = 1e-11  # of the largest singular value: rounding is below 1e-14, and what is not zero above 1e-8


class DiagonalLaws(NamedTuple):
    """The number of independent diagonal laws, and how sharply it is told."""

    count: int
    largest_null: float
    """The largest singular value that is taken for zero, relative to the largest of all."""
    smallest_other: float
    """The smallest that is not."""


def count_diagonal_laws(model: nn.Module, batch: object, loss_fn: Callable | None = None) -> DiagonalLaws:
    """Count the diagonal laws of a small model.

    Args:
        model: As for `laws`; with at most 2000 rows and columns in all its parameters.
        batch: Likewise; it should be large enough that every parameter has a gradient.
        loss_fn: Likewise.

    Returns:
        The count, without rows, columns and entries whose gradient is always zero.

    Raises:
        ValueError: If the model is too large.

    >>> from conslaw.models.examples import mlp
    >>> batch = torch.randn(30, 5, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 3
    >>> count_diagonal_laws(mlp(5, 7, 6, 3), batch, nn.functional.cross_entropy).count
    13
    """
    objective = Objective(model, batch, loss_fn)
    size = sum(sum(p.shape) for p in objective.parameters.values())
    if size > LARGEST:
        raise ValueError(f"model must have at most {LARGEST} rows and columns, got {size}")
    generator = torch.Generator().manual_seed(0)
    modules = objective.model.named_modules()
    groups = {f"{name}.weight".lstrip("."): module.groups for name, module in modules if hasattr(module, "groups")}
    true, random, sizes = [], [], []
    for seed in range(size + 20):
        weights = objective.perturbed(seed, scale=1.0)
        gradients = objective.gradients(weights)
        noise = {
            n: torch.randn(g.shape, generator=generator, dtype=g.dtype).to(g) * (g != 0) for n, g in gradients.items()
        }
        true.append(torch.cat([_features(weights[name] * g, groups.get(name, 1)) for name, g in gradients.items()]))
        random.append(torch.cat([_features(weights[name] * g, groups.get(name, 1)) for name, g in noise.items()]))
        squares = [
            torch.cat([_features(x[name].square(), groups.get(name, 1)) for name in gradients])
            for x in (weights, gradients)
        ]
        sizes.append((squares[0] * squares[1]).sqrt())
    true, random, scale = torch.stack(true), torch.stack(random), torch.stack(sizes).norm(dim=0)
    alive = scale > FAINT * scale.max()  # a norm's weights have a gradient, but ⟨w, g⟩ = 0; the bias of keys has none
    values, chance = (
        _singular_values(x[:, alive] / y[alive]) for x, y in ((true, scale), (random, random.norm(dim=0)))
    )
    nullity = _nullity(values)
    edge = len(values) - nullity
    null, other = (float(values[i] / values[0]) if 0 <= i < len(values) else 0.0 for i in (edge, edge - 1))
    return DiagonalLaws(nullity - _nullity(chance), null, other)


def diagonal_rank(found: FoundLaws) -> int:
    """Count the independent diagonal laws among those that were found; a matrix has those of its diagonal.

    Args:
        found: As returned by `laws`.

    Returns:
        The number that `count_diagonal_laws` should give.
    """
    return sum(
        family.form.terms[0].view.index.shape[:-1].numel()
        for family in found.families
        if not isinstance(family.form, LinearLaws)
    )


def _features(product: Tensor, groups: int) -> Tensor:
    """Sums of an entrywise product over every row and every column, and so on for all dimensions."""
    axes = [Axis(dim, groups if dim == 1 else 1) for dim in range(max(1, product.dim()))]
    return torch.cat([axis(product).sum(1) for axis in axes])


def _singular_values(features: Tensor) -> Tensor:
    """Of the matrix whose rows, the samples, have been made equally long."""
    return torch.linalg.svdvals(features / features.norm(dim=1, keepdim=True))


def _nullity(values: Tensor) -> int:
    """Number of singular values that are rounding."""
    return int((values < NULL * values[0]).sum())
