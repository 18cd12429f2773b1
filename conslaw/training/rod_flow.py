"""Rod flow: gradient descent at the edge of stability as the motion of a rod, whose ends are two successive points.

Let w̄ = ½ (w_t + w_{t+1}) be its centre and x = ± ½ (w_t − w_{t+1}) half of it, with a sign that alternates, so that a
swing from step to step leaves x as it is. With g± the gradients at the ends w̄ ± x, ḡ = ½ (g₊ + g₋) and γ = ½ (g₊ − g₋),
a step of gradient descent is exactly w̄ → w̄ − η ḡ, x → x + (η γ − 2x). Rod flow is the differential equation of which
this is Euler's step of length 1. Unlike the central flow it does not expand the gradient in x, and x may grow and
decay. A quadratic law wᵀQw changes in a step by η² gᵀQg; the mean of this over both ends is η² (ḡᵀQḡ + γᵀQγ).
"""

from collections.abc import Callable, Sequence

import numpy as np
import scipy
import torch
from torch import Tensor

from conslaw.activations import Activation
from conslaw.conserved import add_left_out, quadratic_laws, squared_norms
from conslaw.networks import Workspace, as_parameters, loss_and_gradients
from conslaw.problems import Problem
from conslaw.progress import progress_bar
from conslaw.quadratic import QuadraticLaws
from conslaw.training.central_flow import checked_rates
from conslaw.training.trajectory import Trajectory

__all__ = ["gradients_at_ends", "rod_flow"]


@torch.no_grad()
def rod_flow(
    problem: Problem,
    learning_rate: float | Sequence[float] | Tensor,
    steps: int,
    *,
    record_every: int = 1,
    laws: Sequence[QuadraticLaws] | None = None,
    kinks: bool = True,
    tolerance: float = 1e-4,
    progress: str | None = None,
) -> Trajectory:
    """Integrate dw̄/dt = −η ḡ, dx/dt = η γ − 2x for a time in which gradient descent makes T steps.

    The method is RK23, Runge-Kutta with error control, of low order because of the kinks. Off the edge x decays at the
    rate of 2, so its steps are about as long as those of gradient descent, and cost six gradients each: the flow
    describes gradient descent, and is no shorter way.

    Args:
        problem: M networks and their data, float64; integrated together, with common steps. The rod starts with its
            ends at their weights w_0 and at w_1 = w_0 − η ∇L(w_0).
        learning_rate: η, one number or M.
        steps: T.
        record_every: The trajectory holds the times 0, this, twice this, …, and T.
        laws: Families of laws whose changes are predicted; by default those of the units.
        kinks: Whether each end has its own gates; else both have those of the centre, as the central flow sees them.
        tolerance: Relative tolerance of a step of the integration; the absolute one is a hundredth of it.
        progress: Title of a progress bar.

    Returns:
        Trajectory with R = 1, whose losses, squared norms and squared gradients are means of those at both ends. So
        η² `imbalance_sum` is the predicted drift, while `drift` is what both ends come to along the path,
        ∫ (η² γᵀQγ − ẋᵀQẋ) dt. `parameters` are w̄. Observed are "laws", the change of every law that is predicted until
        then, η² (ḡᵀQḡ + γᵀQγ) per step, and "oscillation", its second term alone, (1, M, τ, number of laws), one family
        after the other, pairs by rows; and "swing", ‖x‖², (1, M, τ).

    Raises:
        ValueError: If an argument is out of its range; the message names it.
        RuntimeError: If the integration fails, as where the loss becomes infinite.

    Reference:
        Regis, Chewi: Rod flow: a continuous-time model for gradient descent at the edge of stability
        (arXiv:2602.01480), for the picture; the equations are those derived above.

    >>> from conslaw import draw, gradient_descent
    >>> problem = draw([42], (20, 8, 5))
    >>> flow, run = rod_flow(problem, 0.01, 20), gradient_descent(problem, 0.01, 20)
    >>> 0.95 < (0.01**2 * flow.imbalance_sum / run.drift).item() < 1.05
    True
    """
    rates = checked_rates(problem, learning_rate, tolerance, steps=steps, record_every=record_every)
    gradients = gradients_at_ends(problem, kinks)
    laws, eta = quadratic_laws(problem) if laws is None else laws, rates.unsqueeze(1)
    times = [*range(0, steps, record_every), steps]

    def squares(first: Tensor, second: Tensor) -> Tensor:
        """Mean squared norms at both ends of every parameter, (M, P)."""
        return squared_norms(as_parameters(first, problem)) + squared_norms(as_parameters(second, problem))

    def per_step(mean: Tensor, half: Tensor) -> list[Tensor]:
        """Per step: the change of every law, its part by the oscillation, and squared gradients."""
        parts = (as_parameters(v, problem) for v in (mean, half))
        smooth, oscillation = (eta**2 * torch.cat([law(p).flatten(1) for law in laws], 1) for p in parts)
        return [smooth + oscillation, oscillation, squares(mean, half)]

    def split(state: np.ndarray) -> tuple[Tensor, ...]:
        """w̄, x and the sums of `per_step`."""
        values = torch.as_tensor(state, device="cpu").to(problem.inputs).view(len(problem), -1)
        return values.split([x.shape[1] for x in start], 1)

    def velocity(_: float, state: np.ndarray) -> np.ndarray:
        centre, swing, *_ = split(state)
        _, mean, half = gradients(centre, swing)
        return _joined(-eta * mean, eta * half - 2 * swing, *per_step(mean, half))

    def record(state: np.ndarray) -> tuple[Tensor, ...]:
        centre, swing, *sums = split(state)
        loss, mean, half = gradients(centre, swing)
        norms = add_left_out(squares(centre, swing), problem)
        return loss, norms, squares(mean, half), swing.square().sum(1), centre, *sums

    weights = torch.cat([p.flatten(1) for p in problem.parameters], 1)
    move = eta / 2 * torch.cat([g.flatten(1) for g in loss_and_gradients(problem)[1]], 1)
    start = [weights - move, move, *(torch.zeros_like(x) for x in per_step(move, move))]
    if not all(bool(x.isfinite().all()) for x in start):
        raise RuntimeError("rod flow must start where the gradient is finite, got one that is not")
    records = [record(_joined(*start))]
    with progress_bar(steps, progress) as bar:
        accuracy = {"first_step": 0.1, "max_step": 1.0, "rtol": tolerance, "atol": tolerance / 100}
        solver = scipy.integrate.RK23(velocity, 0.0, _joined(*start), steps, **accuracy)
        while len(records) < len(times):
            message = solver.step()
            if solver.status == "failed":
                raise RuntimeError(f"rod flow could not be integrated beyond step {solver.t:.4g}: {message}")
            bar.update(solver.step_size)
            at = solver.dense_output()
            while len(records) < len(times) and times[len(records)] <= solver.t:
                records.append(record(at(times[len(records)])))

    loss, norms, squared, swings, centres, changes, oscillation, sums = (
        torch.stack(x, 1).unsqueeze(0).cpu() for x in zip(*records, strict=True)
    )
    return Trajectory(
        problem=problem,
        learning_rates=rates.unsqueeze(0).cpu(),
        times=torch.tensor(times, device="cpu"),
        parameters=tuple(p.unsqueeze(0) for p in as_parameters(centres[0, :, -1], problem)),
        loss=loss,
        squared_norms=norms,
        squared_gradient_norms=squared,
        squared_gradient_sums=sums[:, :, -1],
        squared_step_sums=sums[:, :, -1],
        alignment_sums=torch.full_like(sums[:, :, -1], torch.nan),
        loss_before_last_update=torch.full_like(loss[..., 0], torch.nan),
        diverged_at=torch.full(loss.shape[:2], -1, device="cpu"),
        optimizer="rod flow",
        observed={"laws": changes, "oscillation": oscillation, "swing": swings},
    )


