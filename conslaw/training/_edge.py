"""The edge of stability as the central flow sees it: eigenvalues near 2/η, how they change, and the oscillation."""

import math
from collections.abc import Callable
from itertools import combinations_with_replacement
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from conslaw.eigenspace import follow_eigenpairs
from conslaw.eigenvalues import Eigenpairs
from conslaw.hessian import hessian_vector_product
from conslaw.networks import as_parameters, loss_and_gradients
from conslaw.problems import Problem
from conslaw.theory.complementarity import solve_complementarity
from conslaw.third_derivative import third_derivative

__all__ = ["Edge", "Motion", "View"]

NEAR = 0.03
"""Eigenvalues this close to 2/η, relatively, may reach it within a step, and are watched."""
PRECISION = 1e-5
"""Relative residual of the eigenvectors."""


class View(NamedTuple):
    """What is seen of M networks at some weights."""

    weights: Tensor
    """w̄, shape (M, P)."""
    loss: Tensor
    """L(w̄), shape (M,)."""
    gradient: Tensor
    """∇L(w̄), shape (M, P)."""
    top: Eigenpairs
    """Leading eigenpairs of the Hessian; the last is there to see what rises."""
    turns: Tensor
    """T_ab = ∇(u_aᵀ H u_b) for the k eigenvectors near 2/η, shape (M, k, k, P)."""


class Motion(NamedTuple):
    """How M networks move."""

    covariance: Tensor
    """X, the covariance Σ of the oscillation in the k eigenvectors near 2/η, shape (M, k, k)."""
    gradient: Tensor
    """The mean gradient ∇L + ½ ∇⟨Σ, H⟩, shape (M, P)."""


