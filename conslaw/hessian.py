"""The Hessian of the loss: dense and exact for small networks, and its products with vectors for large ones.

With z_l the preactivations and r_l = ∂L/∂z_l, the Hessian is a sum over samples of

- the Gauss-Newton matrix Jᵀ S J, with J = ∂f/∂θ and S the curvature of the loss in the outputs f;
- the residual part Σ_k r_k ∇²f_k: a product rule, since W_l' multiplies what an earlier W_l has moved, and, for smooth
  activations, σ''(z_h).

Every term is an outer product of layer inputs, so each block of two layers is one matrix product over the samples.
"""

from collections.abc import Callable
from itertools import combinations_with_replacement
from typing import NamedTuple

import torch
from torch import Tensor

from conslaw.losses import curvature_product, loss_function, output_curvature
from conslaw.networks import Workspace, backward, forward, loss_and_gradients, product, weight_gradient
from conslaw.problems import Problem

__all__ = ["DenseHessian", "dense_hessian", "gradient_vector", "hessian_vector_product"]


class DenseHessian(NamedTuple):
    """Hessian of each of M networks in all its P parameters, in the order of `Problem.parameters`, each by rows."""

    gauss_newton: Tensor
    """Jᵀ S J, positive semidefinite, shape (M, P, P)."""
    residual_part: Tensor
    """Σ r ∇²f, shape (M, P, P)."""

    @property
    def matrix(self) -> Tensor:
        """H = Gauss-Newton + residual part, shape (M, P, P)."""
        return self.gauss_newton + self.residual_part


def dense_hessian(problem: Problem) -> DenseHessian:
    """Compute the Hessian of every network's loss in closed form.

    Args:
        problem: M networks of any depth and their data. The two matrices take 16 M P² bytes in float64.

    Returns:
        The Gauss-Newton matrix and the residual part.

    >>> from conslaw import draw
    >>> hessian = dense_hessian(draw([42]))
    >>> round(torch.linalg.eigvalsh(hessian.matrix)[0, -1].item(), 5)
    5.77639
    """
    sigma, depth = problem.sigma, problem.depth
    hidden, activations, outputs, residuals, bends = _passes(problem)
    slopes = [sigma.gradient(torch.ones_like(z), z, a).mT for z, a in hidden]  # σ'(z_l), (M, n, m_l)
    one = outputs.new_ones(len(outputs), outputs.shape[2], 1)
    inputs = [torch.cat([a.mT, one], 2) if problem.biases else a.mT for a in activations]  # (M, n, m_{l−1} [+ 1])

    # reach[l, h] = ∂z_h/∂z_l, shape (M, n, m_h, m_l)
    reach: dict[tuple[int, int], Tensor] = {}
    for layer in range(depth):
        width = problem.weights[layer].shape[1]
        reach[layer, layer] = torch.eye(width, dtype=outputs.dtype, device=outputs.device).expand(
            *one.shape[:2], width, width
        )
        for above in range(layer + 1, depth):
            moved = slopes[above - 1].unsqueeze(3) * reach[layer, above - 1]
            reach[layer, above] = torch.einsum("mqp,mipj->miqj", problem.weights[above], moved)

    starts = [0]
    for weight, inner in zip(problem.weights, inputs, strict=True):
        starts.append(starts[-1] + weight.shape[1] * inner.shape[2])
    gauss_newton = outputs.new_zeros(len(outputs), starts[-1], starts[-1])
    residual_part = torch.zeros_like(gauss_newton)

    def block(matrix: Tensor, first: int, second: int) -> Tensor:
        """View the entries of two layers as (M, j, a, q, b), for the weights from a to j and from b to q."""
        rows, columns = (slice(starts[layer], starts[layer + 1]) for layer in (first, second))
        view = matrix[:, rows, columns].unflatten(2, (-1, inputs[second].shape[2]))
        return view.unflatten(1, (-1, inputs[first].shape[2]))

    def add(matrix: Tensor, first: int, second: int, coupling: Tensor) -> None:
        """Add Σ_i coupling[i, j, q] input[i, a] input'[i, b], summed over samples i."""
        outer = inputs[first].unsqueeze(3) * inputs[second].unsqueeze(2)
        product = torch.bmm(coupling.flatten(2).mT, outer.flatten(2))
        product = product.unflatten(2, outer.shape[2:]).unflatten(1, coupling.shape[2:])
        block(matrix, first, second).add_(product.transpose(2, 3))

    curvature = output_curvature(problem.loss, outputs, problem.samples)
    for first, second in combinations_with_replacement(range(depth), 2):
        bent = curvature @ reach[second, depth - 1]
        add(gauss_newton, first, second, reach[first, depth - 1].mT @ bent)
        if first < second:
            # W_second multiplies a_{second−1}, which W_first has moved.
            moved = slopes[second - 1].unsqueeze(3) * reach[first, second - 1]  # (M, n, b, j)
            outer = inputs[first].unsqueeze(3) * residuals[second].mT.unsqueeze(2)  # (M, n, a, q)
            product = torch.bmm(outer.flatten(2).mT, moved.flatten(2))
            product = product.unflatten(2, moved.shape[2:]).unflatten(1, outer.shape[2:])  # (M, a, q, b, j)
            width = moved.shape[2]  # without the constant input of a bias
            block(residual_part, first, second)[..., :width].add_(product.permute(0, 4, 1, 2, 3))
        for layer in range(second, depth - 1) if bends else ():
            bent = bends[layer].mT.unsqueeze(3) * reach[second, layer]
            add(residual_part, first, second, reach[first, layer].mT @ bent)
        if first < second:
            for matrix in (gauss_newton, residual_part):
                block(matrix, second, first).copy_(block(matrix, first, second).permute(0, 3, 4, 1, 2))

    if not problem.biases:
        return DenseHessian(gauss_newton, residual_part)
    # So far the parameters are ordered [W_1 b_1], [W_2 b_2], …, each by rows.
    every = torch.arange(starts[-1], device=outputs.device)
    places = [every[starts[i] : starts[i + 1]].view(-1, inner.shape[2]) for i, inner in enumerate(inputs)]
    order = torch.cat([place[:, :-1].flatten() for place in places] + [place[:, -1] for place in places])
    return DenseHessian(*(matrix[:, order][:, :, order] for matrix in (gauss_newton, residual_part)))