def gradients_at_ends(problem: Problem, kinks: bool) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Return a function from w̄ and x to the mean loss of both ends, ḡ and γ, for rods (M, P) at any place.

    Args:
        problem: M networks and their data.
        kinks: Whether each end has its own gates, or both those of the centre.

    Raises:
        ValueError: If gates are asked for where the activation is not piecewise linear.
    """
    networks, slope, workspace = len(problem), problem.sigma.slope, Workspace()
    if not kinks and slope is None:
        raise ValueError(f"kinks may be False where the activation is piecewise linear, got {problem.activation!r}")

    def gates(preactivations: Tensor) -> Tensor:
        of_centre = preactivations[-networks:]
        return torch.where(of_centre > 0, 1.0, slope).to(of_centre).repeat(3, 1, 1)

    together = problem.select([*range(networks)] * (2 if kinks else 3))
    if not kinks:
        together = together.under(
            activation=Activation(lambda z, inplace: z * gates(z), lambda gradient, z, a: gradient * gates(z))
        )

    def evaluate(centre: Tensor, swing: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        points = torch.cat([centre + swing, centre - swing] + [centre] * (not kinks))
        at = together.with_parameters(as_parameters(points, problem))
        losses, gradients = loss_and_gradients(at, workspace)
        first, second = torch.cat([g[: 2 * networks].flatten(1) for g in gradients], 1).chunk(2)
        return losses[: 2 * networks].view(2, -1).mean(0), (first + second) / 2, (first - second) / 2

    return evaluate


def _joined(*vectors: Tensor) -> np.ndarray:
    """Tensors (M, …) as the state of a solver."""
    return torch.cat(vectors, 1).flatten().cpu().numpy()
