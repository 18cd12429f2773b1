"""Some steps of gradient descent, or of another optimizer, of many networks at once in torch, and what is recorded."""

from collections.abc import Sequence, Set
from typing import NamedTuple

import torch
from torch import Tensor

from conslaw.laws import norms
from conslaw.losses import loss_function
from conslaw.networks import (
    IDENTITY,
    Activation,
    Memory,
    activation_function,
    backward,
    forward,
    product,
    weight_gradient,
)
from conslaw.problems import Problem
from conslaw.training.optimizers import Optimizer

__all__ = ["Steps", "loss_and_gradients", "take_steps"]


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


def loss_and_gradients(
    problem: Problem,
    loss: str | float = "cross_entropy",
    activation: str | float | Activation = "relu",
    memory: Memory | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """Compute the loss of every network and its gradient.

    Args:
        problem: M networks and their data.
        loss: As in `gradient_descent`.
        activation: As in `gradient_descent`, or an `Activation`.
        memory: A dictionary, empty at first, for calls with the same shapes to use the same memory. The next call then
            overwrites the gradients.

    Returns:
        Loss (M,), and ∂L/∂ each of `problem.parameters`, in their order and shapes.
    """
    sigma, inputs = activation_function(activation), problem.inputs
    # In a linear network the order of the products is free: W_L … W_1 first, and the samples once, not in every layer.
    collapsed = sigma is IDENTITY and not problem.biases
    preactivations, activations = forward(problem.weights, problem.biases, None if collapsed else inputs, sigma, memory)
    outputs, kept = preactivations[-1], {} if memory is None else memory
    if collapsed:
        outputs = product(outputs, inputs, kept, "outputs", 0)
    value, residual = loss_function(loss)(outputs, problem.targets, problem.samples)
    if collapsed:
        residual = product(residual, inputs.mT, kept, "residual", 0)
    residuals = backward(problem.weights, preactivations, activations, residual, sigma, memory)
    layers = enumerate(zip(residuals, activations, strict=True))
    gradients = [weight_gradient(r, before, kept, "gradient", layer) for layer, (r, before) in layers]
    return value, gradients + [r.sum(2) for r in residuals] if problem.biases else gradients


def take_steps(
    problem: Problem,
    rates: Tensor,
    steps: range,
    updates: int,
    recorded: Set[int],
    loss: str | float,
    activation: str | float,
    optimizer: Optimizer | None,
    memory: Memory,
    state: list[Tensor],
) -> Steps:
    """Update the weights of J networks in place, W_l ← W_l − η u_l.

    Args:
        problem: The networks and their data.
        rates: η, shape (J,).
        steps: Numbers of the steps.
        updates: How many of them, the first ones, end with an update.
        recorded: At which of them norms are recorded.
        loss: As in `gradient_descent`.
        activation: As in `gradient_descent`.
        optimizer: None for gradient descent, u = ∂L/∂W.
        memory: A dictionary, as in `loss_and_gradients`.
        state: Of the optimizer; a list, empty at first.

    Returns:
        What is recorded.
    """
    negative_rates = -rates.to(problem.inputs)
    factors = [negative_rates.view(-1, *[1] * (p.dim() - 1)) for p in problem.parameters]
    values, gradient_norms, weight_norms, step_norms, products = [], [], [], [], []
    for step in steps:
        value, gradients = loss_and_gradients(problem, loss, activation, memory)
        values.append(value)
        gradient_norms.append(norms(gradients))
        if step in recorded:
            weight_norms.append(norms(problem.parameters))
        if step < steps.start + updates:
            directions = gradients
            if optimizer:
                directions = optimizer(gradients, state, step)
                step_norms.append(norms(directions))
                products.append(_inner_products(problem.parameters, directions))
            for parameter, direction, factor in zip(problem.parameters, directions, factors, strict=True):
                parameter.addcmul_(direction, factor)
    return Steps(
        torch.stack(values).double().cpu(),
        _squares(gradient_norms),
        _squares(weight_norms)
        if weight_norms
        else torch.empty(0, len(rates), len(problem.parameters), dtype=torch.float64),
        _squares(step_norms) if step_norms else None,
        torch.stack(products).double().cpu() if products else None,
    )


def _inner_products(parameters: Sequence[Tensor], directions: Sequence[Tensor]) -> Tensor:
    """⟨W_l, u_l⟩ of every network, shape (J, P)."""
    pairs = zip(parameters, directions, strict=True)
    return torch.stack([torch.linalg.vecdot(p.flatten(1), u.flatten(1)) for p, u in pairs], 1)


def _squares(norms: list[list[Tensor]]) -> Tensor:
    """Square the norms (J,) of P parameters at several times, in float64 and all at once; shape (times, J, P)."""
    stacked = torch.stack([torch.stack(at_one_time, 1) for at_one_time in norms])
    return stacked.double().square().cpu()
