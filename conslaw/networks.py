"""Forward and backward pass of a batch of fully connected networks, f(x) = W_L σ(W_{L−1} … σ(W_1 x + b_1) …) + b_L.

Samples are stored last: inputs are (M, d, n), weights (M, out, in), so that a layer is one batched product W @ X.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import gelu, leaky_relu, relu

from conslaw.problems import is_shared

__all__ = [
    "IDENTITY",
    "Activation",
    "Memory",
    "activation_function",
    "backward",
    "forward",
    "product",
    "weight_gradient",
]


Memory = dict[tuple[str, int], Tensor]
"""Tensors that are computed anew at every step in the same place: fresh memory costs a third of a step."""


class Activation(NamedTuple):
    """An activation σ and its derivative."""

    function: Callable[[Tensor, bool], Tensor]
    """σ(z), elementwise; may overwrite z if the second argument says so."""
    gradient: Callable[[Tensor, Tensor, Tensor], Tensor]
    """∂L/∂z from ∂L/∂σ(z), which it may overwrite, z or what has overwritten it, and σ(z)."""
    curvature: Callable[[Tensor, Tensor], Tensor] | None = None
    """σ''(z) from z and σ(z); None where it is zero almost everywhere."""
    slope: float | None = None
    """Of a piecewise linear σ: σ'(z) for z < 0, where σ'(z) = 1 for z > 0."""


aten = torch.ops.aten


IDENTITY = Activation(lambda z, inplace: z, lambda gradient, z, a: gradient, slope=1.0)


def piecewise_linear(slope: float) -> Activation:
    """σ(z) = max(z, 0) + slope·min(z, 0): ReLU for slope 0, identity for 1."""
    if slope == 1:
        return IDENTITY
    if slope == 0:
        return Activation(
            relu, lambda gradient, z, a: aten.threshold_backward(gradient, a, 0, grad_input=gradient), slope=slope
        )
    return Activation(
        lambda z, inplace: leaky_relu(z, slope, inplace),
        lambda gradient, z, a: aten.leaky_relu_backward(gradient, a, slope, True, grad_input=gradient),
        slope=slope,
    )


NAMED = {
    "relu": piecewise_linear(0.0),
    "linear": IDENTITY,
    "leaky_relu": piecewise_linear(0.1),
    "tanh": Activation(
        lambda z, inplace: z.tanh_() if inplace else z.tanh(),
        lambda gradient, z, a: aten.tanh_backward(gradient, a),
        lambda z, a: -2 * a * (1 - a * a),
    ),
    "gelu": Activation(
        lambda z, inplace: gelu(z),
        lambda gradient, z, a: aten.gelu_backward(gradient, z),
        lambda z, a: (2 - z * z) * torch.exp(-z * z / 2) / math.sqrt(2 * math.pi),
    ),
    "sigmoid": Activation(
        lambda z, inplace: z.sigmoid_() if inplace else z.sigmoid(),
        lambda gradient, z, a: aten.sigmoid_backward(gradient, a),
        lambda z, a: a * (1 - a) * (1 - 2 * a),
    ),
}


def activation_function(activation: str | float | Activation) -> Activation:
    """Look up an activation.

    Args:
        activation: "relu", "linear", "leaky_relu" (slope 0.1), "tanh", "gelu" (exact), "sigmoid", or the weight ε
            from 0 to 1 of the interpolation (1 − ε) z + ε·relu(z), or an `Activation`, which is returned.

    Returns:
        The activation and its derivative.

    Raises:
        ValueError: If `activation` is none of these.
    """
    if isinstance(activation, Activation):
        return activation
    if activation in NAMED:
        return NAMED[activation]
    if isinstance(activation, str) or not 0 <= activation <= 1:
        raise ValueError(f"activation must be one of {', '.join(NAMED)} or a weight from 0 to 1, got {activation!r}")
    return piecewise_linear(1 - activation)


def product(left: Tensor, right: Tensor, memory: Memory, name: str, layer: int) -> Tensor:
    """Batched matrix product, as one product of the stacked left factors where the right one is shared.

    Args:
        left: Shape (M, a, b).
        right: Shape (M, b, c).
        memory: Where the result is kept, and overwritten by the next call.
        name: What it is.
        layer: And of which layer.

    Returns:
        Shape (M, a, c).
    """
    if is_shared(right):
        stacked = torch.mm(left.flatten(0, 1), right[0], out=memory.get((name, layer)))
        memory[name, layer] = stacked
        return stacked.unflatten(0, left.shape[:2])
    memory[name, layer] = torch.bmm(left, right, out=memory.get((name, layer)))
    return memory[name, layer]


def weight_gradient(residual: Tensor, before: Tensor | None, memory: Memory, name: str, layer: int) -> Tensor:
    """Compute ∂L/∂W = r aᵀ of one layer; ∂L/∂b = r 1 is `residual.sum(2)`.

    Args:
        residual: r, shape (M, out, n).
        before: a, the layer's inputs, shape (M, in, n); None for the identity matrix.
        memory: As in `product`.
        name: As in `product`.
        layer: As in `product`.

    Returns:
        Shape (M, out, in).
    """
    if before is None:
        return residual
    # r aᵀ or (a rᵀ)ᵀ: on a CPU the product with fewer rows is faster, by up to two thirds.
    if before.shape[1] < residual.shape[1] and not is_shared(before):
        return product(before, residual.mT, memory, name, layer).mT
    return product(residual, before.mT, memory, name, layer)


def forward(
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    inputs: Tensor | None,
    activation: Activation,
    memory: Memory | None = None,
) -> tuple[list[Tensor], list[Tensor | None]]:
    """Compute z_l = W_l a_{l−1} + b_l and a_l = σ(z_l), with a_0 = x.

    Args:
        weights: L tensors (M, out, in).
        biases: L tensors (M, out), or none.
        inputs: x, shape (M, d, n); None for the identity matrix.
        activation: σ.
        memory: Tensors to overwrite, from an earlier call with the same shapes; then z_l may be overwritten by a_l,
            and autograd is of no use. An empty dictionary is filled.

    Returns:
        The preactivations [z_1, …, z_L] and the layers' inputs [a_0, …, a_{L−1}]; the network's output is z_L, shape
        (M, K, n).
    """
    inplace, memory = memory is not None, {} if memory is None else memory
    preactivations, activations = [], [inputs]
    for layer, weight in enumerate(weights):
        if layer:
            activations.append(activation.function(preactivations[-1], inplace))
        before = activations[-1]
        if before is None:
            preactivations.append(weight)
            continue
        preactivations.append(product(weight, before, memory, "preactivation", layer))
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
    memory: Memory | None = None,
) -> list[Tensor]:
    """Propagate the residual back, r_l = ∂L/∂z_l = σ'(z_l) ∘ W_{l+1}ᵀ r_{l+1}.

    Args:
        weights: L tensors (M, out, in).
        preactivations: [z_1, …, z_L] of `forward`.
        activations: [a_0, …, a_{L−1}] of `forward`.
        residual: ∂L/∂f, shape (M, K, n).
        activation: σ.
        memory: As in `forward`.

    Returns:
        The residuals [r_1, …, r_L], each (M, out, n).
    """
    memory = {} if memory is None else memory
    residuals = [residual]
    for layer in range(len(weights) - 1, 0, -1):
        gradient = product(weights[layer].mT, residuals[0], memory, "residual", layer)
        residuals.insert(0, activation.gradient(gradient, preactivations[layer - 1], activations[layer]))
    return residuals
