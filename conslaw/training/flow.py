"""Gradient flow dW_l/dt = −∂L/∂W_l, the limit of small learning rates, in which C_l is conserved (Theorem 1)."""

import math
from numbers import Integral, Real

import numpy as np
import scipy
import torch
from torch import Tensor

from conslaw.conserved import squared_norms, squared_parameter_norms
from conslaw.networks import Workspace, loss_and_gradients
from conslaw.problems import Problem
from conslaw.training.trajectory import Trajectory

__all__ = ["gradient_flow"]

EVALUATIONS = 200_000
"""Most evaluations of the gradient, after which something is wrong: a duration, or a tolerance."""


def gradient_flow(
    problem: Problem,
    duration: float,
    *,
    times: int = 101,
    tolerance: float = 1e-6,
) -> Trajectory:
    """Integrate gradient flow with the Runge-Kutta method RK45 and error control.

    T steps of gradient descent with learning rate η correspond to the duration η T. The kinks of ReLU limit the
    order, so C_l is kept to the tolerance, not to rounding, and a method of higher order, DOP853, costs more.

    Args:
        problem: M networks, their data and loss, float64; integrated together, with common step sizes.
        duration: End time, positive and finite.
        times: Number of recorded times, equally spaced from 0 to the duration.
        tolerance: Relative tolerance of a step; the absolute one is a hundredth of it.

    Returns:
        Trajectory with R = 1. Its learning rates and sums over steps are NaN: a flow has no steps.

    Raises:
        ValueError: If `duration` is not positive and finite, `times` below 2, `tolerance` not above the rounding of
            the problem's dtype, or a weight or the gradient not finite, as those of diverged networks are.
        RuntimeError: If the integration fails, or takes more than 200,000 evaluations of the gradient.
    """
    if not isinstance(duration, Real) or not 0 < duration < math.inf:
        raise ValueError(f"duration must be positive and finite, got {duration!r}")
    if not isinstance(times, Integral) or times < 2 or not tolerance > 0:
        raise ValueError(f"times must be an integer of at least 2 and tolerance positive, got {times} and {tolerance}")
    if not all(bool(p.isfinite().all()) for p in problem.parameters):
        raise ValueError("weights of the problem must be finite, got some that are not")
    least = 100 * torch.finfo(problem.inputs.dtype).eps
    if tolerance < least:
        raise ValueError(f"tolerance must be at least {least:.0e} in {problem.inputs.dtype}, got {tolerance}")
    workspace, evaluations = Workspace(), 0
    shapes = [p.shape for p in problem.parameters]
    sizes = [p.numel() for p in problem.parameters]

    def networks(state: np.ndarray) -> Problem:
        parts = torch.as_tensor(state, device="cpu").to(problem.inputs).split(sizes)
        return problem.with_parameters([part.view(shape) for part, shape in zip(parts, shapes, strict=True)])

    def velocity(time: float, state: np.ndarray) -> np.ndarray:
        nonlocal evaluations
        evaluations += 1
        if evaluations > EVALUATIONS:
            raise RuntimeError(
                f"gradient flow came to time {time:.3g} of {duration:g} in {EVALUATIONS} evaluations; take a shorter "
                "duration or a larger tolerance"
            )
        _, gradients = loss_and_gradients(networks(state), workspace)
        return -torch.cat([g.flatten() for g in gradients]).double().cpu().numpy()

    start = torch.cat([p.flatten() for p in problem.parameters]).double().cpu().numpy()
    if not np.isfinite(velocity(0.0, start)).all():
        raise ValueError("the gradient of the problem must be finite, got one that overflows")
    recorded = np.linspace(0, duration, times)
    solution = scipy.integrate.solve_ivp(
        velocity, (0, duration), start, "RK45", recorded, rtol=tolerance, atol=tolerance / 100
    )
    if not solution.success:
        raise RuntimeError(f"gradient flow could not be integrated to {duration}: {solution.message}")

    losses, norms, gradient_norms = [], [], []
    for state in solution.y.T:
        at = networks(np.ascontiguousarray(state))
        value, gradients = loss_and_gradients(at)
        losses.append(value.double().cpu())
        norms.append(squared_parameter_norms(at).cpu())
        gradient_norms.append(squared_norms(gradients).cpu())

    missing = torch.full((1, *norms[0].shape), torch.nan, dtype=torch.float64, device="cpu")

    def history(values: list[Tensor]) -> Tensor:
        return torch.stack(values, 1).unsqueeze(0)

    return Trajectory(
        problem=problem,
        learning_rates=missing[..., 0],
        times=torch.as_tensor(recorded, device="cpu"),
        parameters=tuple(p.unsqueeze(0).cpu() for p in at.parameters),
        loss=history(losses),
        squared_norms=history(norms),
        squared_gradient_norms=history(gradient_norms),
        squared_gradient_sums=missing,
        squared_step_sums=missing,
        alignment_sums=missing,
        loss_before_last_update=missing[..., 0],
        diverged_at=torch.full(missing.shape[:2], -1, device="cpu"),
        optimizer="flow",
    )
