"""The third derivative of the loss in pairs of directions, ∇(uᵀ H v): how a curvature changes with the weights.

It is the second derivative of the gradient along u and v: the forward and the backward pass, differentiated twice.
Each quantity x of the passes becomes three: x itself, its derivatives x_a along the k directions, and its second
derivatives x_ab along their pairs. Products follow Leibniz' rule, (xy)_ab = x_ab y + x_a y_b + x_b y_a + x y_ab.
"""

from itertools import combinations_with_replacement

import torch
from torch import Tensor

from conslaw.losses import curvature_product, loss_function, third_product
from conslaw.networks import as_parameters, backward, forward
from conslaw.problems import Problem

__all__ = ["third_derivative"]


def third_derivative(problem: Problem, directions: Tensor) -> Tensor:
    """Compute ∇(u_aᵀ H u_b) for all pairs of k directions, H the Hessian of every network's loss.

    Args:
        problem: M networks and their data.
        directions: u_1 … u_k, shape (M, k, P), in the order of `problem.parameters`, each flattened by rows.

    Returns:
        Shape (M, k (k + 1) / 2, P), for the pairs (1, 1), (1, 2), …, (1, k), (2, 2), …, (k, k). Of a piecewise linear
        activation it is the derivative between the kinks.

    >>> from conslaw import draw
    >>> problem = draw([42], loss="mse", activation="linear")  # a polynomial of degree 4 in the weights
    >>> unit = torch.ones(1, 1, 1600).double() / 40
    >>> third_derivative(problem, unit).shape
    torch.Size([1, 1, 1600])
    """
    networks, count, _ = directions.shape
    pairs = torch.tensor([*combinations_with_replacement(range(count), 2)], device=directions.device)
    left, right = pairs.unbind(1)

    def crossed(x: Tensor, y: Tensor, times=torch.mul) -> Tensor:
        """x_a y_b + x_b y_a for every pair."""
        if count == 1:
            return 2 * times(x, y)
        return times(x[:, left], y[:, right]) + times(x[:, right], y[:, left])

    depth, sigma, parts = problem.depth, problem.sigma, as_parameters(directions, problem)
    moved, weights = parts[:depth], [weight.unsqueeze(1) for weight in problem.weights]
    preactivations, activations = forward(problem.weights, problem.biases, problem.inputs, sigma)
    outputs = preactivations[-1]
    _, residual = loss_function(problem.loss)(outputs, problem.targets, problem.samples)
    residuals = backward(problem.weights, preactivations, activations, residual, sigma)

    # Forward: z and its derivatives z_a, z_ab; the same for the layers' inputs, of which the first do not move.
    z_1, z_2, a_1, a_2, derivatives = [], [], [None], [None], []
    for layer, (weight, along) in enumerate(zip(weights, moved, strict=True)):
        before = activations[layer].unsqueeze(1)
        z_1.append(along @ before)
        if problem.biases:
            z_1[-1] = z_1[-1] + parts[depth + layer].unsqueeze(3)
        if layer:
            z_1[-1] = z_1[-1] + weight @ a_1[-1]
            z_2.append(crossed(along, a_1[-1], torch.matmul) + weight @ a_2[-1])
        else:
            z_2.append(z_1[-1].new_zeros(networks, len(pairs), *z_1[-1].shape[2:]))
        if layer < depth - 1:
            slope, bend, twist = _derivatives(problem, preactivations[layer], activations[layer + 1])
            derivatives.append((slope, bend, twist))
            a_1.append(slope * z_1[-1])
            a_2.append(slope * z_2[-1])
            if bend is not None:
                a_2[-1] = a_2[-1] + bend * z_1[-1][:, left] * z_1[-1][:, right]

    # Back: the residual r and its derivatives r_a, r_ab.
    curvature = curvature_product(problem.loss, outputs.unsqueeze(1), problem.samples)
    third = third_product(problem.loss, outputs.unsqueeze(1), problem.samples)
    r_1 = curvature(z_1[-1])
    r_2 = curvature(z_2[-1]) + third(z_1[-1][:, left], z_1[-1][:, right])
    of_weights, of_biases = [], []
    for layer in reversed(range(depth)):
        r_0 = residuals[layer].unsqueeze(1)
        of_weight = r_2 @ activations[layer].unsqueeze(1).mT
        if layer:
            of_weight = of_weight + crossed(r_1, a_1[layer].mT, torch.matmul) + r_0 @ a_2[layer].mT
        of_weights.insert(0, of_weight)
        of_biases.insert(0, r_2.sum(3))
        if layer:
            back, along = weights[layer].mT, moved[layer].mT
            q_0, q_1 = back @ r_0, along @ r_0 + back @ r_1
            q_2 = crossed(along, r_1, torch.matmul) + back @ r_2
            slope, bend, twist = derivatives[layer - 1]
            r_1, r_2 = slope * q_1, slope * q_2
            if bend is not None:
                first, second = z_1[layer - 1], z_2[layer - 1]
                r_1 = r_1 + bend * first * q_0
                r_2 = r_2 + bend * (crossed(first, q_1) + second * q_0) + twist * first[:, left] * first[:, right] * q_0
    every = of_weights + (of_biases if problem.biases else [])
    return torch.cat([part.flatten(2) for part in every], 2)


def _derivatives(problem: Problem, z: Tensor, a: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """σ', σ'' and σ''' of a hidden layer, each (M, 1, width, n); None for the last two where they are zero."""
    sigma = problem.sigma
    slope = sigma.gradient(torch.ones_like(z), z, a).unsqueeze(1)
    if sigma.curvature is None:
        return slope, None, None
    with torch.enable_grad():
        at = z.detach().requires_grad_()
        bend = sigma.curvature(at, sigma.function(at, False))
        twist = torch.autograd.grad(bend.sum(), at)[0]
    return slope, bend.detach().unsqueeze(1), twist.unsqueeze(1)
