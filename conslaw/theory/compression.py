"""Spectral compression under cross-entropy: probabilities, and the curvature of the softmax they make.

The Gauss-Newton matrix of cross-entropy is (1/n) Σ_i J_iᵀ S_i J_i with S_i = diag(p) − p pᵀ. With M the largest
p_k (1 − p_k) of the sample

    K/(K−1) M  ≤  λ_max(S_i)  ≤  2 M,

and both ends are attained. Below: the Rayleigh quotient of e_k − 1/K, with k the class of M. Above: the row sums of
|S_i|, 2 p_k (1 − p_k), which bound the eigenvalues (Gershgorin). As M ≤ ¼, the upper end is at most ½.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from conslaw.eigenvalues import sharpness
from conslaw.networks import backward, forward, network_outputs
from conslaw.problems import Problem

__all__ = [
    "CurvatureFactors",
    "MarginKernel",
    "correct_probability",
    "curvature_factors",
    "margin_kernel",
    "probabilities",
    "softmax_sharpness",
]


def probabilities(problem: Problem) -> Tensor:
    """Softmax probabilities of every class and sample.

    Args:
        problem: M networks and their data.

    Returns:
        p, shape (M, K, n).
    """
    return torch.softmax(network_outputs(problem), 1)


def correct_probability(problem: Problem) -> Tensor:
    """Probability q_i of the true class of each sample.

    Args:
        problem: M networks and their data.

    Returns:
        q, shape (M, n).
    """
    return (probabilities(problem) * problem.targets).sum(1)


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


class MarginKernel(NamedTuple):
    """Margins of M classifiers and the products of their gradients in all parameters.

    Late in training a sample's probability is that of two classes, its own and its rival, and with the weights
    w_i = 1 − q_i the gradient is −(1/n) Σ w_i ∇m_i and the Hessian (1/n) Σ w_i ∇m_i ∇m_iᵀ.
    """

    margins: Tensor
    """m_i = f_true − the largest other f, shape (M, n)."""
    weights: Tensor
    """w_i = 1 − q_i, shape (M, n)."""
    kernel: Tensor
    """K_ij = ∇m_i · ∇m_j, shape (M, n, n)."""

    def curvature_ratio(self, mask: Tensor | None = None) -> Tensor:
        """κ = λ_max(W K W) Σw / (wᵀ K w) with W = diag √w: the sharpness over ‖g‖²/L, the rate at which L decays.

        It is at least 1, and 1 if √w is the top eigenvector of W K W. Gradients of margins that oppose each other, as
        those of two classes that are each other's rival do, cancel in the gradient but add up in the Hessian.

        Args:
            mask: Entries of K to keep, shape (M, n, n); all by default.

        Returns:
            Shape (M,).
        """
        kernel = self.kernel if mask is None else self.kernel * mask
        roots = self.weights.sqrt()
        top = torch.linalg.eigvalsh(roots.unsqueeze(2) * kernel * roots.unsqueeze(1))[:, -1]
        return top * self.weights.sum(1) / torch.einsum("mi,mij,mj->m", self.weights, kernel, self.weights)


def margin_kernel(problem: Problem) -> MarginKernel:
    """Compute the margins of every network, their weights in the gradient of cross-entropy, and their tangent kernel.

    Args:
        problem: M networks and their data.

    Returns:
        The margins and their kernel.

    Reference:
        Lyu & Li (2020) for the part of margins in homogeneous networks.
    """
    sigma = problem.sigma
    preactivations, activations = forward(problem.weights, problem.biases, problem.inputs, sigma)
    outputs, targets = preactivations[-1], problem.targets
    rivals = outputs.masked_fill(targets > 0, -torch.inf).argmax(1)
    direction = targets - torch.nn.functional.one_hot(rivals, targets.shape[1]).mT
    residuals = backward(problem.weights, preactivations, activations, direction, sigma)
    # ∂m_i/∂W_l = r_i a_iᵀ, and ∂m_i/∂b_l = r_i where there are biases.
    biased = bool(problem.biases)
    kernel = sum((r.mT @ r) * (a.mT @ a + biased) for r, a in zip(residuals, activations, strict=True))
    weights = 1 - (torch.softmax(outputs, 1) * targets).sum(1)
    return MarginKernel((outputs * direction).sum(1), weights, kernel)


class CurvatureFactors(NamedTuple):
    """What Theorem 6 compares in M classifiers of n samples under cross-entropy."""

    gauss_newton: Tensor
    """λ_max of the Gauss-Newton matrix (1/n) Σ_i J_iᵀ S_i J_i, shape (M,)."""
    jacobian: Tensor
    """λ_max(JᵀJ/n), shape (M,)."""
    softmax: Tensor
    """λ_max(S_i) of each sample, shape (M, n)."""
    largest_variance: Tensor
    """M_i = max_k p_k (1 − p_k) of each sample, shape (M, n)."""
    correct: Tensor
    """q_i, shape (M, n)."""

    @property
    def published_bound(self) -> Tensor:
        """λ_max(JᵀJ/n) max_i q_i (1 − q_i), shape (M,): Theorem 6, which is not true in general."""
        return self.jacobian * (self.correct * (1 - self.correct)).amax(1)

    @property
    def proved_bound(self) -> Tensor:
        """λ_max(JᵀJ/n) max_i 2 M_i, shape (M,), which holds as λ_max(S_i) ≤ 2 M_i."""
        return self.jacobian * 2 * self.largest_variance.amax(1)


def curvature_factors(problem: Problem) -> CurvatureFactors:
    """Compute both sides of Theorem 6's inequality.

    Args:
        problem: M networks under cross-entropy and their data; float64 is advised.

    Returns:
        The factors.

    Raises:
        ArithmeticError: If an eigenvalue iteration does not converge.
    """
    p = probabilities(problem)
    # Under squared error the Gauss-Newton matrix is 2/(nK) JᵀJ.
    tops = [sharpness(problem, gauss_newton=True), sharpness(problem.under(loss="mse"), gauss_newton=True)]
    if not all(bool(top.converged.all()) for top in tops):
        raise ArithmeticError("Lanczos has not converged")
    return CurvatureFactors(
        tops[0].value,
        tops[1].value * problem.widths[-1] / 2,
        softmax_sharpness(p),
        (p * (1 - p)).amax(1),
        (p * problem.targets).sum(1),
    )