def gradient_vector(problem: Problem) -> Tensor:
    """Compute the gradient of every network's loss as one vector, in the order of the Hessian's rows.

    Args:
        problem: M networks and their data.

    Returns:
        g, shape (M, P).
    """
    return torch.cat([g.flatten(1) for g in loss_and_gradients(problem)[1]], 1)


def hessian_vector_product(problem: Problem, *, gauss_newton: bool = False) -> Callable[[Tensor], Tensor]:
    """Return the function v ↦ H v for the Hessian H of every network's loss in all its parameters.

    Args:
        problem: M networks and their data.
        gauss_newton: Whether H is the Gauss-Newton matrix instead, the Hessian without the terms in the residuals.

    Returns:
        Function from vectors (M, P) to (M, P), P the number of parameters of one network, in the order of
        `problem.parameters`, each flattened by rows.

    Reference:
        Pearlmutter, Fast exact multiplication by the Hessian (1994): forward and backward pass, differentiated along v.
    """
    weights, biases, sigma, workspace = problem.weights, problem.biases, problem.sigma, Workspace()
    hidden, activations, outputs, residuals, bends = _passes(problem)
    bends = [] if gauss_newton else bends
    curvature = curvature_product(problem.loss, outputs, problem.samples)
    sizes = [p[0].numel() for p in problem.parameters]

    def hessian_product(vectors: Tensor) -> Tensor:
        parts = vectors.split(sizes, 1)
        directions = [part.view_as(p) for part, p in zip(parts, problem.parameters, strict=True)]
        moved_preactivations, moved_activations = [], []  # their derivatives along `vectors`
        for layer, direction in enumerate(directions[: len(weights)]):
            moved = product(direction, activations[layer], workspace, "moved", layer)
            if layer:
                moved.baddbmm_(weights[layer], moved_activations[-1])
            if biases:
                moved.add_(directions[len(weights) + layer].unsqueeze(2))
            moved_preactivations.append(moved)
            if layer < len(hidden):
                moved_activations.append(sigma.gradient(moved.clone() if bends else moved, *hidden[layer]))

        moved, of_weights, of_biases = curvature(moved), [], []  # from here on of the residual
        for layer in reversed(range(len(weights))):
            of_weight = weight_gradient(moved, activations[layer], workspace, "weight", layer)
            if biases:
                of_biases.insert(0, moved.sum(2))
            if layer:
                moved = torch.bmm(weights[layer].mT, moved)
                if not gauss_newton:
                    of_weight = of_weight + torch.bmm(residuals[layer], moved_activations[layer - 1].mT)
                    moved.baddbmm_(directions[layer].mT, residuals[layer])
                moved = sigma.gradient(moved, *hidden[layer - 1])
                if bends:
                    moved = moved.addcmul_(bends[layer - 1], moved_preactivations[layer - 1])
            of_weights.insert(0, of_weight)
        return torch.cat([p.flatten(1) for p in of_weights + of_biases], 1)

    return hessian_product


def _passes(
    problem: Problem,
) -> tuple[list[tuple[Tensor, Tensor]], list[Tensor], Tensor, list[Tensor], list[Tensor]]:
    """Go forward and back.

    Returns:
        (z_l, σ(z_l)) of the hidden layers; [a_0, …, a_{L−1}]; f; [r_1, …, r_L]; and σ''(z_l) ∘ W_{l+1}ᵀ r_{l+1} of the
        hidden layers, an empty list where σ is piecewise linear.
    """
    weights, sigma = problem.weights, problem.sigma
    preactivations, activations = forward(weights, problem.biases, problem.inputs, sigma)
    outputs = preactivations[-1]
    _, residual = loss_function(problem.loss)(outputs, problem.targets, problem.samples)
    residuals = backward(weights, preactivations, activations, residual, sigma)
    hidden = list(zip(preactivations[:-1], activations[1:], strict=True))
    above = zip(hidden, weights[1:], residuals[1:], strict=True)
    bends = [sigma.curvature(z, a) * torch.bmm(w.mT, r) for (z, a), w, r in above] if sigma.curvature else []
    return hidden, activations, outputs, residuals, bends
