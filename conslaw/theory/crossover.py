"""The spectral theory of S(η): sums of geometric series over the eigenmodes of a frozen Hessian.

With the gradient g_t = (I − ηH)^t g_0 of a quadratic loss, S(η) = Σ_t g_tᵀ D g_t, where D is −1 for the parameters of
W_1 and +1 for those of W_2. In the eigenbasis of H this is a sum over pairs of modes, Σ_jk c_jk Σ_t (ρ_j ρ_k)^t with
ρ_k = 1 − ηλ_k and c_jk = a_j a_k (v_jᵀ D v_k), a_k = v_kᵀ g_0. The paper's crossover formula keeps the terms j = k and
takes c_k ∝ a_k².
"""

from collections.abc import Sequence
from typing import NamedTuple

import scipy
import torch
from torch import Tensor

from conslaw.hessian import dense_hessian, gradient_vector
from conslaw.losses import squared_error
from conslaw.networks import forward
from conslaw.problems import Problem

__all__ = [
    "HessianModes",
    "KernelModes",
    "crossover_sum",
    "geometric_sum",
    "hessian_modes",
    "kernel_modes",
    "kernel_pairs",
    "layer_signs",
    "pair_sum",
    "projection_coefficients",
    "published_crossover_sum",
    "spectrum",
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
    """Eigenvalues of the Hessian of each of M networks with one hidden layer, and its gradient in their modes v_k."""

    eigenvalues: Tensor
    """λ_k, ascending, shape (M, P)."""
    projections: Tensor
    """a_k = v_kᵀ g, shape (M, P)."""
    shares: Tensor
    """Each mode's own share of δ, Σ_j c_jk = a_k (v_kᵀ D g), of either sign, shape (M, P)."""
    coefficients: Tensor
    """The published c_k = |δ| a_k² / Σ_j a_j², shape (M, P)."""


def hessian_modes(problem: Problem) -> HessianModes:
    """Compute what the published evaluation of the crossover formula takes from a network: its Hessian and gradient.

    Args:
        problem: M networks with one hidden layer and their data.

    Returns:
        The modes.
    """
    gradient = gradient_vector(problem)
    vectors = torch.stack([gradient, layer_signs(problem) * gradient], 2)
    matrices = (dense_hessian(problem.select([i])).matrix[0] for i in range(len(problem)))  # large, so one by one
    spectra = [spectrum(*pair) for pair in zip(matrices, vectors, strict=True)]
    eigenvalues, products = (torch.stack(part) for part in zip(*spectra, strict=True))
    projections, signed = products.unbind(2)
    shares = projections * signed
    return HessianModes(eigenvalues, projections, shares, projection_coefficients(projections, shares.sum(1)))


def spectrum(matrix: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues λ_k of a symmetric matrix, and v_kᵀ x for some vectors x, without the eigenvectors v_k.

    With the tridiagonal form H = Q T Qᵀ and T = Z Λ Zᵀ the products are Zᵀ (Qᵀ x): that the matrices Q Z are not needed
    saves more than half of the time.

    Args:
        matrix: H, shape (P, P).
        vectors: x in columns, shape (P, k).

    Returns:
        λ_k, ascending, shape (P,), and the products, shape (P, k).

    >>> spectrum(torch.tensor([[0.0, 2.0], [2.0, 0.0]]), torch.tensor([[3.0], [3.0]]))[0]
    tensor([-2.,  2.])
    """
    symmetric, rotated = matrix.cpu().numpy().T, vectors.cpu().numpy().copy()
    sytrd, ormqr = scipy.linalg.get_lapack_funcs(("sytrd", "ormqr"), (symmetric,))
    blocked = 32 * len(symmetric)  # size of the work space
    reflectors, diagonal, off_diagonal, factors, _ = sytrd(symmetric, lower=1, lwork=blocked)
    rotated[1:] = ormqr("L", "T", reflectors[1:, :-1], factors, rotated[1:], blocked)[0]
    eigenvalues, of_tridiagonal = scipy.linalg.eigh_tridiagonal(diagonal, off_diagonal)
    return torch.as_tensor(eigenvalues).to(matrix), torch.as_tensor(of_tridiagonal.T @ rotated).to(matrix)


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


class KernelModes(NamedTuple):
    """Modes of the tangent kernel of each of M networks, and the split of squared gradient norms over them."""

    eigenvalues: Tensor
    """λ_k, ascending, shape (M, k)."""
    pairs: Tensor
    """c_jk, whose sum is δ(0), of either sign, shape (M, k, k)."""
    energies: Tensor
    """a_k², whose sum is ‖g(0)‖² = ‖g_1‖² + ‖g_2‖², shape (M, k)."""


def kernel_modes(problem: Problem) -> KernelModes:
    """The exact split of δ(0) and ‖g(0)‖² over modes of the Gauss-Newton matrix 2/(nK) JᵀJ, J = ∂f/∂θ, squared error.

    Its eigenvalues λ_k ≠ 0 are those of the tangent kernel 2/(nK) J Jᵀ, a smaller matrix. With the residual r = ∂L/∂f
    and the kernel's eigenvectors u_k, g = Jᵀr, c_jk = (u_jᵀr) (u_kᵀr) u_jᵀ (J D Jᵀ) u_k and a_k² = (u_kᵀr)² λ_k nK/2.
    With these `pair_sum` gives S(η) and `crossover_sum` Σ‖g‖² of gradient descent with the kernel of the
    initialisation, hence r(η) = S / Σ‖g‖².

    Args:
        problem: M networks with one hidden layer, without biases, under squared error.

    Returns:
        The n K modes; of linear networks as many as `Problem.reduced` leaves.

    Raises:
        ValueError: If the networks are deeper or have biases, or the loss is not squared error.
    """
    if problem.entropy_weight:
        raise ValueError(f"loss must be squared error, got {problem.loss!r}")
    problem = problem.reduced() if problem.is_linear_regression else problem
    _, second = problem.two_layers()
    inputs, sigma = problem.inputs, problem.sigma
    preactivations, activations = forward(problem.weights, (), inputs, sigma)
    hidden, outputs = activations[1], preactivations[1]
    slopes = sigma.gradient(torch.ones_like(hidden), preactivations[0], hidden)
    rows = torch.einsum("mkj,mji->mkij", second, slopes).flatten(1, 2)  # ∂f/∂z_1, (M, K n, m)
    classes = outputs.shape[1]
    of_first = rows @ rows.mT * (inputs.mT @ inputs).repeat(1, classes, classes)
    of_second = torch.kron(torch.eye(classes).to(inputs), hidden.mT @ hidden)
    scale = 2 / (problem.samples * classes)
    eigenvalues, vectors = torch.linalg.eigh((of_first + of_second) * scale)
    residual = squared_error(outputs, problem.targets, problem.samples)[1].flatten(1)
    projections = torch.einsum("mr,mrk->mk", residual, vectors)
    weighted = vectors * projections.unsqueeze(1)
    pairs = weighted.mT @ ((of_second - of_first) @ weighted)
    return KernelModes(eigenvalues, pairs, projections.square() * eigenvalues / scale)


def kernel_pairs(problem: Problem) -> tuple[Tensor, Tensor]:
    """λ_k and c_jk of `kernel_modes`, as `pair_sum` takes them."""
    return kernel_modes(problem)[:2]


def pair_sum(
    learning_rates: float | Sequence[float] | Tensor, eigenvalues: Tensor, coefficients: Tensor, steps: int
) -> Tensor:
    """S(η) = Σ_jk c_jk (1 − (ρ_j ρ_k)^T) / (1 − ρ_j ρ_k): the crossover formula without the assumption of independence.

    It is exact for a quadratic loss. With `kernel_pairs` it is gradient descent with the tangent kernel of the
    initialisation.

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