class Edge:
    """M networks with their learning rates, looked at from any weights."""

    def __init__(self, problem: Problem, eta: Tensor, modes: int):
        """Take the networks.

        Args:
            problem: M networks and their data.
            eta: η, shape (M, 1).
            modes: Most eigenvalues that may be at 2/η.
        """
        self.problem, self.eta, self.modes = problem, eta, modes
        self.generator = torch.Generator().manual_seed(0)

    def parts(self, vectors: Tensor) -> list[Tensor]:
        """Split vectors (…, P) into tensors (…, shape of each parameter)."""
        return as_parameters(vectors, self.problem)

    def view(self, weights: Tensor, vectors: Tensor | None = None) -> View:
        """Look at weights (M, P).

        Args:
            weights: w̄.
            vectors: Leading eigenvectors of a moment ago, (M, block, P).

        Raises:
            RuntimeError: If the loss is not finite, eigenvectors do not converge, or too many are at 2/η.
        """
        at = self.problem.with_parameters(self.parts(weights))
        loss, gradients = loss_and_gradients(at)
        if not bool(loss.isfinite().all()):
            raise RuntimeError("the loss on the central flow has become infinite: it starts too far beyond the edge")
        product, size = _products(at), weights.shape[1]
        sought = 2 if vectors is None else vectors.shape[1] - 1  # that must converge
        vectors = self._random(weights, 2) if vectors is None else vectors
        while True:
            noise = 0.1 / math.sqrt(size) * self._random(weights, 1)
            start = torch.cat([vectors[:, :-1], vectors[:, -1:] + noise], 1)
            top = follow_eigenpairs(product, start, sought, tolerance=PRECISION, iterations=300)
            if not bool(top.converged[:, :sought].all()):
                worst = top.residuals[:, :sought].max().item()
                raise RuntimeError(f"eigenvectors of the Hessian were found to a residual of {worst:.0e} only")
            nearness = (top.values * self.eta / 2).amax(0)
            if nearness[-1] < 1 - NEAR or top.values.shape[1] == min(self.modes + 1, size):
                break
            vectors = torch.cat([top.vectors, self._random(weights, 1)], 1)
            sought = vectors.shape[1]
        if nearness[self.modes :].gt(1).any():
            raise RuntimeError(f"more than {self.modes} eigenvalues are at 2/η; allow for more modes")
        count = min(int((nearness > 1 - NEAR).sum()), self.modes)
        gradient = torch.cat([g.flatten(1) for g in gradients], 1)
        return View(weights, loss, gradient, top, self._turns(at, top.vectors[:, :count]))

    def motion(self, view: View, step: float) -> Motion:
        """Find the oscillation with which no eigenvalue rises above 2/η within a step, and those above come back.

        Args:
            view: What is seen now.
            step: h, in steps of gradient descent.
        """
        networks, count = view.turns.shape[:2]
        if not count:
            return Motion(view.turns[..., 0], view.gradient)
        slack = 2 / self.eta - view.top.values[:, :count]
        slack = torch.where(slack > 0, slack / step, slack) / self.eta  # from above, back in a step of gradient descent
        alpha = -(view.turns @ view.gradient.view(networks, 1, -1, 1)).squeeze(3) - torch.diag_embed(slack)
        flat = view.turns.flatten(1, 2)
        beta = (flat @ flat.mT / 2).view(networks, *[count] * 4)
        solved = [solve_complementarity(b, a) for b, a in zip(beta.cpu().numpy(), alpha.cpu().numpy(), strict=True)]
        covariance = torch.as_tensor(np.stack(solved)).to(alpha)
        return Motion(covariance, view.gradient + torch.einsum("mab,mabp->mp", covariance, view.turns) / 2)

    def step(self, view: View, motion: Motion, length: float) -> Tensor:
        """Return w̄ after Euler's step, which along the eigenvectors is (1 − e^−z)/z times as long, with z = ηλh.

        There it would overshoot, while e^−z is exact where the Hessian is constant.
        """
        z = self.eta * view.top.values * length
        factors = torch.where(z.abs() > 1e-6, -torch.expm1(-z) / z, 1 - z / 2)
        along = (view.top.vectors @ motion.gradient.unsqueeze(2)) * (factors - 1).unsqueeze(2)
        return view.weights - self.eta * length * (motion.gradient + (view.top.vectors * along).sum(1))

    def error(self, view: View, motion: Motion, after: Motion, length: float) -> float:
        """½ h ‖change of velocity‖ / ‖w̄‖, the largest of all networks, without the part along the eigenvectors."""
        change = self.eta * length / 2 * (after.gradient - motion.gradient)
        along = view.top.vectors @ change.unsqueeze(2)
        rest = change - (view.top.vectors * along).sum(1)
        return (rest.norm(dim=1) / view.weights.norm(dim=1)).max().item()

    def _turns(self, at: Problem, vectors: Tensor) -> Tensor:
        """T_ab for all a and b."""
        networks, count, size = vectors.shape
        if not count:
            return vectors.new_zeros(networks, 0, 0, size)
        place = torch.zeros(count, count, dtype=torch.int64)
        for index, (a, b) in enumerate(combinations_with_replacement(range(count), 2)):
            place[a, b] = place[b, a] = index
        return third_derivative(at, vectors)[:, place.to(vectors.device)]

    def _random(self, weights: Tensor, count: int) -> Tensor:
        """Random vectors (M, count, P), always the same ones for a network, whatever others there are."""
        vectors = torch.randn(count, weights.shape[1], generator=self.generator, dtype=torch.float64, device="cpu")
        return vectors.to(weights).expand(len(weights), -1, -1)


def _products(problem: Problem) -> Callable[[Tensor], Tensor]:
    """The function V ↦ H V from (M, k, P) to (M, k, P), for any k."""
    made: dict[int, Callable[[Tensor], Tensor]] = {}

    def product(vectors: Tensor) -> Tensor:
        networks, block, _ = vectors.shape
        if block not in made:
            made[block] = hessian_vector_product(problem.select(torch.arange(networks).repeat_interleave(block)))
        return made[block](vectors.flatten(0, 1)).unflatten(0, (networks, block))

    return product
