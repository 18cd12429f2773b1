"""Steps of many networks at once in torch, with any optimizer and on any device; nothing waits for the device."""

from collections.abc import Sequence, Set

import torch
from torch import Tensor

from conslaw.conserved import norms
from conslaw.networks import Workspace, loss_and_gradients
from conslaw.problems import Problem
from conslaw.training._steps import Steps
from conslaw.training.optimizers import Optimizer

__all__ = ["BatchedSteps"]


class BatchedSteps:
    """J networks in training, see `Stepper`."""

    def __init__(self, networks: Problem, rates: Tensor, optimizer: Optimizer | None = None):
        """Start.

        Args:
            networks: The networks and their data; their weights are changed in place.
            rates: η, shape (J,).
            optimizer: None for gradient descent, u = ∂L/∂W.
        """
        self.networks = networks
        self._rates = rates.to(networks.inputs)
        self._optimizer = optimizer
        self._state = optimizer.start(networks.parameters) if optimizer else []
        self._workspace = Workspace()

    def advance(self, steps: range, updates: int, recorded: Set[int]) -> Steps:
        """Take some steps, see `Stepper`."""
        parameters, optimizer = self.networks.parameters, self._optimizer
        factors = [-self._rates.view(-1, *[1] * (p.dim() - 1)) for p in parameters]
        losses, gradient_norms, weight_norms, step_norms, alignments = [], [], [], [], []
        for step in steps:
            loss, gradients = loss_and_gradients(self.networks, self._workspace)
            losses.append(loss)
            gradient_norms.append(norms(gradients))
            if step in recorded:
                weight_norms.append(norms(parameters))
            if step < steps.start + updates:
                directions = gradients
                if optimizer:
                    directions = optimizer.directions(gradients, self._state, step)
                    step_norms.append(norms(directions))
                    alignments.append(_inner_products(parameters, directions))
                for parameter, direction, factor in zip(parameters, directions, factors, strict=True):
                    parameter.addcmul_(direction, factor)
        nothing = self._rates.new_empty(0, len(self._rates), len(parameters), dtype=torch.float64)
        return Steps(
            torch.stack(losses).double(),
            _squares(gradient_norms),
            _squares(weight_norms) if weight_norms else nothing,
            _squares(step_norms) if step_norms else None,
            torch.stack(alignments).double() if alignments else None,
        )

    def keep(self, survivors: Tensor) -> None:
        """Go on with these networks only, see `Stepper`."""
        self.networks = self.networks.select(survivors)
        there = survivors.to(self._rates.device)
        self._rates = self._rates[there]
        self._state = [tensor[there] for tensor in self._state]
        self._workspace = Workspace()


def _inner_products(parameters: Sequence[Tensor], directions: Sequence[Tensor]) -> Tensor:
    """⟨W_l, u_l⟩ of every network, shape (J, P)."""
    pairs = zip(parameters, directions, strict=True)
    return torch.stack([torch.linalg.vecdot(p.flatten(1), u.flatten(1)) for p, u in pairs], 1)


def _squares(norms: list[list[Tensor]]) -> Tensor:
    """Square the norms (J,) of P parameters at several times, in float64 and all at once; shape (times, J, P)."""
    return torch.stack([torch.stack(at_one_time, 1) for at_one_time in norms]).double().square()
