"""Labels: which unknown exponent each entry of a tensor has, and the slices of a parameter that have one in common.

A labelled tensor is a sum of tensors of unknowns, each of the tensor's shape, expanded along the dimensions on which it
does not depend: there its stride is zero. So operations that only move entries act on labels as they do on numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

__all__ = ["Axis", "Labelled", "compact", "tightened", "varying"]


@dataclass(frozen=True)
class Axis:
    """A dimension of a parameter, along which its slices lie.

    With groups, the slices are the input channels of a grouped convolution; across, they are the lines along the
    dimension, one for every place in the others.

    >>> import torch
    >>> Axis(1)(torch.ones(4, 3)).shape
    torch.Size([3, 4])
    >>> Axis(1, groups=2)(torch.ones(4, 3, 5)).shape  # 2 · 3 input channels, each seen by 2 of 4 filters
    torch.Size([6, 10])
    >>> Axis(1, across=True)(torch.ones(4, 3, 5)).shape
    torch.Size([20, 3])
    """

    dim: int
    groups: int = 1
    across: bool = False

    def __call__(self, parameter: Tensor) -> Tensor:
        """Arrange a parameter by slices, shape (slices, entries of each)."""
        if self.across:
            return parameter.movedim(self.dim, -1).flatten(0, -2)
        if self.groups > 1:
            slices = parameter.unflatten(0, (self.groups, -1)).movedim(2, 1).flatten(0, 1)
        else:
            slices = parameter.reshape(1) if parameter.dim() == 0 else parameter.movedim(self.dim, 0)
        return slices.reshape(len(slices), -1)


@dataclass
class Labelled:
    """A tensor in the graph: its shape, and its entries' exponents as a sum of unknowns."""

    shape: tuple[int, ...]
    terms: list[Tensor]
    """Tensors of unknowns, of that shape; none where all exponents are zero."""
    parameter: str | None = None
    """Name of the parameter that it is, or is a view of."""

    def moved(self, operation: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> "Labelled":
        """Apply an operation that only moves, repeats or leaves out entries."""
        return Labelled(shape, [tightened(operation(term)) for term in self.terms], self.parameter)


def varying(labels: Tensor) -> set[int]:
    """Dimensions on which labels depend, counted from the last as −1."""
    return {i - labels.dim() for i in range(labels.dim()) if labels.stride(i) != 0 and labels.shape[i] > 1}


def compact(labels: Tensor) -> Tensor:
    """Take one entry along every dimension on which labels do not depend; same number of dimensions."""
    for dim in range(labels.dim()):
        if labels.stride(dim) == 0 and labels.shape[dim] > 1:
            labels = labels.narrow(dim, 0, 1)
    return labels


def tightened(labels: Tensor) -> Tensor:
    """Expand labels along every dimension on which they do not depend."""
    shape, labels = labels.shape, compact(labels)
    for dim in range(labels.dim()):
        first = labels.narrow(dim, 0, min(1, labels.shape[dim]))
        if labels.shape[dim] > 1 and bool((labels == first).all()):
            labels = first
    return labels.expand(shape)
