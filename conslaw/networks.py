"""Forward and backward pass of a batch of fully connected networks, f(x) = W_L σ(W_{L−1} … σ(W_1 x + b_1) …) + b_L.

Samples are stored last: inputs are (M, d, n), weights (M, out, in), so that a layer is one batched product W @ X.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from conslaw.activations import IDENTITY, Activation
from conslaw.losses import loss_function
from conslaw.problems import Problem
from conslaw.tensors import is_shared

__all__ = [
    "Workspace",
    "as_parameters",
    "backward",
    "forward",
    "loss_and_gradients",
    "network_outputs",
    "product",
    "weight_gradient",
]


class Workspace(dict[tuple[str, int], Tensor]):
    """Results, to be overwritten by the next pass with the same shapes: fresh memory costs a third of a step."""


def as_parameters(vectors: Tensor, problem: Problem) -> list[Tensor]:
    """Split vectors, with all parameters of a network one after the other, into tensors of the parameters' shapes.

    Args:
        vectors: Shape (…, P).
        problem: The networks.

    Returns:
        One tensor for each parameter, with its shape after (…).
    """
    split = vectors.split([p[0].numel() for p in problem.parameters], -1)
    return [v.unflatten(-1, p.shape[1:]) for v, p in zip(split, problem.parameters, strict=True)]


def product(left: Tensor, right: Tensor, workspace: Workspace | None, name: str, layer: int) -> Tensor:
    """Batched matrix product, as one product of the stacked left factors where the right one is shared.

    Args:
        left: Shape (M, a, b).
        right: Shape (M, b, c).
        workspace: Where the result is kept, if it is.
        name: What it is.
        layer: And of which layer.

    Returns:
        Shape (M, a, c).
    """
    before = None if workspace is None else workspace.get((name, layer))
    shared = is_shared(right)
    result = torch.mm(left.flatten(0, 1), right[0], out=before) if shared else torch.bmm(left, right, out=before)
    if workspace is not None:
        workspace[name, layer] = result
    return result.unflatten(0, left.shape[:2]) if shared else result


def weight_gradient(
    residual: Tensor, before: Tensor | None, workspace: Workspace | None, name: str, layer: int
) -> Tensor:
    """Compute ∂L/∂W = r aᵀ of one layer; ∂L/∂b = r 1 is `residual.sum(2)`.

    Args:
        residual: r, shape (M, out, n).
        before: a, the layer's inputs, shape (M, in, n); None for the identity matrix.
        workspace: As in `product`.
        name: As in `product`.
        layer: As in `product`.

    Returns:
        Shape (M, out, in).
    """
    if before is None:
        return residual
    # r aᵀ or (a rᵀ)ᵀ: on a CPU the product with fewer rows is faster, by up to two thirds.
    if before.shape[1] < residual.shape[1] and not is_shared(before):
        return product(before, residual.mT, workspace, name, layer).mT
    return product(residual, before.mT, workspace, name, layer)


def forward(
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    inputs: Tensor | None,
    activation: Activation,
    workspace: Workspace | None = None,
) -> tuple[list[Tensor], list[Tensor | None]]:
    """Compute z_l = W_l a_{l−1} + b_l and a_l = σ(z_l), with a_0 = x.

    Args:
        weights: L tensors (M, out, in).
        biases: L tensors (M, out), or none.
        inputs: x, shape (M, d, n); None for the identity matrix.
        activation: σ.
        workspace: Memory to use again; then z_l may be overwritten by a_l, and autograd is of no use.

    Returns:
        The preactivations [z_1, …, z_L] and the layers' inputs [a_0, …, a_{L−1}]; the network's output is z_L, shape
        (M, K, n).
    """
    inplace = workspace is not None
    preactivations, activations = [], [inputs]
    for layer, weight in enumerate(weights):
        if layer:
            activations.append(activation.function(preactivations[-1], inplace))
        before = activations[-1]
        if before is None:
            preactivations.append(weight)
            continue
        preactivations.append(product(weight, before, workspace, "preactivation", layer))
        if biases:
            bias = biases[layer].unsqueeze(2)
            preactivations[-1] = preactivations[-1].add_(bias) if inplace else preactivations[-1] + bias
    return preactivations, activations


def backward(
    weights: Sequence[Tensor],
    preactivations: Sequence[Tensor],
    activations: Sequence[Tensor],
    residual: Tensor,
    activation: Activation,
    workspace: Workspace | None = None,
) -> list[Tensor]:
    """Propagate the residual back, r_l = ∂L/∂z_l = σ'(z_l) ∘ W_{l+1}ᵀ r_{l+1}.

    Args:
        weights: L tensors (M, out, in).
        preactivations: [z_1, …, z_L] of `forward`.
        activations: [a_0, …, a_{L−1}] of `forward`.
        residual: ∂L/∂f, shape (M, K, n).
        activation: σ.
        workspace: As in `forward`.

    Returns:
        The residuals [r_1, …, r_L], each (M, out, n).
    """
    residuals = [residual]
    for layer in range(len(weights) - 1, 0, -1):
        gradient = product(weights[layer].mT, residuals[0], workspace, "residual", layer)
        residuals.insert(0, activation.gradient(gradient, preactivations[layer - 1], activations[layer]))
    return residuals


def network_outputs(problem: Problem) -> Tensor:
    """Compute the outputs f of every network on its data, shape (M, K, n)."""
    return forward(problem.weights, problem.biases, problem.inputs, problem.sigma)[0][-1]


def loss_and_gradients(problem: Problem, workspace: Workspace | None = None) -> tuple[Tensor, list[Tensor]]:
    """Compute the loss of every network and its gradient.

    Args:
        problem: M networks and their data.
        workspace: Memory for calls with the same shapes to use again. The next call then overwrites the gradients.

    Returns:
        Loss (M,), and ∂L/∂ each of `problem.parameters`, in their order and shapes.

    >>> from conslaw import draw
    >>> round(loss_and_gradients(draw([42]))[0].item(), 6)
    1.645257
    """
    sigma, inputs = problem.sigma, problem.inputs
    # In a linear network the order of the products is free: W_L … W_1 first, and the samples once, not in every layer.
    collapsed = sigma is IDENTITY and not problem.biases
    first = None if collapsed else inputs
    preactivations, activations = forward(problem.weights, problem.biases, first, sigma, workspace)
    outputs = preactivations[-1]
    if collapsed:
        outputs = product(outputs, inputs, workspace, "outputs", 0)
    value, residual = loss_function(problem.loss)(outputs, problem.targets, problem.samples)
    if collapsed:
        residual = product(residual, inputs.mT, workspace, "residual", 0)
    residuals = backward(problem.weights, preactivations, activations, residual, sigma, workspace)
    layers = enumerate(zip(residuals, activations, strict=True))
    gradients = [weight_gradient(r, before, workspace, "gradient", layer) for layer, (r, before) in layers]
    return value, gradients + [r.sum(2) for r in residuals] if problem.biases else gradients
