"""Losses of a batch of networks: squared error, cross-entropy and their mixture.

A loss is named by a string or by a number: "mse", "cross_entropy", or the weight w in [0, 1] of the mixture
(1 − w)·squared error + w·cross-entropy.
"""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["Loss", "cross_entropy", "loss_function", "squared_error"]

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
    loss = (targets * log_probabilities).sum((1, 2)) / -samples
    return loss, log_probabilities.exp().sub_(targets).div_(samples)


def loss_function(loss: str | float) -> Loss:
    """Look up a loss.

    Args:
        loss: "mse", "cross_entropy", or the weight of cross-entropy in their mixture, from 0 to 1.

    Returns:
        Function of (outputs, targets, samples) that returns the loss (M,) and the residual ∂L/∂f (M, K, n).

    Raises:
        ValueError: If `loss` is none of these.
    """
    named = {"mse": squared_error, "cross_entropy": cross_entropy}
    if loss in named:
        return named[loss]
    if isinstance(loss, str) or not 0 <= loss <= 1:
        raise ValueError(f"loss must be one of {', '.join(named)} or a weight from 0 to 1, got {loss!r}")

    def mixture(outputs: Tensor, targets: Tensor, samples: int) -> tuple[Tensor, Tensor]:
        error, error_residual = squared_error(outputs, targets, samples)
        entropy, entropy_residual = cross_entropy(outputs, targets, samples)
        return torch.lerp(error, entropy, loss), torch.lerp(error_residual, entropy_residual, loss)

    return mixture
