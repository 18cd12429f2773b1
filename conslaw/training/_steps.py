"""What advances networks by some steps, and what it records of them: one interface, two implementations.

`_batched` takes each operation for all networks together, with torch on any device; `_compiled` trains small networks
on a CPU one by one. They agree to rounding.
"""

from collections.abc import Set
from typing import NamedTuple, Protocol

from torch import Tensor

from conslaw.problems import Problem

__all__ = ["Stepper", "Steps"]


class Steps(NamedTuple):
    """What is recorded of J networks with P parameters in k consecutive steps, before the update of each; float64."""

    losses: Tensor
    """Shape (k, J)."""
    squared_gradient_norms: Tensor
    """Shape (k, J, P)."""
    squared_norms: Tensor
    """Of the parameters at those of the steps that are recorded, shape (τ, J, P)."""
    squared_step_norms: Tensor | None = None
    """Of the optimizer's directions u, where there was an update, shape (updates, J, P); None for gradient descent."""
    alignments: Tensor | None = None
    """⟨W, u⟩, as well."""


class Stepper(Protocol):
    """J networks in training."""

    networks: Problem
    """The networks as they are now."""

    def advance(self, steps: range, updates: int, recorded: Set[int]) -> Steps:
        """Take some steps, W_l ← W_l − η u_l.

        Args:
            steps: Numbers of the steps.
            updates: How many of them, the first ones, end with an update.
            recorded: At which of them norms are recorded.

        Returns:
            What is recorded, on the networks' device.
        """

    def keep(self, survivors: Tensor) -> None:
        """Go on with these of the J networks only, given by their indices."""
