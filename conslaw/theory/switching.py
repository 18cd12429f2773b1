"""Activation switching: which gates of a ReLU network open or close in training, and training in which none does."""

from collections.abc import Sequence

import torch
from torch import Tensor

from conslaw.laws import gradient_imbalance, squared_norms
from conslaw.networks import IDENTITY, Activation, Memory, forward
from conslaw.problems import Problem
from conslaw.training._batched import loss_and_gradients

__all__ = ["SwitchObserver", "first_preactivations", "frozen_gate_sum"]


def first_preactivations(problem: Problem, memory: Memory | None = None) -> Tensor:
    """W_1 x + b_1, whose signs are the gates of a ReLU network.

    Args:
        problem: M networks and their data.
        memory: As in `loss_and_gradients`.

    Returns:
        Shape (M, m, n).
    """
    return forward(problem.weights[:1], problem.biases[:1], problem.inputs, IDENTITY, memory)[0][0]


class SwitchObserver:
    """An observable of `gradient_descent`: what has switched since the recorded time before.

    It returns (J, 3): the share of the m n pairs of a unit and a sample whose gate has changed; the number of units
    with at least one such sample; the smallest |W_1 x + b_1|. The first two are NaN at time 0, and once more after
    another network of the batch has diverged and left it.
    """

    def __init__(self) -> None:
        """Start without gates to compare with."""
        self._inputs, self._gates, self._memory = None, None, {}

    def __call__(self, networks: Problem) -> Tensor:
        """Compare the gates with those of the last call."""
        same = self._inputs is networks.inputs
        self._memory = self._memory if same else {}
        preactivations = first_preactivations(networks, self._memory)
        gates = preactivations > 0
        margin = preactivations.abs_().amin((1, 2)).double()
        if same:
            counts = (gates ^ self._gates).view(torch.uint8).sum(2, dtype=torch.int32)  # of samples, for each unit
            share, units = counts.double().mean(1) / gates.shape[2], (counts > 0).double().sum(1)
        else:
            share = units = torch.full_like(margin, torch.nan)
        self._inputs, self._gates = networks.inputs, gates
        return torch.stack([share, units, margin], 1)


def frozen_gate_sum(
    problem: Problem,
    learning_rates: Sequence[float] | Tensor,
    steps: int,
    *,
    loss: str | float = "cross_entropy",
) -> Tensor:
    """S(η) of a ReLU network whose gates stay as they are at initialisation: a linear network, seen through a mask.

    Args:
        problem: M networks with one hidden layer, without biases.
        learning_rates: η, R of them.
        steps: T.
        loss: As in `gradient_descent`.

    Returns:
        S, shape (R, M), float64.
    """
    rates, networks = torch.as_tensor(learning_rates, dtype=torch.float64), len(problem.inputs)
    batch = problem.select(torch.arange(networks).repeat(len(rates)))
    gates = (first_preactivations(batch) > 0).to(batch.inputs)
    frozen = Activation(
        lambda z, inplace: z.mul_(gates) if inplace else z * gates, lambda gradient, z, a: gradient.mul_(gates)
    )
    factors = -rates.to(batch.inputs).repeat_interleave(networks).view(-1, 1, 1)
    total, memory = torch.zeros(len(factors), 1, dtype=torch.float64, device=gates.device), {}
    for _ in range(steps):
        _, gradients = loss_and_gradients(batch, loss, frozen, memory)
        total += gradient_imbalance(squared_norms(gradients))
        for parameter, gradient in zip(batch.parameters, gradients, strict=True):
            parameter.addcmul_(gradient, factors)
    return total.view(len(rates), networks)
