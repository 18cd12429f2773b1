"""The linear complementarity problem over positive semidefinite matrices: 0 ⪯ X ⊥ βX − α ⪰ 0.

X is what minimises ½⟨X, βX⟩ − ⟨α, X⟩ over X ⪰ 0. At the edge of stability it is the covariance of the oscillation in
the eigenvectors at 2/η, just as large as it takes to stop their eigenvalues from rising further.
"""

import numpy as np

__all__ = ["solve_complementarity"]

ITERATIONS = 20
"""Most steps of Newton's method for one value of μ."""
PATH = (0.0, *(10.0**-n for n in range(17)), 0.0)
"""Values of μ in units of ‖α‖²: Newton's method alone, and where it fails along the central path down to μ = 0."""


def solve_complementarity(beta: np.ndarray, alpha: np.ndarray, *, tolerance: float = 1e-10) -> np.ndarray:
    """Find the symmetric X ⪰ 0 with S = βX − α ⪰ 0 and ⟨X, S⟩ = 0.

    With Z = X − S these are one equation, F(Z) = β Z₊ − α − Z₊ + Z = 0, where Z₊ is the projection on X ⪰ 0. Newton's
    method takes a few steps. Where it fails, X S = μ I takes the place of X S = 0, which makes F smooth: Z₊ has the
    eigenvalues ½(z + √(z² + 4μ)), and the solutions for falling μ lead to that for μ = 0.

    Args:
        beta: β, a symmetric positive semidefinite form on k × k matrices, shape (k, k, k, k): (βX)_ab = Σ β_abcd X_cd.
        alpha: α, symmetric, shape (k, k).
        tolerance: Error ‖F‖ at which to stop, relative to ‖α‖, with both in units in which β has the largest
            eigenvalue 1.

    Returns:
        X, shape (k, k).

    Raises:
        ValueError: If β or α has another shape, or is not finite.
        RuntimeError: If the tolerance is not reached; it names the error that is.

    Reference:
        Qi & Sun, A nonsmooth version of Newton's method (1993); Chen & Tseng, Non-interior continuation methods for
        semidefinite complementarity problems (2003).

    >>> solve_complementarity(np.full((1, 1, 1, 1), 2.0), np.array([[3.0]]))
    array([[1.5]])
    >>> solve_complementarity(np.full((1, 1, 1, 1), 2.0), np.array([[-3.0]]))
    array([[0.]])
    """
    count = len(alpha)
    if alpha.shape != (count, count) or beta.shape != (count,) * 4:
        raise ValueError(f"alpha must be (k, k) and beta (k, k, k, k), got {alpha.shape} and {beta.shape}")
    if not (np.isfinite(beta).all() and np.isfinite(alpha).all()):
        raise ValueError("alpha and beta must be finite, got values that are not")
    form = beta.reshape(count**2, count**2)
    scale = np.linalg.eigvalsh(form)[-1] or 1.0
    size = np.linalg.norm(alpha) / scale or 1.0
    identity = np.eye(count**2)
    transposed = identity.reshape((count,) * 4).swapaxes(0, 1).reshape(count**2, count**2)
    # Antisymmetric matrices do not matter, and are kept from making the equations singular.
    form, aim = form / scale + (identity - transposed) / 2, alpha.ravel() / scale / size

    def error(z: np.ndarray, mu: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """F(Z), Z₊ and the derivative of F."""
        values, vectors = np.linalg.eigh(z.reshape(count, count))
        root = np.sqrt(values**2 + 4 * mu)
        # ½(z + √(z² + 4μ)) without cancellation, and its divided differences.
        kept = np.where(values > 0, (values + root) / 2, 2 * mu / np.where(values > 0, 1, root - values + 1e-300))
        sums = root[:, None] + root
        slopes = (1 + (values[:, None] + values) / np.where(sums > 0, sums, 1)) / 2
        rotation = np.kron(vectors, vectors)
        projected = ((vectors * kept) @ vectors.T).ravel()
        derivative = (rotation * slopes.ravel()) @ rotation.T
        return form @ projected - aim - projected + z, projected, (form - identity) @ derivative + identity

    z = start = aim
    for mu in PATH:
        wanted = tolerance if mu == 0 else max(tolerance, mu / 10)
        now, x, slope = error(z, mu)
        for _ in range(ITERATIONS):
            left = np.linalg.norm(now)
            if left <= wanted:
                break
            step = np.linalg.lstsq(slope, -now)[0]
            tries = (z + 0.5**halvings * step for halvings in range(12))
            found = next(((t, e) for t in tries if np.linalg.norm((e := error(t, mu))[0]) < 0.99 * left), None)
            if found is None:
                break
            z, (now, x, slope) = found
        if mu == 0 and np.linalg.norm(now) <= wanted:
            return size * (x.reshape(count, count) + x.reshape(count, count).T) / 2
        if mu == 0:
            z = start
    raise RuntimeError(
        f"the complementarity problem is solved to {np.linalg.norm(now):.0e} of alpha, not to {tolerance:.0e}"
    )
