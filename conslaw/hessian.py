"""Sharpness: the largest eigenvalue of the Hessian of the loss, by a batched Lanczos iteration."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from conslaw.losses import loss_function
from conslaw.network import activation_function, forward
from conslaw.problems import Problem

__all__ = ["Sharpness", "hessian_vector_product", "sharpness"]


@dataclass(frozen=True)
class Sharpness:
    """Largest Hessian eigenvalue of each of M networks."""

    value: Tensor
    """λ_max, shape (M,)."""
    residual: Tensor
    """‖H v − λ_max v‖ of the unit Ritz vector v, shape (M,): some eigenvalue lies this close to λ_max."""
    converged: Tensor
    """Whether the residual is below the tolerance times |λ_max|, shape (M,)."""


def hessian_vector_product(problem: Problem, loss: str | float, activation: str | float) -> Callable[[Tensor], Tensor]:
    """Return the function v ↦ H v for the Hessian H of every network's loss in all its parameters.

    Args:
        problem: M networks and their data.
        loss: As in `gradient_descent`.
        activation: As in `gradient_descent`.

    Returns:
        Function from vectors (M, P) to (M, P), P the number of parameters of one network, in the order of
        `problem.parameters`, each flattened by rows.
    """
    parameters = [p.detach().requires_grad_() for p in problem.parameters]
    networks = problem.with_parameters(parameters)
    outputs = forward(networks.weights, networks.biases, networks.inputs, activation_function(activation))[0][-1]
    value, _ = loss_function(loss)(outputs, problem.targets, problem.samples)
    # The networks are independent: the derivatives of the sum are those of each.
    gradients = torch.autograd.grad(value.sum(), parameters, create_graph=True)
    gradient = torch.cat([g.flatten(1) for g in gradients], 1)

    def product(vectors: Tensor) -> Tensor:
        products = torch.autograd.grad(gradient, parameters, vectors, retain_graph=True)
        return torch.cat([p.flatten(1) for p in products], 1)

    return product


def sharpness(
    problem: Problem,
    loss: str | float = "cross_entropy",
    activation: str | float = "relu",
    *,
    tolerance: float = 1e-8,
    iterations: int = 100,
) -> Sharpness:
    """Compute the largest eigenvalue of the Hessian by Lanczos with full reorthogonalisation.

    The start vector is random from a fixed seed, so the result is the same every time.

    Args:
        problem: M networks and their data; float64 is advised.
        loss: As in `gradient_descent`.
        activation: As in `gradient_descent`.
        tolerance: Relative residual at which to stop.
        iterations: Largest number of Hessian-vector products.

    Returns:
        The sharpness with its residual.

    Reference:
        Golub & Van Loan, Matrix Computations, §10.1; 2/η is the sharpness at the edge of stability (Cohen et al. 2021).
    """
    product = hessian_vector_product(problem, loss, activation)
    networks, size = len(problem.inputs), sum(p[0].numel() for p in problem.parameters)
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(size, generator=generator).to(problem.inputs).expand(networks, size)
    basis = [start / start.norm(dim=1, keepdim=True)]
    diagonal, off_diagonal = [], []
    for step in range(1, min(iterations, size) + 1):
        vector = product(basis[-1])
        diagonal.append((vector * basis[-1]).sum(1))
        span = torch.stack(basis, 1)
        for _ in range(2):  # once leaves a remainder of the order of the rounding error times the condition number
            vector = vector - torch.bmm(torch.bmm(span, vector.unsqueeze(2)).mT, span).squeeze(1)
        norm = vector.norm(dim=1)
        if step % 5 == 0 or step == min(iterations, size):
            tridiagonal = torch.diag_embed(torch.stack(diagonal, 1))
            if off_diagonal:
                beside = torch.stack(off_diagonal, 1)
                tridiagonal = tridiagonal + torch.diag_embed(beside, 1) + torch.diag_embed(beside, -1)
            values, vectors = torch.linalg.eigh(tridiagonal)
            value, residual = values[:, -1], norm * vectors[:, -1, -1].abs()
            converged = residual <= tolerance * value.abs()
            if converged.all():
                break
        off_diagonal.append(norm)
        basis.append(vector / norm.clamp_min(torch.finfo(norm.dtype).tiny).unsqueeze(1))
    return Sharpness(value, residual, converged)
