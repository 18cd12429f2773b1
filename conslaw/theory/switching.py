"""Activation switching: which gates of a ReLU network open or close in training, and training in which none does."""

from collections.abc import Sequence

import torch
from torch import Tensor

from conslaw.activations import IDENTITY, Activation
from conslaw.conserved import gradient_imbalance, squared_norms
from conslaw.networks import Workspace, forward, loss_and_gradients
from conslaw.problems import Problem
from conslaw.training.descent import gradient_descent

__all__ = [
    "LayerSwitchObserver",
    "SwitchObserver",
    "first_preactivations",
    "frozen_gate_sum",
    "switched_share",
    "with_gates",
]


def first_preactivations(problem: Problem, workspace: Workspace | None = None) -> Tensor:
    """W_1 x + b_1, whose signs are the gates of a ReLU network.

    Args:
        problem: M networks and their data.
        workspace: As in `loss_and_gradients`.

    Returns:
        Shape (M, m, n).
    """
    return forward(problem.weights[:1], problem.biases[:1], problem.inputs, IDENTITY, workspace)[0][0]


class SwitchObserver:
    """An observable of `gradient_descent`: what has switched since the recorded time before.

    It returns (J, 3): the share of the m n pairs of a unit and a sample whose gate has changed; the number of units
    with at least one such sample; the smallest |W_1 x + b_1|. The first two are NaN at time 0.
    """

    def __init__(self) -> None:
        """Start without gates to compare with."""
        self._runs, self._gates, self._workspace = None, None, Workspace()

    def __call__(self, networks: Problem) -> Tensor:
        """Compare the gates with those of the last call."""
        earlier = networks.places_in(self._runs)
        if earlier is None or len(earlier) < len(self._runs):
            self._workspace = Workspace()
        preactivations = first_preactivations(networks, self._workspace)
        gates = preactivations > 0
        margin = preactivations.abs_().amin((1, 2)).double()
        if earlier is None:
            share = units = torch.full_like(margin, torch.nan)
        else:
            before = self._gates if len(earlier) == len(self._runs) else self._gates[earlier.to(gates.device)]
            counts = (gates ^ before).view(torch.uint8).sum(2, dtype=torch.int32)  # of samples, for each unit
            share, units = counts.double().mean(1) / gates.shape[2], (counts > 0).double().sum(1)
        self._runs, self._gates = networks.runs, gates
        return torch.stack([share, units, margin], 1)


def switched_share(problem: Problem, learning_rate: float) -> Tensor:
    """Share of the gates that one step of gradient descent opens or closes.

    Args:
        problem: M networks and their data.
        learning_rate: η of the step.

    Returns:
        Share of the m n pairs of a unit and a sample, shape (M,), float64.
    """
    after = gradient_descent(problem, learning_rate, 1).networks()
    return ((first_preactivations(after) > 0) ^ (first_preactivations(problem) > 0)).double().mean((1, 2))


class LayerSwitchObserver:
    """An observable of `gradient_descent`: the share of every hidden layer's gates that have changed.

    It returns (J, L − 1): of layer l the share of the m_l n pairs of a unit and a sample whose gate, the sign of the
    preactivation z_l, is another than at the look before; NaN at time 0. Of looks at t and t + 1 the second gives the
    rate of one step, and the steps between such pairs cost nothing.
    """

    def __init__(self) -> None:
        """Start without gates to compare with."""
        self._runs = self._gates = None

    def __call__(self, networks: Problem) -> Tensor:
        """Compare the gates with those of the last call."""
        hidden = forward(networks.weights, networks.biases, networks.inputs, networks.sigma)[0][:-1]
        gates = [preactivations > 0 for preactivations in hidden]
        earlier = networks.places_in(self._runs)
        if earlier is None:
            shares = torch.full((len(networks), len(gates)), torch.nan, dtype=torch.float64)
        else:
            places = earlier.to(networks.inputs.device)
            pairs = zip(gates, self._gates, strict=True)
            shares = torch.stack([(now ^ before[places]).double().mean((1, 2)) for now, before in pairs], 1)
        self._runs, self._gates = networks.runs, gates
        return shares


def with_gates(problem: Problem, gates: Tensor) -> Problem:
    """Return the networks with σ(z) = gates · z in place of ReLU: linear networks, seen through a mask.

    Args:
        problem: M networks with one hidden layer.
        gates: Which gates are open, shape (M, m, n), bool.
    """
    mask = gates.to(problem.inputs)
    held = Activation(
        lambda z, inplace: z.mul_(mask) if inplace else z * mask, lambda gradient, z, a: gradient.mul_(mask)
    )
    return problem.under(activation=held)


def frozen_gate_sum(
    problem: Problem,
    learning_rates: Sequence[float] | Tensor,
    steps: int,
) -> Tensor:
    """S(η) of a ReLU network whose gates stay as they are at initialisation.

    Args:
        problem: M networks with one hidden layer, without biases.
        learning_rates: η, R of them.
        steps: T.

    Returns:
        S, shape (R, M), float64.
    """
    rates, networks = torch.as_tensor(learning_rates, dtype=torch.float64, device="cpu"), len(problem)
    batch = problem.select(torch.arange(networks, device="cpu").repeat(len(rates)))
    batch, workspace = with_gates(batch, first_preactivations(batch) > 0), Workspace()
    factors = -rates.to(batch.inputs).repeat_interleave(networks).view(-1, 1, 1)
    total = torch.zeros(len(factors), 1, dtype=torch.float64, device=batch.inputs.device)
    for _ in range(steps):
        _, gradients = loss_and_gradients(batch, workspace)
        total += gradient_imbalance(squared_norms(gradients))
        for parameter, gradient in zip(batch.parameters, gradients, strict=True):
            parameter.addcmul_(gradient, factors)
    return total.view(len(rates), networks)
