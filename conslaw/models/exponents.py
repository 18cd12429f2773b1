"""Unknown exponents with linear equations between them, solved as the equations come.

A scaling symmetry multiplies every channel of every tensor by a factor exp(t λ). Which exponents λ are possible is a
linear system with small integer coefficients: few unknowns to an equation, thousands of equations. It is kept solved:
each equation expresses its newest unknown by older ones.
"""

from collections.abc import Mapping
from fractions import Fraction

import torch
from torch import Tensor

__all__ = ["ZERO", "Exponents"]

ZERO = 0

Combination = dict[int, Fraction | int]


class Exponents:
    """A growing set of unknowns 1, 2, …; number 0 stands for the exponent zero.

    >>> exponents = Exponents()
    >>> x, y, z = exponents.new(3).tolist()
    >>> exponents.require({x: 1, y: 1, z: -2})
    >>> exponents.pin([x], "an activation")
    >>> exponents.solution(z), exponents.solution(x), exponents.reason(x)
    ({2: Fraction(1, 2)}, {}, 'an activation')
    """

    def __init__(self):
        """Start without unknowns."""
        self.count = 1
        self._solved: dict[int, Combination] = {ZERO: {}}
        self._equation: dict[int, Combination] = {}
        self._reasons: dict[int, str] = {}

    def new(self, count: int) -> Tensor:
        """Add unknowns.

        Returns:
            Their numbers, shape (count,), int64.
        """
        self.count += count
        return torch.arange(self.count - count, self.count)

    def solution(self, unknown: int) -> Combination:
        """Express an unknown by those that are free; an empty combination is zero."""
        if unknown not in self._solved:
            return {unknown: 1}
        combination = self._solved[unknown]
        if any(other in self._solved for other in combination):
            combination = self._solved[unknown] = self._reduced(combination)
        return combination

    def require(self, equation: Mapping[int, Fraction | int], reason: str = "") -> None:
        """Require Σ coefficient · unknown = 0, and note why an unknown that this leaves no choice but zero is zero."""
        left = self._reduced(equation)
        if not left:
            return
        newest = max(left)
        if reason and len(left) == 1:
            self._reasons[newest] = reason
        scale = Fraction(-1, 1) / left.pop(newest)
        self._solved[newest] = {other: _plain(scale * value) for other, value in left.items()}
        self._equation[newest] = dict(equation)

    def equate(self, left: Tensor, right: Tensor, reason: str = "") -> None:
        """Require that unknowns are equal, entry by entry of two tensors that can be broadcast; `reason` as above."""
        left, right = torch.broadcast_tensors(left, right)
        for one, other in torch.stack([left.flatten(), right.flatten()], 1).unique(dim=0).tolist():
            if one != other:
                self.require({one: 1, other: -1}, reason)

    def pin(self, unknowns: list[int], reason: str) -> None:
        """Require that unknowns are zero, and note why."""
        for unknown in unknowns:
            left = self.solution(unknown)
            if left:
                if reason:
                    self._reasons[max(left)] = reason
                self.require({unknown: 1})

    def reason(self, unknown: int) -> str:
        """Return why an unknown is zero, as noted when one that it equals was pinned; empty if that is not known."""
        waiting, seen = [unknown], set()
        while waiting:
            one = waiting.pop()
            if one in self._reasons and not self.solution(one):
                return self._reasons[one]
            seen.add(one)
            waiting += [other for other in self._equation.get(one, ()) if other not in seen]
        return ""

    def _reduced(self, combination: Mapping[int, Fraction | int]) -> Combination:
        """Replace what is solved by what it equals."""
        left: Combination = {}
        for unknown, coefficient in combination.items():
            for other, value in self.solution(unknown).items():
                total = left.get(other, 0) + coefficient * value
                if total:
                    left[other] = total
                else:
                    left.pop(other, None)
        return left


def _plain(value: Fraction | int) -> Fraction | int:
    """An integer where it is one."""
    return int(value) if value == int(value) else value
