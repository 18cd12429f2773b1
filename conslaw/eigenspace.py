"""The leading eigenvectors of the Hessian followed along a path of weights, all of them together.

Lanczos (`eigenvalues`) finds one eigenvector after the other from a vector that knows nothing. Along a path the
eigenvectors of a moment ago span nearly the same space, and a block that starts from them is done in a few products.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from conslaw.eigenvalues import Eigenpairs

__all__ = ["follow_eigenpairs"]


def follow_eigenpairs(
    product: Callable[[Tensor], Tensor],
    start: Tensor,
    count: int | None = None,
    *,
    tolerance: float = 1e-6,
    iterations: int = 30,
) -> Eigenpairs:
    """Compute the k largest eigenpairs of M symmetric matrices from k vectors near them: Davidson's block iteration.

    Rayleigh and Ritz' method in the span of the start vectors, and of the residuals of all iterations: without
    preconditioner, the span is that of a block Lanczos iteration.

    Args:
        product: Function V ↦ H V from (M, k, P) to (M, k, P), for any k, row by row.
        start: k linearly independent vectors for each matrix, (M, k, P).
        count: How many of the k must converge; the others are there to keep what rises from below in the span, and
            speed up the convergence of the first. By default all.
        tolerance: Residual at which to stop, relative to the largest |λ|.
        iterations: Largest number of products with blocks.

    Returns:
        All k pairs, with their residuals, converged or not. An eigenvector orthogonal to the whole span is not seen:
        add a random vector to the start vectors where one might have risen.

    >>> matrix = torch.diag(torch.arange(1.0, 51)).double()
    >>> start = torch.eye(50).double()[None, -2:] + 0.01
    >>> follow_eigenpairs(lambda v: v @ matrix, start).values.round()
    tensor([[50., 49.]], dtype=torch.float64)
    """
    block, size = start.shape[1:]
    count = block if count is None else count
    basis = torch.linalg.qr(start.mT).Q.mT
    images = product(basis)
    for iteration in range(iterations):
        values, mixing = torch.linalg.eigh((basis @ images.mT + images @ basis.mT) / 2)
        values, mixing = values.flip(1), mixing.flip(2)
        largest, top = values.abs().amax(1, keepdim=True), mixing[:, :, :block].mT
        vectors, moved = top @ basis, top @ images
        values = values[:, :block]
        rests = moved - values.unsqueeze(2) * vectors
        residuals = rests.norm(dim=2)
        converged = residuals <= tolerance * largest
        if converged[:, :count].all() or iteration == iterations - 1 or basis.shape[1] + block > size:
            break
        for _ in range(2):  # once leaves a remainder as large as the rounding errors over the residuals
            rests = rests / rests.norm(dim=2, keepdim=True).clamp(min=torch.finfo(rests.dtype).tiny)
            rests = rests - (rests @ basis.mT) @ basis
        fresh = torch.linalg.qr(rests.mT).Q.mT
        basis, images = torch.cat([basis, fresh], 1), torch.cat([images, product(fresh)], 1)
    return Eigenpairs(values, vectors, residuals, converged)
