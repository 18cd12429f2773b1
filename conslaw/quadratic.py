"""Quadratic laws: C(w) = wᵀQw with ⟨Qw, ∇L(w)⟩ = 0 for all w.

Gradient flow conserves such a C. A step w → w + d of any optimizer changes it by exactly 2⟨Qw, d⟩ + dᵀQd; for gradient
descent, d = −ηg, the first term is zero, and what is left is η² gᵀQg. Q itself is never formed: a family of laws is a
sum of squared norms, and its bilinear form vᵀQw gives the value, both parts of the change and the test of the law.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["LinearLaws", "QuadraticLaws", "Step", "Term", "columns", "rows", "whole"]

Parameters = Sequence[Tensor] | Mapping[str, Tensor]


def rows(matrix: Tensor) -> Tensor:
    """View for laws of a matrix's rows."""
    return matrix


def columns(matrix: Tensor) -> Tensor:
    """View for laws of a matrix's columns."""
    return matrix.mT


def whole(matrix: Tensor) -> Tensor:
    """View for one law of the whole matrix, (…, 1, out · in)."""
    return matrix.flatten(-2).unsqueeze(-2)


class Term(NamedTuple):
    """factor · Σ_k A_ik² for every law i of a family, where A is a view of one parameter."""

    parameter: int | str
    """Place of the parameter in a sequence, or its name in a mapping."""
    view: Callable[[Tensor], Tensor]
    """Function, linear, from the parameter (…, its shape) to A (…, laws, k)."""
    factor: float
    """1 or −1; where an activation is homogeneous of another degree than 1, another number."""


class Step(NamedTuple):
    """C in a step w → w + d, of every law of a family."""

    before: Tensor
    """C(w)."""
    after: Tensor
    """C(w + d), measured: not the sum of the others."""
    first: Tensor
    """2⟨Qw, d⟩."""
    second: Tensor
    """dᵀQd."""


@dataclass(frozen=True)
class QuadraticLaws:
    """A family of laws C_i = Σ ± ‖A_i‖², or of all entries C_ij = Σ ± ⟨A_i, A_j⟩ of matrix laws.

    >>> outgoing, incoming = Term(1, columns, 1), Term(0, rows, -1)
    >>> weights = [torch.ones(3, 2), 2 * torch.ones(1, 3)]
    >>> QuadraticLaws((outgoing, incoming))(weights)
    tensor([2., 2., 2.])
    >>> QuadraticLaws((outgoing, incoming), pairs=True)(weights).shape
    torch.Size([3, 3])
    """

    terms: tuple[Term, ...]
    """What is summed."""
    pairs: bool = False
    """Whether every pair (i, j) has a law of its own, not only i = j."""

    def __call__(self, left: Parameters, right: Parameters | None = None) -> Tensor:
        """Compute vᵀQw for every law of the family: of the weights themselves it is C, of a gradient it is gᵀQg.

        Args:
            left: v, one tensor for each parameter, with the same leading dimensions.
            right: w, likewise; by default v.

        Returns:
            Shape (…, laws), or (…, laws, laws) for pairs.
        """
        total = 0.0
        for term in self.terms:
            first = term.view(left[term.parameter])
            second = first if right is None else term.view(right[term.parameter])
            total = total + term.factor * (_symmetric(first, second) if self.pairs else (first * second).sum(-1))
        return total

    def size(self, left: Parameters, right: Parameters | None = None) -> Tensor:
        """Compute Σ ‖A_i(v)‖ ‖A_i(w)‖, the size of the terms of vᵀQw, beside which its rounding errors are small.

        Args:
            left: v, as in a call.
            right: w, likewise; by default v.

        Returns:
            Same shape as of a call.
        """
        right = left if right is None else right
        total = 0.0
        for term in self.terms:
            first, second = (torch.linalg.vector_norm(term.view(w[term.parameter]), dim=-1) for w in (left, right))
            product = _symmetric(first.unsqueeze(-1), second.unsqueeze(-1)) if self.pairs else first * second
            total = total + abs(term.factor) * product
        return total

    def step(self, before: Parameters, after: Parameters) -> Step:
        """Compute C before and after a step d of any optimizer, and the two parts of its change.

        Args:
            before: w, as in a call.
            after: w + d, likewise.

        Returns:
            C(w), C(w + d), 2⟨Qw, d⟩, which is zero for gradient descent, and dᵀQd, which for it is η² gᵀQg.
        """
        totals = [0.0] * 4
        for term in self.terms:
            start, end = (term.view(w[term.parameter]) for w in (before, after))
            d = end - start
            for place, (first, second) in enumerate([(start, start), (end, end), (start, d), (d, d)]):
                product = _symmetric(first, second) if self.pairs else torch.linalg.vecdot(first, second)
                totals[place] = totals[place] + term.factor * product
        return Step(totals[0], totals[1], 2 * totals[2], totals[3])


@dataclass(frozen=True)
class LinearLaws:
    """A family of laws C_i = Σ_k A_ik, such as the sum of a bias: a direction along which the loss does not change.

    Their gradient ⟨v, ∇L⟩ is zero, so that gradient descent keeps them at every learning rate.

    >>> LinearLaws((Term(0, columns, 1),))([torch.ones(3, 2)])
    tensor([3., 3.])
    """

    terms: tuple[Term, ...]
    """What is summed."""
    pairs: bool = field(default=False, init=False)

    def __call__(self, weights: Parameters) -> Tensor:
        """Compute ⟨v, w⟩ for every law of the family, shape (…, laws)."""
        return sum(term.factor * term.view(weights[term.parameter]).sum(-1) for term in self.terms)

    def size(self, weights: Parameters) -> Tensor:
        """Compute Σ |v w|, the size of the terms, beside which rounding errors are small; shape (…, laws)."""
        return sum(abs(term.factor) * term.view(weights[term.parameter]).abs().sum(-1) for term in self.terms)

    def step(self, before: Parameters, after: Parameters) -> Step:
        """Compute ⟨v, w⟩ before and after a step, and the two parts of its change: ⟨v, d⟩, and zero."""
        start, end = self(before), self(after)
        first = self({term.parameter: after[term.parameter] - before[term.parameter] for term in self.terms})
        return Step(start, end, first, torch.zeros_like(first))


def _symmetric(first: Tensor, second: Tensor) -> Tensor:
    """½ (A Bᵀ + B Aᵀ)."""
    product = first @ second.mT
    return product if first is second else (product + product.mT) / 2
