"""Spectral compression under cross-entropy: probabilities, and the curvature of the softmax they make.

The Gauss-Newton matrix of cross-entropy is (1/n) Σ_i J_iᵀ S_i J_i with S_i = diag(p) − p pᵀ. With M the largest
p_k (1 − p_k) of the sample

    K/(K−1) M  ≤  λ_max(S_i)  ≤  min(2 M, ½).

Below: the Rayleigh quotient of e_k − 1/K, with k the class of M. Above: Gershgorin's row sums are 2 p_k (1 − p_k); and
vᵀ S_i v is the variance of the entries of v under p, at most (max v − min v)²/4 ≤ ½ for a unit vector (Popoviciu).
"""

import torch
from torch import Tensor

from conslaw.network import activation_function, forward
from conslaw.problems import Problem

__all__ = ["correct_probability", "probabilities", "softmax_sharpness"]


def probabilities(problem: Problem, activation: str | float = "relu") -> Tensor:
    """Softmax probabilities of every class and sample.

    Args:
        problem: M networks and their data.
        activation: As in `gradient_descent`.

    Returns:
        p, shape (M, K, n).
    """
    outputs = forward(problem.weights, problem.biases, problem.inputs, activation_function(activation))[0][-1]
    return torch.softmax(outputs, 1)


def correct_probability(problem: Problem, activation: str | float = "relu") -> Tensor:
    """Probability q_i of the true class of each sample.

    Args:
        problem: M networks and their data.
        activation: As in `gradient_descent`.

    Returns:
        q, shape (M, n).
    """
    return (probabilities(problem, activation) * problem.targets).sum(1)


def softmax_sharpness(probabilities: Tensor) -> Tensor:
    """Largest eigenvalue of diag(p) − p pᵀ.

    Args:
        probabilities: p, shape (M, K, n).

    Returns:
        λ_max(S_i), shape (M, n).

    >>> softmax_sharpness(torch.tensor([[[0.5, 0.2], [0.5, 0.2], [0.0, 0.6]]]).double())[0, 0]
    tensor(0.5000, dtype=torch.float64)
    """
    p = probabilities.movedim(1, 2)
    return torch.linalg.eigvalsh(torch.diag_embed(p) - p.unsqueeze(3) * p.unsqueeze(2))[..., -1]
