"""Optimizers: what step is made of the gradients. All change the weights by W ← W − η u with a direction u.

Gradient descent has u = g. With any u, one step changes C_l by exactly

    −2 η (⟨W_{l+1}, u_{l+1}⟩ − ⟨W_l, u_l⟩) + η² (‖u_{l+1}‖² − ‖u_l‖²).

For u = g the first term is zero, since ⟨W_l, g_l⟩ is the same for all layers; this is Theorem 2. Preconditioned steps
have no such law.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["Adam", "Momentum", "Optimizer", "optimizer_function", "optimizer_name"]


class Optimizer(Protocol):
    """What step is made of the gradients. Two methods are all, so that users can bring their own."""

    def start(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        """Return the state before the first step: tensors (M, …) for M networks with these parameters (M, …)."""

    def directions(self, gradients: list[Tensor], state: list[Tensor], step: int) -> list[Tensor]:
        """Return u from the gradients and the number of earlier steps, and update the state in place."""


@dataclass(frozen=True)
class Momentum:
    """Heavy-ball momentum, u_t = β u_{t−1} + g_t, as in `torch.optim.SGD`.

    With V_t = ‖u_{l+1}‖² − ‖u_l‖² the drift is exactly η² (1 + β)/(1 − β) Σ_t V_t + 2 η β/(1 − β) A_T, where
    A_T = ⟨W_{l+1}, u_{l+1}⟩ − ⟨W_l, u_l⟩ at the end vanishes as training converges.

    Raises:
        ValueError: If the factor is not in its range.
    """

    factor: float = 0.9
    """β, from 0 to below 1."""

    def __post_init__(self):
        """Check the factor."""
        if not isinstance(self.factor, Real) or not 0 <= self.factor < 1:
            raise ValueError(f"factor must be from 0 to below 1, got {self.factor!r}")

    def start(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        """Return velocities of zero, see `Optimizer`."""
        return [torch.zeros_like(p) for p in parameters]

    def directions(self, gradients: list[Tensor], state: list[Tensor], step: int) -> list[Tensor]:
        """Return the velocities, see `Optimizer`."""
        for velocity, gradient in zip(state, gradients, strict=True):
            velocity.mul_(self.factor).add_(gradient)
        return state


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba 2015), u = m̂ / (√v̂ + ε), as in `torch.optim.Adam`.

    Raises:
        ValueError: If a number is out of its range.
    """

    decays: tuple[float, float] = (0.9, 0.999)
    """β_1 of the mean m of gradients and β_2 of the mean v of their squares, from 0 to below 1."""
    epsilon: float = 1e-8
    """ε, positive."""

    def __post_init__(self):
        """Check the numbers."""
        pair = isinstance(self.decays, tuple | list) and len(self.decays) == 2
        real = pair and all(isinstance(number, Real) for number in (*self.decays, self.epsilon))
        if not real or not all(0 <= decay < 1 for decay in self.decays) or not 0 < self.epsilon < math.inf:
            raise ValueError(
                f"decays must be from 0 to below 1 and epsilon positive, got {self.decays} and {self.epsilon}"
            )

    def start(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        """Return means of zero of the gradients and of their squares, see `Optimizer`."""
        return [torch.zeros_like(p) for p in [*parameters, *parameters]]

    def directions(self, gradients: list[Tensor], state: list[Tensor], step: int) -> list[Tensor]:
        """Return the directions, see `Optimizer`."""
        first, second = self.decays
        means, squares = state[: len(gradients)], state[len(gradients) :]
        for mean, square, gradient in zip(means, squares, gradients, strict=True):
            mean.lerp_(gradient, 1 - first)
            square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        scale, spread = 1 - first ** (step + 1), math.sqrt(1 - second ** (step + 1))
        return [
            mean / square.sqrt().div_(spread).add_(self.epsilon).mul_(scale)
            for mean, square in zip(means, squares, strict=True)
        ]


NAMED = {"gd": None, "momentum": Momentum(), "adam": Adam()}


def optimizer_name(optimizer: str | Optimizer) -> str:
    """Name an optimizer: one of the named ones by its name, another by its numbers, such as Momentum(factor=0.5)."""
    names = [name for name, known in NAMED.items() if known is not None and known == optimizer]
    return optimizer if isinstance(optimizer, str) else next(iter(names), repr(optimizer))


def optimizer_function(optimizer: str | Optimizer) -> Optimizer | None:
    """Look up an optimizer.

    Args:
        optimizer: "gd", "momentum" (factor 0.9), "adam" (PyTorch's defaults), or an `Optimizer`, which is returned.

    Returns:
        The optimizer, None for gradient descent.

    Raises:
        ValueError: If `optimizer` is none of these.
    """
    if isinstance(optimizer, str) and optimizer in NAMED:
        return NAMED[optimizer]
    if not (hasattr(optimizer, "start") and hasattr(optimizer, "directions")):
        raise ValueError(f"optimizer must be one of {', '.join(NAMED)} or an Optimizer, got {optimizer!r}")
    return optimizer
