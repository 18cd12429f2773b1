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
        start: Start vectors (M, P). They need a share of the eigenvectors that are sought: a random vector has it,
            and takes the place of those that are zero or not finite.
        count: k, at most P.
        smallest: Whether the smallest eigenvalues are sought instead of the largest.
        tolerance: Residual at which to stop, relative to the largest |λ|.
        iterations: Largest number of products for each pair.

    Returns:
        The eigenpairs, converged or not; NaN, and not converged, for matrices that are not finite or whose products
        overflow or underflow. An eigenvalue that is repeated is found as often as it is sought: each pair is searched
        for in the space orthogonal to those before it, and a start vector's part in that space is refreshed.

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
    found, pairs, begin = start.new_empty(len(start), 0, size), [], start
    for number in range(count):
        pair, following = _largest(lambda v: sign * product(v), begin, found, tolerance, iterations)
        pairs.append(pair)
        found = torch.cat([found, pair.vector.unsqueeze(1)], 1)
        begin = following + _random(start, seed=number + 1)  # what one Krylov space cannot see, such as its copies
    values, residuals, converged = (torch.stack([p[i] for p in pairs], 1) for i in (0, 2, 3))
    order = values.argsort(1, descending=True)
    # A vector is orthogonal to those found before it, of which H v has a part as large as their residuals.
    residuals = residuals.square().cumsum(1).sqrt()
    values, residuals, converged = (x.gather(1, order) for x in (values, residuals, converged))
    vectors = found.gather(1, order.unsqueeze(2).expand_as(found))
    return Eigenpairs(sign * values, vectors, residuals, converged)


def _largest(
    product: Callable[[Tensor], Tensor], start: Tensor, found: Tensor, tolerance: float, iterations: int
) -> tuple["Sharpness", Tensor]:
    """Find the largest eigenvalue of each matrix in the space orthogonal to vectors found before, shape (M, k, P).

    Each matrix's numbers are those of the step at which it has converged, whatever the others need.

    Returns:
        The eigenpair, and a vector (M, P) from which to search for the next.
    """
    size = start.shape[1]
    steps = min(iterations, size - found.shape[1])
    basis = start.new_empty(len(start), steps, size)
    ritz = start.new_zeros(len(start), 2, steps)
    largest, value, residual = start.new_zeros(len(start)), *start.new_full((2, len(start)), torch.nan)
    broken = done = torch.zeros(len(start), dtype=torch.bool, device=start.device)
    diagonal, off_diagonal = [], []
    length = start.norm(dim=1, keepdim=True)
    following = torch.where(length.isfinite() & (length > 0), start / length, _random(start))
    if found.shape[1]:
        following = _orthogonalise(following, found)
        following = following / following.norm(dim=1, keepdim=True)
    for step in range(1, steps + 1):
        basis[:, step - 1] = following
        span = torch.cat([found, basis[:, :step]], 1) if found.shape[1] else basis[:, :step]
        vector = product(following)
        diagonal.append((vector * following).sum(1))
        vector = _orthogonalise(vector, span)
        norm = vector.norm(dim=1)
        broken = broken | ~(norm.isfinite() & diagonal[-1].isfinite())  # overflow, or a diverged network
        largest = torch.maximum(largest, diagonal[-1].abs() + norm)
        # Where squares underflow, a norm of zero tells nothing.
        broken = broken | ((largest > 0) & (largest < torch.finfo(norm.dtype).tiny ** 0.5))
        exhausted = norm <= torch.finfo(norm.dtype).eps * size * largest  # the start vectors lie in an invariant space
        norm = norm.masked_fill(exhausted, 0.0)
        if step % 3 == 0 or step == steps:
            tridiagonal = torch.diag_embed(torch.stack(diagonal, 1))
            if off_diagonal:
                beside = torch.diag_embed(torch.stack(off_diagonal, 1), 1)
                tridiagonal = tridiagonal + beside + beside.mT
            values, vectors = torch.linalg.eigh(tridiagonal.masked_fill(broken.view(-1, 1, 1), 0.0))
            going = ~done & ~broken
            value = torch.where(going, values[:, -1], value)
            residual = torch.where(going, norm * vectors[:, -1, -1].abs(), residual)
            top = torch.nn.functional.pad(vectors[:, :, -2:].mT, (0, steps - step, max(0, 2 - step), 0))
            ritz = torch.where(going.view(-1, 1, 1), top, ritz)
            done = done | going & (residual <= tolerance * values.abs().amax(1))
            if (done | broken).all():
                break
        off_diagonal.append(norm)
        following = vector / norm.unsqueeze(1)
        if exhausted.any() and step < steps:  # go on in the rest of the space
            fresh = _orthogonalise(_random(vector, seed=step), span)
            following = torch.where(exhausted.unsqueeze(1), fresh / fresh.norm(dim=1, keepdim=True), following)
    second, first = torch.bmm(ritz[:, :, :step], basis[:, :step]).unbind(1)
    missing = broken & ~done
    value, residual = value.masked_fill(missing, torch.nan), residual.masked_fill(missing, torch.nan)
    return Sharpness(value, first.masked_fill(missing.unsqueeze(1), torch.nan), residual, done), second


