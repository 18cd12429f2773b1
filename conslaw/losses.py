"""Losses of a batch of networks: squared error, cross-entropy and their mixture.

A loss is named by a string or by a number: "mse", "cross_entropy", or the weight w in [0, 1] of the mixture
(1 − w)·squared error + w·cross-entropy.
"""

from collections.abc import Callable
from numbers import Real

import torch
from torch import Tensor

__all__ = [
    "Loss",
    "cross_entropy",
    "cross_entropy_weight",
    "curvature_product",
    "loss_function",
    "output_curvature",
    "squared_error",
    "third_product",
]

Loss = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]


def squared_error(outputs: Tensor, targets: Tensor, samples: int) -> tuple[Tensor, Tensor]:
    """Mean squared error L = Σ (f − y)² / (n K) and its residual ∂L/∂f = 2 (f − y) / (n K).

    Args:
        outputs: f, shape (M, K, columns).
        targets: y, same shape.
        samples: Number n of samples the mean is taken over. It differs from the number of columns where the data were
            replaced by sufficient statistics (`Problem.reduced`).

    Returns:
        Loss (M,) and residual (M, K, columns).
    """
    difference = outputs - targets
    scale = 1 / (samples * outputs.shape[1])
    return difference.square().sum((1, 2)) * scale, difference * (2 * scale)


def cross_entropy(outputs: Tensor, targets: Tensor, samples: int) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the softmax p of the outputs, L = −Σ y ln p / n, and its residual ∂L/∂f = (p − y) / n.

    Args:
        outputs: Logits f, shape (M, K, n).
        targets: y, same shape, one-hot over the classes.
        samples: Number n of samples.

    Returns:
        Loss (M,) and residual (M, K, n).
    """
    log_probabilities = torch.log_softmax(outputs, 1)
    loss = torch.linalg.vecdot(targets.flatten(1), log_probabilities.flatten(1)) / -samples
    return loss, log_probabilities.exp().sub_(targets).mul_(1 / samples)


def cross_entropy_weight(loss: str | float) -> float:
    """Look up a loss.

    Args:
        loss: "mse", "cross_entropy", or the weight w of cross-entropy in their mixture, from 0 to 1.

    Returns:
        w.

    Raises:
        ValueError: If `loss` is none of these.
    """
    named = {"mse": 0.0, "cross_entropy": 1.0}
    if isinstance(loss, str) and loss in named:
        return named[loss]
    if isinstance(loss, Real) and not isinstance(loss, bool) and 0 <= loss <= 1:
        return float(loss)
    raise ValueError(f"loss must be one of {', '.join(named)} or a weight from 0 to 1, got {loss!r}")


def loss_function(loss: str | float) -> Loss:
    """Return a loss and its residual as a function.

    Args:
        loss: As in `cross_entropy_weight`.

    Returns:
        Function of (outputs, targets, samples) that returns the loss (M,) and the residual ∂L/∂f (M, K, n).
    """
    weight = cross_entropy_weight(loss)
    if weight in (0, 1):
        return cross_entropy if weight else squared_error

    def mixture(outputs: Tensor, targets: Tensor, samples: int) -> tuple[Tensor, Tensor]:
        error, error_residual = squared_error(outputs, targets, samples)
        entropy, entropy_residual = cross_entropy(outputs, targets, samples)
        return torch.lerp(error, entropy, weight), torch.lerp(error_residual, entropy_residual, weight)

    return mixture


def output_curvature(loss: str | float, outputs: Tensor, samples: int) -> Tensor:
    """Second derivative of the loss in the outputs of each sample: 2/(n K) I, or (diag p − p pᵀ) / n, or their mixture.

    Args:
        loss: As in `cross_entropy_weight`.
        outputs: f, shape (M, K, columns).
        samples: Number n of samples.

    Returns:
        S, shape (M, columns, K, K).
    """
    product = curvature_product(loss, outputs, samples)
    identity = torch.eye(outputs.shape[1], dtype=outputs.dtype, device=outputs.device)
    return torch.stack([product(unit.view(-1, 1).expand_as(outputs)).mT for unit in identity], 3)


def curvature_product(loss: str | float, outputs: Tensor, samples: int) -> Callable[[Tensor], Tensor]:
    """Return the function ḟ ↦ S ḟ for each sample, with S as in `output_curvature`, which is not formed.

    Args:
        loss: As in `cross_entropy_weight`.
        outputs: f, shape (…, K, columns).
        samples: Number n of samples.

    Returns:
        Function from and to tensors (…, K, columns).
    """
    weight, scale = cross_entropy_weight(loss), 2 / (samples * outputs.shape[-2])
    probabilities = torch.softmax(outputs, -2) if weight else None

    def product(moved: Tensor) -> Tensor:
        if not weight:
            return moved * scale
        spread = probabilities * moved
        entropy = (spread - probabilities * spread.sum(-2, keepdim=True)) / samples
        return torch.lerp(moved * scale, entropy, weight)

    return product


def third_product(loss: str | float, outputs: Tensor, samples: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the function (ḟ, f̈) ↦ how S ḟ changes when the outputs move by f̈: the loss's third derivative in them.

    It is zero for squared error; for cross-entropy the third cumulant of the classes, p (ḟ − pᵀḟ)(f̈ − pᵀf̈) without its
    part along p, over n.

    Args:
        loss: As in `cross_entropy_weight`.
        outputs: f, shape (…, K, columns).
        samples: Number n of samples.

    Returns:
        Function from two tensors to one, each (…, K, columns).
    """
    weight = cross_entropy_weight(loss)
    probabilities = torch.softmax(outputs, -2) if weight else None

    def product(first: Tensor, second: Tensor) -> Tensor:
        if not weight:
            return torch.zeros_like(first)
        first, second = (moved - (probabilities * moved).sum(-2, keepdim=True) for moved in (first, second))
        spread = probabilities * first * second
        return (spread - probabilities * spread.sum(-2, keepdim=True)) * (weight / samples)

    return product
