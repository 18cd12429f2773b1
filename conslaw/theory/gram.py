"""Linear networks of any width: gradient descent on two layers is closed in the Gram matrix of the weights.

Let Z = (W_1 | W_2ᵀ), shape (m, d + K), and E = ∂L/∂(W_2 W_1), shape (K, d). A step of gradient descent is
Z ← Z (I − ηQ), where Q has Eᵀ and E off its diagonal, and E depends on W_2 W_1 alone, a block of G = ZᵀZ. So
G ← (I − ηQ) G (I − ηQ), whatever the width m, and C = tr W_2W_2ᵀ − tr W_1ᵀW_1 is read off G.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from conslaw.problems import Problem

__all__ = ["GramNetworks", "gram_networks"]


class GramNetworks(NamedTuple):
    """M two-layer linear networks under squared error, as far as gradient descent and C see them; float64."""

    gram: Tensor
    """G = ZᵀZ with Z = (W_1 | W_2ᵀ), shape (M, d + K, d + K)."""
    covariance: Tensor
    """XXᵀ/n, shape (M, d, d)."""
    cross: Tensor
    """YXᵀ/n, shape (M, K, d)."""

    @property
    def conserved(self) -> Tensor:
        """C = ‖W_2‖² − ‖W_1‖², shape (M,)."""
        inputs, diagonal = self.covariance.shape[1], self.gram.diagonal(dim1=1, dim2=2)
        return diagonal[:, inputs:].sum(1) - diagonal[:, :inputs].sum(1)

    def _off_diagonal(self, block: Tensor) -> Tensor:
        """Matrices with Bᵀ and B, shape (…, K, d), off their diagonal."""
        whole = torch.zeros(*block.shape[:-2], *self.gram.shape[1:], dtype=block.dtype, device=block.device)
        inputs = block.shape[-1]
        whole[..., inputs:, :inputs], whole[..., :inputs, inputs:] = block, block.mT
        return whole

    def _steering(self) -> Tensor:
        """Q, from E = (2/K) (W_2W_1 XXᵀ/n − YXᵀ/n)."""
        classes, inputs = self.cross.shape[1:]
        product = self.gram[:, inputs:, :inputs]
        return self._off_diagonal(2 / classes * (product @ self.covariance - self.cross))

    def after(self, learning_rates: Tensor, steps: int) -> "GramNetworks":
        """Return the networks after some steps of gradient descent.

        Args:
            learning_rates: η of each network, shape (M,).
            steps: How many.
        """
        networks, rates = self, learning_rates.to(self.gram).view(-1, 1, 1)
        unit = torch.eye(self.gram.shape[1], dtype=self.gram.dtype, device=self.gram.device)
        for _ in range(steps):
            factor = unit - rates * networks._steering()
            networks = networks._replace(gram=factor @ networks.gram @ factor)
        return networks

    def sharpness(self) -> Tensor:
        """λ_max of the Hessian, shape (M,).

        A direction dZ = Z A stays of this form: H dZ = Z (F + A Q), where F has ∂E/∂(W_2W_1), applied to the change
        (AᵀG + GA)_21 of W_2W_1, off its diagonal; the eigenvalues of this map are computed. Directions orthogonal to Z
        have H dZ = dZ Q, so at most the largest eigenvalue of Q, which z qᵀ reaches for any column z of Z and the
        eigenvector q: the Gauss-Newton part of H takes nothing off. So none of them is larger.
        """
        size, (classes, inputs) = self.gram.shape[1], self.cross.shape[1:]
        directions = torch.eye(size**2, dtype=self.gram.dtype, device=self.gram.device).view(-1, 1, size, size)
        change = (directions.mT @ self.gram + self.gram @ directions)[..., inputs:, :inputs]
        image = self._off_diagonal(2 / classes * change @ self.covariance) + directions @ self._steering()
        operators = image.flatten(2).permute(1, 2, 0)
        return torch.linalg.eigvals(operators).real.amax(1)


def gram_networks(problem: Problem) -> GramNetworks:
    """Reduce two-layer linear networks under squared error to their Gram matrices.

    Args:
        problem: M networks and their data.

    Returns:
        What gradient descent and C see of them.

    Raises:
        ValueError: If the networks are not of this kind.

    >>> from conslaw import draw, gradient_descent
    >>> problem = draw([1], (3, 50, 2), loss="mse", activation="linear")
    >>> after = gram_networks(problem).after(torch.tensor([0.01]), 20)
    >>> run = gradient_descent(problem, 0.01, 20)
    >>> torch.allclose(after.conserved, run.conserved_quantity[0, :, -1, 0], rtol=1e-10)
    True
    """
    if not problem.is_linear_regression:
        raise ValueError(f"problem must be of linear networks under squared error, got {problem!r}")
    first, second = problem.two_layers()
    stacked, samples = torch.cat([first, second.mT], 2).double(), problem.samples
    inputs, targets = problem.inputs.double(), problem.targets.double()
    return GramNetworks(stacked.mT @ stacked, inputs @ inputs.mT / samples, targets @ inputs.mT / samples)
