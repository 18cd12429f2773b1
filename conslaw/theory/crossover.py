"""The spectral theory of S(η): sums of geometric series over the eigenmodes of a frozen Hessian.

With the gradient g_t = (I − ηH)^t g_0 of a quadratic loss, S(η) = Σ_t g_tᵀ D g_t, where D is −1 for the parameters of
W_1 and +1 for those of W_2. In the eigenbasis of H this is a sum over pairs of modes, Σ_jk c_jk Σ_t (ρ_j ρ_k)^t with
ρ_k = 1 − ηλ_k and c_jk = a_j a_k (v_jᵀ D v_k), a_k = v_kᵀ g_0. The paper's crossover formula keeps the terms j = k and
takes c_k ∝ a_k².
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from conslaw.hessian import dense_hessian, gradient_vector
from conslaw.problems import Problem

__all__ = [
    "HessianModes",
    "crossover_sum",
    "geometric_sum",
    "hessian_modes",
    "layer_signs",
    "pair_coefficients",
    "pair_sum",
    "projection_coefficients",
    "published_crossover_sum",
]


def geometric_sum(complement: Tensor, steps: int) -> Tensor:
    """Σ_{t<T} q^t = (1 − q^T) / (1 − q) without cancellation, for q = 1 − x.

    Args:
        complement: x = 1 − q, any shape.
        steps: T.

    Returns:
        Same shape. T where x = 0; infinite where q^T overflows.

    >>> geometric_sum(torch.tensor([0.0, 0.5, 1.0, 2.0], dtype=torch.float64), 3)
    tensor([3.0000, 1.7500, 1.0000, 1.0000], dtype=torch.float64)
    """
    ratio = 1 - complement
    # For q near 1 the logarithm comes from x itself; elsewhere 1 − q^T has nothing to cancel.
    near = complement.abs() < 0.5
    numerator = torch.where(
        near, -torch.expm1(steps * torch.log1p(-torch.where(near, complement, 0))), 1 - ratio.pow(steps)
    )
    constant = complement.abs() < torch.finfo(complement.dtype).tiny  # 0, or so small that its logarithm is lost
    return torch.where(constant, float(steps), numerator / torch.where(constant, 1, complement))


def _rates(learning_rates: float | Sequence[float] | Tensor, like: Tensor) -> Tensor:
    return torch.as_tensor(learning_rates, dtype=torch.float64, device=like.device).reshape(-1, 1, 1)


def crossover_sum(
    learning_rates: float | Sequence[float] | Tensor, eigenvalues: Tensor, coefficients: Tensor, steps: int
) -> Tensor:
    """The crossover formula S(η) = Σ_k c_k (1 − ρ_k^{2T}) / [ηλ_k (2 − ηλ_k)], ρ_k = 1 − ηλ_k.

    A mode contributes c_k T while ηλ_k T ≪ 1 and c_k / (2 ηλ_k) once it has converged; a negative eigenvalue grows
    like ρ^{2T}. For ηλ_k ≥ 2 gradient descent leaves the quadratic model at once and the formula says nothing.

    Args:
        learning_rates: η, R of them.
        eigenvalues: λ_k, shape (M, P).
        coefficients: c_k, shape (M, P).
        steps: T.

    Returns:
        S, shape (R, M), float64; NaN outside the formula's domain, where a mode with c_k ≠ 0 has ηλ_k ≥ 2.

    Source:
        Theorem 4 of the paper.
    """
    product = _rates(learning_rates, eigenvalues) * eigenvalues.double()
    terms = coefficients * geometric_sum(product * (2 - product), steps)
    used = coefficients != 0
    outside = (used & (product >= 2)).any(2)
    return torch.where(used, terms, 0.0).sum(2).masked_fill(outside, torch.nan)


def published_crossover_sum(
    learning_rates: float | Sequence[float] | Tensor, eigenvalues: Tensor, coefficients: Tensor, steps: int
) -> Tensor:
    """The crossover formula as the published scripts evaluate it.

    Modes with λ < 1e-12 are skipped, negative ones with them, and modes with ηλ ≥ 2 contribute c_k T / |ηλ (2 − ηλ)|.

    Args:
        learning_rates: η, R of them.
        eigenvalues: λ_k, shape (M, P).
        coefficients: c_k, shape (M, P).
        steps: T.

    Returns:
        S, shape (R, M), float64.
    """
    product = _rates(learning_rates, eigenvalues) * eigenvalues.double()
    complement = product * (2 - product)
    sums = torch.where(product < 2, geometric_sum(complement, steps), steps / complement.abs().clamp_min(1e-12))
    return torch.where(eigenvalues >= 1e-12, coefficients * sums, 0.0).sum(2)


def projection_coefficients(projections: Tensor, imbalance: Tensor) -> Tensor:
    """The published c_k = |δ(0)| a_k² / Σ_j a_j² with a_k = v_kᵀ g: positive, and of the right sum, by construction.

    Args:
        projections: a_k, shape (M, P).
        imbalance: δ(0), shape (M,).

    Returns:
        c_k, shape (M, P).
    """
    squares = projections.square()
    return imbalance.abs().unsqueeze(1) * squares / squares.sum(1, keepdim=True)


class HessianModes(NamedTuple):
    """Eigenpairs of the Hessian of each of M networks with one hidden layer, and the gradient in their basis."""

    eigenvalues: Tensor
    """λ_k, ascending, shape (M, P)."""
    eigenvectors: Tensor
    """v_k in columns, shape (M, P, P)."""
    projections: Tensor
    """a_k = v_kᵀ g, shape (M, P)."""
    coefficients: Tensor
    """The published c_k = |δ| a_k² / Σ_j a_j², shape (M, P)."""


def hessian_modes(problem: Problem) -> HessianModes:
    """Compute what the published evaluation of the crossover formula takes from a network: its Hessian and gradient.

    Args:
        problem: M networks with one hidden layer and their data.

    Returns:
        The modes.
    """
    eigenvalues, eigenvectors = torch.linalg.eigh(dense_hessian(problem).matrix)
    gradient = gradient_vector(problem)
    imbalance = (layer_signs(problem) * gradient**2).sum(1)
    projections = torch.einsum("mp,mpk->mk", gradient, eigenvectors)
    return HessianModes(eigenvalues, eigenvectors, projections, projection_coefficients(projections, imbalance))


def layer_signs(problem: Problem) -> Tensor:
    """The diagonal of D for two layers: −1 for each parameter of W_1, +1 for each of W_2, so that δ = gᵀ D g.

    Args:
        problem: Networks with two weight matrices and no biases.

    Returns:
        Shape (P,).

    Raises:
        ValueError: If the networks are deeper or have biases.
    """
    first, second = problem.two_layers()
    return torch.cat([-torch.ones_like(first[0]).flatten(), torch.ones_like(second[0]).flatten()])


def pair_coefficients(gradient: Tensor, eigenvectors: Tensor, signs: Tensor) -> Tensor:
    """The exact split of δ(0) over pairs of modes, c_jk = a_j a_k (v_jᵀ D v_k), of either sign.

    Args:
        gradient: g, shape (M, P).
        eigenvectors: v_k in columns, shape (M, P, k).
        signs: Diagonal of D, shape (P,).

    Returns:
        c_jk, shape (M, k, k). If the v_k span g, the sum over j and k is δ(0), and that over j alone is each mode's
        own share a_k (v_kᵀ D g).
    """
    weighted = eigenvectors * torch.einsum("mp,mpk->mk", gradient, eigenvectors).unsqueeze(1)
    return weighted.mT @ (signs.unsqueeze(1) * weighted)


def pair_sum(
    learning_rates: float | Sequence[float] | Tensor, eigenvalues: Tensor, coefficients: Tensor, steps: int
) -> Tensor:
    """S(η) = Σ_jk c_jk (1 − (ρ_j ρ_k)^T) / (1 − ρ_j ρ_k): the crossover formula without the assumption of independence.

    It is exact for a quadratic loss. Applied to the Gauss-Newton matrix under squared error it is gradient descent with
    the tangent kernel of the initialisation.

    Args:
        learning_rates: η, R of them.
        eigenvalues: λ_k, shape (M, k).
        coefficients: c_jk, shape (M, k, k).
        steps: T.

    Returns:
        S, shape (R, M), float64; NaN where some mode with a coefficient has ηλ_k ≥ 2.
    """
    rates = _rates(learning_rates, eigenvalues).flatten()
    sums = torch.full((len(rates), len(eigenvalues)), torch.nan, dtype=torch.float64, device=eigenvalues.device)
    for network, (values, weights) in enumerate(zip(eigenvalues.double(), coefficients, strict=True)):
        used = weights.abs().amax(0) > 1e-16 * weights.abs().max()  # most modes have no share of the gradient
        values, weights = values[used], weights[used][:, used]
        for index, rate in enumerate(rates):
            product = rate * values
            if (product < 2).all():
                complement = product.unsqueeze(1) + product - product.unsqueeze(1) * product
                sums[index, network] = (weights * geometric_sum(complement, steps)).sum()
    return sums
