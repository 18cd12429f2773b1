"""Families of laws: sums of squared norms over slices of parameters, one for each unit, channel or head."""

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from conslaw.models.labels import Axis
from conslaw.quadratic import LinearLaws, QuadraticLaws, Term

__all__ = ["KINDS", "Family", "Slices", "family_of"]

KINDS = {
    "unit": "of a hidden unit of a linear layer",
    "channel": "of a channel of a convolution",
    "matrix": "all entries of a matrix, between layers with nothing but linear operations between them",
    "head": "of a head of attention: of its matrices, or of pairs of dimensions that positions rotate",
    "norm": "of weights before a norm, or of a norm's gain and offset and what reads them",
    "stream": "of all that writes to a residual stream",
    "constant": "a sum that no learning rate changes, as its gradient is zero",
}


@dataclass(frozen=True, eq=False)
class Slices:
    """A view of a parameter by laws: for each law the slices along an axis that it takes.

    >>> Slices(Axis(1), torch.tensor([[0, 2], [1, 3]]))(torch.eye(4)).shape
    torch.Size([2, 8])
    """

    axis: Axis
    index: Tensor
    """Which slices, shape (…, laws, count)."""

    def __call__(self, parameter: Tensor) -> Tensor:
        """Arrange a parameter by laws, shape (…, laws, count · entries of a slice)."""
        slices, flat = self.axis(parameter), self.index.flatten()
        first = int(flat[0])
        if len(flat) == int(flat[-1]) - first + 1 and bool((flat.diff() == 1).all()):  # a view, no copy
            chosen = slices[first : first + len(flat)]
        else:
            chosen = slices[flat.to(parameter.device)]
        return chosen.reshape(*self.index.shape[:-1], -1)

    def named(self, name: str, place: int, size: int) -> str:
        """Say which slices of a parameter one law takes, such as weight[:, 3]."""
        taken = self.index[place].flatten().tolist()
        if len(taken) == size:
            return name
        gaps = {b - a for a, b in itertools.pairwise(taken)}
        if len(taken) == 1:
            text = str(taken[0])
        elif gaps == {1}:
            text = f"{taken[0]}:{taken[-1] + 1}"
        else:
            text = str(taken if len(taken) < 5 else [*taken[:2], "…", taken[-1]]).replace("'", "")
        before = f"of {self.axis.groups} groups :, " if self.axis.groups > 1 else ":, " * self.axis.dim
        return f"{name}[{before}{text}]"


@dataclass(frozen=True, eq=False)
class Own(Slices):
    """A view of somebody's own, of which the index takes some of the laws, shape (…, laws, 1)."""

    view: Callable[[Tensor], Tensor]

    def __call__(self, parameter: Tensor) -> Tensor:
        """Arrange a parameter by laws, shape (…, laws, k)."""
        lines = self.view(parameter).flatten(0, -2)
        return lines[self.index.flatten().to(parameter.device)].view(*self.index.shape[:-1], -1)

    def named(self, name: str, place: int, size: int) -> str:
        """Say which law this is."""
        return f"{name}, law {place} of its view"


@dataclass(frozen=True, eq=False)
class Family:
    """Laws of one form, such as those of all units of a layer."""

    form: QuadraticLaws | LinearLaws
    """What they are, with names of parameters."""
    kind: str
    """One of `KINDS`."""
    sizes: Mapping[tuple[str, Axis], tuple[int, int]]
    """Of each parameter and axis the number of slices and of the entries of each, to name them."""
    neglected: tuple[str, ...] = ()
    """What was neglected when they were proposed."""
    beside: Term | None = None
    """Weights with whose gradient that of a single entry is compared."""

    def __len__(self) -> int:
        """Number of laws: all entries of a matrix count as one."""
        return len(self.form.terms[0].view.index)

    @property
    def first(self) -> Term:
        """The term after which the laws are named: of what makes a unit, rather than of what reads it."""
        own = [term for term in self.form.terms if term.factor < 0] or list(self.form.terms)
        return min(own, key=lambda term: term.view.axis.dim)

    def where(self, place: int) -> str:
        """Name the unit, channel or head whose law this is, by the first parameter that makes it."""
        if self.kind == "stream":
            return "residual stream"
        module = self.first.parameter.rpartition(".")[0] or self.first.parameter
        name = self.first.view.named(module, place, self._sizes(self.first)[0])
        return name.replace("[:, ", "[").replace("[[", "[").replace("]]", "]")

    def formula(self, place: int) -> str:
        """Write a law as a formula."""
        text = ""
        for term in self.form.terms:
            (slices, entries), count = self._sizes(term), term.view.index.shape[-1]
            name, single = term.view.named(term.parameter, place, slices), entries * count == 1
            if isinstance(self.form, LinearLaws):
                body = name if single else f"Σ {name}"
            elif self.form.pairs:
                body = f"({name})ᵀ({name})" if term.view.axis.dim else f"({name})({name})ᵀ"
            else:
                body = f"{name}²" if single else f"‖{name}‖²"
            factor = "" if abs(term.factor) == 1 else f"{abs(term.factor):g} "
            text += f" {'−' if term.factor < 0 else '+'} {factor}{body}"
        return text.removeprefix(" + ").removeprefix(" ")

    def diagonal(self) -> "Family":
        """The laws on the diagonals of matrices, as laws of units or of dimensions of a head."""
        terms = tuple(t._replace(view=replace(t.view, index=t.view.index.flatten(0, 1))) for t in self.form.terms)
        return replace(self, form=QuadraticLaws(terms), kind="unit" if self.kind == "matrix" else self.kind)

    def _sizes(self, term: Term) -> tuple[int, int]:
        return self.sizes.get((term.parameter, term.view.axis), (0, 0))

    def subset(self, keep: Tensor) -> "Family":
        """The laws for which a mask (laws,) is true."""
        terms = tuple(t._replace(view=replace(t.view, index=t.view.index[keep])) for t in self.form.terms)
        form = LinearLaws(terms) if isinstance(self.form, LinearLaws) else QuadraticLaws(terms, self.form.pairs)
        return replace(self, form=form)


def family_of(form: QuadraticLaws, parameters: Mapping[str, Tensor]) -> Family:
    """Take laws of somebody's own.

    Args:
        form: Laws with the names of parameters.
        parameters: Those of the model.

    Returns:
        The family.

    Raises:
        ValueError: If a parameter is not there, or the views do not fit together.
    """
    if missing := [term.parameter for term in form.terms if term.parameter not in parameters]:
        raise ValueError(f"groups name parameters that model does not train: {', '.join(map(str, missing))}")
    shapes = {tuple(term.view(parameters[term.parameter]).shape[:-1]) for term in form.terms}
    if len(shapes) > 1 or len(shape := shapes.pop()) != (2 if form.pairs else 1):
        wanted = "(blocks, laws, k)" if form.pairs else "(laws, k)"
        raise ValueError(f"views in groups must all have shape {wanted}, with the same laws")
    index = torch.arange(math.prod(shape)).view(*shape, 1)
    terms = tuple(term._replace(view=Own(Axis(0), index, term.view)) for term in form.terms)
    return Family(QuadraticLaws(terms, form.pairs), "matrix" if form.pairs else "unit", {})
