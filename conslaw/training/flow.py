"""Gradient flow dW_l/dt = −∂L/∂W_l, the limit of small learning rates, in which C_l is conserved (Theorem 1)."""

import numpy as np
import scipy
import torch
from torch import Tensor

from conslaw.laws import squared_norms
from conslaw.networks import Memory
from conslaw.problems import Problem
from conslaw.training._batched import loss_and_gradients
from conslaw.training.trajectory import Trajectory

__all__ = ["gradient_flow"]


def gradient_flow(
    problem: Problem,
    duration: float,
    *,
    loss: str | float = "cross_entropy",
    activation: str | float = "relu",
    times: int = 101,
    tolerance: float = 1e-6,
) -> Trajectory:
    """Integrate gradient flow with the Runge-Kutta method RK45 and error control.

    T steps of gradient descent with learning rate η correspond to the duration η T. The kinks of ReLU limit the
    order, so C_l is kept to the tolerance, not to rounding, and a method of higher order, DOP853, costs more.

    Args:
        problem: M networks and their data, float64; integrated together, with common step sizes.
        duration: End time, positive.
        loss: As in `gradient_descent`.
        activation: As in `gradient_descent`.
        times: Number of recorded times, equally spaced from 0 to the duration.
        tolerance: Relative tolerance of a step; the absolute one is a hundredth of it.

    Returns:
        Trajectory with R = 1. Its learning rates and sums over steps are NaN: a flow has no steps.

    Raises:
        ValueError: If `duration` is not positive, or `times` below 2.
        RuntimeError: If the integration fails.
    """
    if not duration > 0 or times < 2:
        raise ValueError(f"duration must be positive and times at least 2, got {duration} and {times}")
    memory: Memory = {}
    shapes = [p.shape for p in problem.parameters]
    sizes = [p.numel() for p in problem.parameters]

    def networks(state: np.ndarray) -> Problem:
        parts = torch.as_tensor(state).to(problem.inputs).split(sizes)
        return problem.with_parameters([part.view(shape) for part, shape in zip(parts, shapes, strict=True)])

    def velocity(_: float, state: np.ndarray) -> np.ndarray:
        _, gradients = loss_and_gradients(networks(state), loss, activation, memory)
        return -torch.cat([g.flatten() for g in gradients]).double().cpu().numpy()

    start = torch.cat([p.flatten() for p in problem.parameters]).double().cpu().numpy()
    recorded = np.linspace(0, duration, times)
    solution = scipy.integrate.solve_ivp(
        velocity, (0, duration), start, "RK45", recorded, rtol=tolerance, atol=tolerance / 100
    )
    if not solution.success:
        raise RuntimeError(f"gradient flow could not be integrated to {duration}: {solution.message}")

    losses, norms, gradient_norms = [], [], []
    for state in solution.y.T:
        at = networks(np.ascontiguousarray(state))
        value, gradients = loss_and_gradients(at, loss, activation)
        losses.append(value.double().cpu())
        norms.append(squared_norms(at.parameters).cpu())
        gradient_norms.append(squared_norms(gradients).cpu())

    missing = torch.full((1, *norms[0].shape), torch.nan, dtype=torch.float64)

    def history(values: list[Tensor]) -> Tensor:
        return torch.stack(values, 1).unsqueeze(0)

    return Trajectory(
        problem=problem,
        learning_rates=missing[..., 0],
        times=torch.as_tensor(recorded),
        parameters=tuple(p.unsqueeze(0).cpu() for p in at.parameters),
        loss=history(losses),
        squared_norms=history(norms),
        squared_gradient_norms=history(gradient_norms),
        squared_gradient_sums=missing,
        squared_step_sums=missing,
        alignment_sums=missing,
        loss_before_last_update=missing[..., 0],
        diverged_at=torch.full(missing.shape[:2], -1),
    )
