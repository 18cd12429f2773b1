"""Data modes: the eigenvectors u_k of the inputs' second moments X Xᵀ/n, in which linear networks nearly decouple.

For one mode with L = ½ λ_x (σ_2 σ_1 − σ*)² the imbalance is exactly e² λ_x² (σ_1² − σ_2²) with the error
e = σ_2 σ_1 − σ*. The paper's mode coefficients are c_k ∝ e_k² λ_{x,k}².
"""

from typing import NamedTuple

import torch
from torch import Tensor

from conslaw.networks import forward
from conslaw.problems import Problem

__all__ = ["DataModes", "data_modes", "linear_modes", "share_distance"]


class DataModes(NamedTuple):
    """The d data modes of each of M networks with one hidden layer."""

    eigenvalues: Tensor
    """λ_{x,k} of X Xᵀ/n, uncentred, descending, shape (M, d)."""
    error: Tensor
    """e_k² = ‖W_eff u_k − Y Xᵀ u_k / (n λ_{x,k})‖²: the distance from the mode's regression coefficients, (M, d)."""
    published_error: Tensor
    """The same without the division by λ_{x,k}, as in the published scripts, shape (M, d)."""
    first: Tensor
    """σ_1² = ‖W_1 u_k‖², shape (M, d)."""
    imbalance: Tensor
    """δ_k = ‖W_1 u_k‖² ‖r_k‖² − ‖W_2ᵀ r_k‖² with r_k = (∂L/∂W_eff) u_k under squared error, for linear networks:
    the exact share of ‖g_1‖², and the part of ‖g_2‖² without cross terms between modes, shape (M, d)."""

    @property
    def published_coefficients(self) -> Tensor:
        """e_k² λ_{x,k}² with the published target, shape (M, d)."""
        return self.published_error * self.eigenvalues**2

    @property
    def coefficients(self) -> Tensor:
        """e_k² λ_{x,k}² with the right target: for linear networks ‖r_k‖² up to the factor 4/K², shape (M, d)."""
        return self.error * self.eigenvalues**2


def data_modes(problem: Problem) -> DataModes:
    """Compute the data modes and how far the networks are from solving each of them.

    Args:
        problem: M networks with one hidden layer, without biases. Their effective map is W_eff = W_2 diag(share of
            samples with an open gate) W_1; of linear networks W_2 W_1.

    Returns:
        The modes.

    Raises:
        ValueError: If the networks are deeper or have biases.

    Source:
        Theorem 5 of the paper; for the target, the regression coefficients Y Xᵀ (X Xᵀ)⁻¹ it defines.
    """
    first, second = problem.two_layers()
    samples, classes = problem.samples, second.shape[1]
    sigma = problem.sigma
    preactivations, activations = forward(problem.weights, (), problem.inputs, sigma)
    slopes = sigma.gradient(torch.ones_like(preactivations[0]), preactivations[0], activations[1])
    effective = second @ (slopes.mean(2, keepdim=True) * first)
    eigenvalues, vectors = torch.linalg.eigh(problem.inputs @ problem.inputs.mT / samples)
    eigenvalues, vectors = eigenvalues.flip(1), vectors.flip(2)
    effective, cross = effective @ vectors, problem.targets @ problem.inputs.mT @ vectors / samples  # (M, K, d)
    residual = (2 / classes) * (effective * eigenvalues.unsqueeze(1) - cross)
    carried = (first @ vectors).square().sum(1)
    return DataModes(
        eigenvalues,
        (effective - cross / eigenvalues.unsqueeze(1)).square().sum(1),
        (effective - cross).square().sum(1),
        carried,
        carried * residual.square().sum(1) - (second.mT @ residual).square().sum(1),
    )


def linear_modes(problem: Problem) -> tuple[Tensor, Tensor]:
    """Rates and coefficients of the d K modes of linear networks under squared error, without Hessian or calibration.

    With r = ∂L/∂W_eff, s_k² = ‖W_1 u_k‖² and the eigenpairs (t_j², w_j) of W_2 W_2ᵀ, mode (j, k) decays at the rate
    λ_jk = (2/K) λ_{x,k} (s_k² + t_j²) and has the coefficient c_jk = (w_jᵀ r u_k)² (s_k² − t_j²). Used in
    `crossover_sum`, these give S(η). What is neglected is the coupling between modes and the change of s and t.

    Args:
        problem: M linear networks with one hidden layer, without biases.

    Returns:
        λ_jk and c_jk, each (M, d K).

    Raises:
        ValueError: If the networks are deeper or have biases.
    """
    first, second = problem.two_layers()
    classes, samples = second.shape[1], problem.samples
    eigenvalues, vectors = torch.linalg.eigh(problem.inputs @ problem.inputs.mT / samples)
    output_squares, output_vectors = torch.linalg.eigh(second @ second.mT)
    residual = (second @ first @ problem.inputs - problem.targets) @ problem.inputs.mT * (2 / (samples * classes))
    shares = (output_vectors.mT @ residual @ vectors).square()  # (M, K, d)
    carried = (first @ vectors).square().sum(1, keepdim=True)
    rates = (2 / classes) * eigenvalues.unsqueeze(1) * (carried + output_squares.unsqueeze(2))
    return rates.flatten(1), (shares * (carried - output_squares.unsqueeze(2))).flatten(1)


def share_distance(values: Tensor, reference: Tensor) -> Tensor:
    """Total-variation distance ½ Σ_k |v_k/Σv − r_k/Σr| of two lists of coefficients, mode by mode.

    Between lists of one sign it is 0 where all shares agree and 1 where no mode has a share in both. Where the terms of
    a list nearly cancel, its shares are large, and the distance may exceed 1.

    Args:
        values: Coefficients v_k of the modes, shape (…, d).
        reference: r_k, the same shape.

    Returns:
        Shape (…).

    >>> share_distance(torch.tensor([3.0, 1.0]), torch.tensor([2.0, 2.0]))
    tensor(0.2500)
    """
    return 0.5 * (values / values.sum(-1, True) - reference / reference.sum(-1, True)).abs().sum(-1)
