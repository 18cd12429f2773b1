"""Activations σ of the hidden layers, with the derivatives that the passes and the Hessian need.

An activation is named by a string or by a number: "relu", "linear", "leaky_relu" (slope 0.1), "tanh", "gelu" (exact),
"sigmoid", or the weight ε in [0, 1] of ReLU in the interpolation (1 − ε) z + ε·relu(z).
"""

import math
from collections.abc import Callable
from functools import cache
from numbers import Real
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import gelu, leaky_relu, relu

__all__ = ["IDENTITY", "Activation", "activation_function"]


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


@cache
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
        activation: A name, a weight ε from 0 to 1, or an `Activation`, which is returned.

    Returns:
        The activation and its derivative.

    Raises:
        ValueError: If `activation` is none of these.
    """
    if isinstance(activation, Activation):
        return activation
    if isinstance(activation, str) and activation in NAMED:
        return NAMED[activation]
    if isinstance(activation, Real) and not isinstance(activation, bool) and 0 <= activation <= 1:
        return piecewise_linear(1 - float(activation))
    raise ValueError(f"activation must be one of {', '.join(NAMED)} or a weight from 0 to 1, got {activation!r}")
