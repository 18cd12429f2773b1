"""Extreme eigenvalues of the Hessian of large networks, the sharpness above all, by a batched Lanczos iteration.

No number comes without its residual: ‖H v − λ v‖ for the unit vector v bounds the distance to an eigenvalue.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from conslaw.hessian import hessian_vector_product
from conslaw.problems import Problem

__all__ = ["Eigenpairs", "Sharpness", "SharpnessObserver", "lanczos", "sharpness"]


class Eigenpairs(NamedTuple):
    """The k largest, or smallest, eigenvalues of each of M symmetric matrices."""

    values: Tensor
    """λ, shape (M, k): descending where the largest were asked for, else ascending."""
    vectors: Tensor
    """Unit eigenvectors v, shape (M, k, P)."""
    residuals: Tensor
    """‖H v − λ v‖, shape (M, k): some eigenvalue lies this close to λ."""
    converged: Tensor
    """Whether the residual is below the tolerance times the largest |λ| found, shape (M, k)."""


class Sharpness(NamedTuple):
    """Largest Hessian eigenvalue of each of M networks."""

    value: Tensor
    """λ_max, shape (M,)."""
    vector: Tensor
    """Unit eigenvector, shape (M, P)."""
    residual: Tensor
    """‖H v − λ_max v‖, shape (M,)."""
    converged: Tensor
    """Whether the residual is below the tolerance times the largest |λ| found, shape (M,)."""


def lanczos(
    product: Callable[[Tensor], Tensor],
    start: Tensor,
    count: int = 1,
    *,
    smallest: bool = False,
    tolerance: float = 1e-8,
    iterations: int = 200,
) -> Eigenpairs:
    """Compute extreme eigenpairs of M symmetric matrices by Lanczos with full reorthogonalisation.

    Args:
        product: Function v ↦ H v from (M, P) to (M, P).
        start: Start vectors (M, P). They need a share of every eigenvector that is sought: a random vector has it.
        count: k, at most P.
        smallest: Whether the smallest eigenvalues are sought instead of the largest.
        tolerance: Residual at which to stop, relative to the largest |λ|.
        iterations: Largest number of products.

    Returns:
        The eigenpairs, converged or not; NaN for matrices that are not finite.

    Raises:
        ValueError: If `count` is not between 1 and P, or larger than `iterations`.

    Reference:
        Golub & Van Loan, Matrix Computations, §10.1.

    >>> matrix = torch.diag(torch.arange(1.0, 51)).double()
    >>> lanczos(lambda v: v @ matrix, torch.ones(1, 50).double(), 2).values.round()
    tensor([[50., 49.]], dtype=torch.float64)
    """
    size = start.shape[1]
    if not 1 <= count <= min(size, iterations):
        raise ValueError(f"count must be from 1 to {min(size, iterations)}, got {count}")
    sign = -1.0 if smallest else 1.0
    steps = min(iterations, size)
    basis = start.new_empty(len(start), steps, size)
    diagonal, off_diagonal, largest = [], [], start.new_zeros(len(start))
    following = start / start.norm(dim=1, keepdim=True)
    for step in range(1, steps + 1):
        basis[:, step - 1] = following
        vector = sign * product(following)
        diagonal.append((vector * following).sum(1))
        span = basis[:, :step]
        vector = _orthogonalise(vector, span)
        norm = vector.norm(dim=1)
        largest = torch.maximum(largest, diagonal[-1].abs() + norm)
        exhausted = norm <= torch.finfo(norm.dtype).eps * size * largest  # the start vectors lie in an invariant space
        norm = norm.masked_fill(exhausted, 0.0)
        if step >= count and (step % 3 == 0 or step == steps):
            tridiagonal = torch.diag_embed(torch.stack(diagonal, 1))
            if off_diagonal:
                beside = torch.diag_embed(torch.stack(off_diagonal, 1), 1)
                tridiagonal = tridiagonal + beside + beside.mT
            broken = ~tridiagonal.isfinite().all((1, 2), keepdim=True)  # such as those of diverged networks
            values, vectors = torch.linalg.eigh(tridiagonal.masked_fill(broken, 0.0))
            values = values.masked_fill(broken.squeeze(2), torch.nan)
            scale = values.abs().amax(1, keepdim=True)
            values, vectors = values.flip(1)[:, :count], vectors.flip(2)[:, :, :count]
            residuals = norm.unsqueeze(1) * vectors[:, -1].abs()
            converged = residuals <= tolerance * scale
            if (converged | broken.squeeze(2)).all():
                break
        off_diagonal.append(norm)
        following = vector / norm.unsqueeze(1)
        if exhausted.any() and step < size:  # go on in the rest of the space
            fresh = _orthogonalise(_random(vector, seed=step), span)
            following = torch.where(exhausted.unsqueeze(1), fresh / fresh.norm(dim=1, keepdim=True), following)
    return Eigenpairs(sign * values, torch.bmm(vectors.mT, span), residuals, converged)


def _orthogonalise(vector: Tensor, span: Tensor) -> Tensor:
    """Subtract from vectors (M, P) their part in the span of orthonormal vectors (M, k, P)."""
    for _ in range(2):  # once leaves a remainder of the order of the rounding error times the condition number
        vector = vector - torch.bmm(torch.bmm(span, vector.unsqueeze(2)).mT, span).squeeze(1)
    return vector


def _random(like: Tensor, seed: int = 0) -> Tensor:
    """Return one random unit vector (P,) from a fixed seed for each of M matrices, (M, P)."""
    vector = torch.randn(like.shape[1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(like)
    return (vector / vector.norm()).expand_as(like)


def sharpness(
    problem: Problem,
    loss: str | float = "cross_entropy",
    activation: str | float = "relu",
    *,
    start: Tensor | None = None,
    tolerance: float = 1e-8,
    iterations: int = 200,
    gauss_newton: bool = False,
) -> Sharpness:
    """Compute the largest eigenvalue of the Hessian of every network.

    Args:
        problem: M networks and their data; float64 is advised.
        loss: As in `gradient_descent`.
        activation: As in `gradient_descent`.
        start: Vectors (M, P) to start from, such as the eigenvectors a few steps earlier in training: that saves most
            of the products. A little of a random vector is added, so that another eigenvector that has risen to the
            top is found. By default the random vector alone, from a fixed seed.
        tolerance: Relative residual at which to stop.
        iterations: Largest number of Hessian-vector products.
        gauss_newton: Whether the Gauss-Newton matrix takes the place of the Hessian.

    Returns:
        The sharpness with its residual.

    Reference:
        2/η is the sharpness at the edge of stability (Cohen et al. 2021).
    """
    random = _random(torch.cat([p.flatten(1) for p in problem.parameters], 1))
    begin = random if start is None else start + 0.01 * random
    product = hessian_vector_product(problem, loss, activation, gauss_newton=gauss_newton)
    return Sharpness(*(x[:, 0] for x in lanczos(product, begin, tolerance=tolerance, iterations=iterations)))


class SharpnessObserver:
    """An observable of `gradient_descent`: the sharpness at every recorded time, started from the last eigenvectors.

    It returns (J,): λ_max, or NaN where the iteration has not converged.
    """

    def __init__(
        self,
        loss: str | float = "cross_entropy",
        activation: str | float = "relu",
        tolerance: float = 1e-4,
        dtype: torch.dtype | None = None,
    ):
        """Start without eigenvectors.

        Args:
            loss: As in `gradient_descent`.
            activation: As in `gradient_descent`.
            tolerance: Relative residual; the eigenvalue's relative error is of the order of its square.
            dtype: Of the iteration; by default that of the networks. A residual of 1e-3 needs no more than float32.
        """
        self._dtype = dtype
        self._options = {"loss": loss, "activation": activation, "tolerance": tolerance}
        self._inputs = self._vectors = None

    def __call__(self, networks: Problem) -> Tensor:
        """Compute the sharpness of the present networks."""
        start = self._vectors if self._inputs is networks.inputs else None
        top = sharpness(networks.to(self._dtype), start=start, **self._options)
        self._inputs, self._vectors = networks.inputs, top.vector
        return torch.where(top.converged, top.value, torch.nan)