def _orthogonalise(vector: Tensor, span: Tensor) -> Tensor:
    """Subtract from vectors (M, P) their part in the span of orthonormal vectors (M, k, P)."""
    for _ in range(2):  # once leaves a remainder of the order of the rounding error times the condition number
        vector = vector - torch.bmm(torch.bmm(span, vector.unsqueeze(2)).mT, span).squeeze(1)
    return vector


def _random(like: Tensor, seed: int = 0) -> Tensor:
    """Return one random unit vector (P,) from a fixed seed for each of M matrices, (M, P)."""
    generator = torch.Generator().manual_seed(seed)
    vector = torch.randn(like.shape[1], generator=generator, dtype=torch.float64, device="cpu").to(like)
    return (vector / vector.norm()).expand_as(like)


def sharpness(
    problem: Problem,
    *,
    start: Tensor | None = None,
    tolerance: float = 1e-8,
    iterations: int = 200,
    gauss_newton: bool = False,
) -> Sharpness:
    """Compute the largest eigenvalue of the Hessian of every network.

    Args:
        problem: M networks, their data and loss; float64 is advised.
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

    >>> from conslaw import draw
    >>> round(sharpness(draw([42])).value.item(), 5)
    5.77639
    """
    random = _random(torch.cat([p.flatten(1) for p in problem.parameters], 1))
    begin = random if start is None else start + 0.01 * random
    product = hessian_vector_product(problem, gauss_newton=gauss_newton)
    return Sharpness(*(x[:, 0] for x in lanczos(product, begin, tolerance=tolerance, iterations=iterations)))


class SharpnessObserver:
    """An observable of `gradient_descent`: the sharpness at every recorded time, started from the last eigenvectors.

    It returns (J,): λ_max, or NaN where the iteration has not converged.
    """

    def __init__(self, tolerance: float = 1e-4, dtype: str | torch.dtype | None = None):
        """Start without eigenvectors.

        Args:
            tolerance: Relative residual r; the eigenvalue's relative error is at most r, and of the order of r² over
                the relative gap to the next eigenvalue.
            dtype: Of the iteration; by default that of the networks. A residual of 1e-3 needs no more than float32.
        """
        self._tolerance, self._dtype = tolerance, dtype
        self._runs = self._vectors = None

    def __call__(self, networks: Problem) -> Tensor:
        """Compute the sharpness of the present networks."""
        earlier = networks.places_in(self._runs)
        start = None if earlier is None else self._vectors[earlier.to(self._vectors.device)]
        top = sharpness(networks.to(self._dtype), start=start, tolerance=self._tolerance)
        self._runs, self._vectors = networks.runs, top.vector
        return torch.where(top.converged, top.value, torch.nan)
