"""Central flow: the path about which gradient descent oscillates at the edge of stability, and the oscillation itself.

Below the edge, where the sharpness is under 2/η, it is gradient flow. At the edge w = w̄ + x with E[x] = 0, E[x xᵀ] = Σ,
and the gradient is ∇L + ½ ∇⟨Σ, H⟩ on average: the oscillation drives the weights to where the curvature is less. Σ lies
in the eigenvectors at 2/η and is just as large as it takes to keep their eigenvalues from rising further, so nothing is
fitted. A quadratic law wᵀQw, which gradient flow conserves, changes at the edge by 4 tr(QΣ) in every step.
"""

import math
from collections.abc import Sequence
from numbers import Integral, Real

import torch
from torch import Tensor

from conslaw.conserved import add_left_out, quadratic_laws, squared_norms
from conslaw.problems import Problem
from conslaw.progress import progress_bar
from conslaw.quadratic import QuadraticLaws
from conslaw.training._edge import Edge, Motion, View
from conslaw.training.trajectory import Trajectory

__all__ = ["central_flow", "checked_rates"]


@torch.no_grad()
def central_flow(
    problem: Problem,
    learning_rate: float | Sequence[float] | Tensor,
    steps: int,
    *,
    record_every: int = 1,
    laws: Sequence[QuadraticLaws] | None = None,
    modes: int = 4,
    tolerance: float = 1e-3,
    progress: str | None = None,
) -> Trajectory:
    """Integrate the central flow ẇ = −η (∇L + ½ ∇⟨Σ, H⟩) for a time in which gradient descent makes T steps.

    With the eigenvectors u_a near 2/η, Σ = Σ_ab X_ab u_a u_bᵀ. With T_ab = ∇(u_aᵀ H u_b), X solves 0 ⪯ X ⊥ βX − α ⪰ 0,
    β_ab,cd = ½ ⟨T_ab, T_cd⟩ and α_ab = −⟨T_ab, ∇L⟩ − (2/η − λ_a) δ_ab / (η h), so that no eigenvalue rises above 2/η
    within a step h. Those above, by an error of integration or at the start, come back at the rate of h = 1. The step
    is Euler's, at most one of gradient descent, and exact along the eigenvectors, where it would overshoot.

    Args:
        problem: M networks and their data, float64; integrated together, with common h. They should start below the
            edge, or oscillate about their weights already, as after a while at the edge.
        learning_rate: η, one number or M.
        steps: T.
        record_every: The trajectory holds the times 0, this, twice this, …, and T.
        laws: Families of laws whose changes are predicted; by default those of the units.
        modes: Most eigenvalues that may be at 2/η.
        tolerance: Largest error of a step, ½ h ‖change of velocity‖, relative to ‖w̄‖.
        progress: Title of a progress bar.

    Returns:
        Trajectory with R = 1 of what gradient descent is expected to record, to second order in the oscillation: its
        loss is L + ½ ⟨Σ, H⟩, its squared norms are those of w̄ and tr Σ, and the squared gradients, also in the sums,
        those of the mean gradient ḡ and (4/η²) tr Σ. So η² `imbalance_sum` is the predicted drift, while `drift` is
        what w̄ and Σ come to along the path, without the part η² ḡᵀQḡ that discrete steps add. `parameters` are w̄.
        Observed are "laws", the change of every law that is predicted until then, 4 tr(QΣ) + η² ḡᵀQḡ per step, and
        "oscillation", its first term alone, (1, M, τ, number of laws), one family after the other, pairs by rows;
        "eigenvalues" of the Hessian (1, M, τ, modes + 1), NaN where not watched; and "covariance", X,
        (1, M, τ, modes, modes).

    Raises:
        ValueError: If an argument is out of its range; the message names it.
        RuntimeError: If more than `modes` eigenvalues are at 2/η, the loss becomes infinite, or eigenvectors or X are
            not found to their tolerance.

    Reference:
        Cohen, Damian, Talwalkar, Kolter, Lee: Understanding optimization in deep learning with central flows (2025).

    >>> from conslaw import draw
    >>> flow = central_flow(draw([42], (20, 8, 5)), 0.01, 20, record_every=20)
    >>> flow.observed["covariance"].abs().max().item()  # far below the edge
    0.0
    """
    rates = checked_rates(problem, learning_rate, tolerance, steps=steps, record_every=record_every, modes=modes)
    laws, eta = quadratic_laws(problem) if laws is None else laws, rates.unsqueeze(1)
    edge, times = Edge(problem, eta, modes), [*range(0, steps, record_every), steps]

    def per_step(view: View, motion: Motion) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Per step: every law by the oscillation, and in all; squared gradients; and tr Σ, of each parameter."""
        vectors = view.top.vectors[:, : motion.covariance.shape[1]]
        left, right, mean = (edge.parts(v) for v in (motion.covariance @ vectors, vectors, motion.gradient))
        oscillation = torch.cat([4 * law(left, right).sum(1).flatten(1) for law in laws], 1)
        smooth = eta**2 * torch.cat([law(mean).flatten(1) for law in laws], 1)
        variances = torch.stack([(x * y).flatten(1).sum(1) for x, y in zip(left, right, strict=True)], 1)
        return oscillation, oscillation + smooth, squared_norms(mean) + 4 / eta**2 * variances, variances

    def record() -> tuple[Tensor, ...]:
        values, count = view.top.values, motion.covariance.shape[1]
        _, _, gradients, variances = per_step(view, motion)
        return (
            view.loss + (motion.covariance.diagonal(dim1=1, dim2=2) * values[:, :count]).sum(1) / 2,
            add_left_out(squared_norms(edge.parts(view.weights)) + variances, problem),
            gradients,
            torch.nn.functional.pad(values, (0, modes + 1 - values.shape[1]), value=torch.nan),
            torch.nn.functional.pad(motion.covariance, (0, modes - count, 0, modes - count)),
            sums[0],
            sums[1],
        )

    view, time, step = edge.view(torch.cat([p.flatten(1) for p in problem.parameters], 1)), 0.0, 1 / 8
    motion = edge.motion(view, step)
    sums = [torch.zeros_like(x) for x in per_step(view, motion)[:3]]
    records = [record()]
    with progress_bar(steps, progress) as bar:
        for goal in times[1:]:
            while time < goal:
                length = min(step, goal - time)
                motion = edge.motion(view, length)
                following = edge.view(edge.step(view, motion, length), view.top.vectors)
                after = edge.motion(following, length)
                error = edge.error(view, motion, after, length) / tolerance
                if error > 4:
                    step = length / 2
                    continue
                sums = [x + length * y for x, y in zip(sums, per_step(view, motion), strict=False)]
                time = goal if length == goal - time else time + length
                view, motion = following, after
                if length == step or error > 1:
                    step = min(1.0, length * min(2.0, 0.9 / math.sqrt(max(error, 1e-9))))
                bar.update(length)
            records.append(record())

    loss, squares, gradients, values, covariance, oscillation, changes = (
        torch.stack(x, 1).unsqueeze(0).cpu() for x in zip(*records, strict=True)
    )
    of_steps = sums[2].unsqueeze(0).cpu()
    return Trajectory(
        problem=problem,
        learning_rates=rates.unsqueeze(0).cpu(),
        times=torch.tensor(times, device="cpu"),
        parameters=tuple(p.unsqueeze(0).cpu() for p in edge.parts(view.weights)),
        loss=loss,
        squared_norms=squares,
        squared_gradient_norms=gradients,
        squared_gradient_sums=of_steps,
        squared_step_sums=of_steps,
        alignment_sums=torch.full_like(of_steps, torch.nan),
        loss_before_last_update=torch.full_like(loss[..., 0], torch.nan),
        diverged_at=torch.full(loss.shape[:2], -1, device="cpu"),
        optimizer="central flow",
        observed={"eigenvalues": values, "covariance": covariance, "laws": changes, "oscillation": oscillation},
    )


def checked_rates(problem: Problem, learning_rate: object, tolerance: object, **counts: object) -> Tensor:
    """Check what a flow at the edge is told, and return η for each network, (M,).

    Args:
        problem: M networks.
        learning_rate: One number or M.
        tolerance: Of the integration.
        **counts: Integers of at least 1, by name.

    Raises:
        ValueError: If one of them is something else; the message names it.
    """
    for name, number in counts.items():
        if not isinstance(number, Integral) or isinstance(number, bool) or number < 1:
            raise ValueError(f"{name} must be an integer of at least 1, got {number!r}")
    if not isinstance(tolerance, Real) or not 0 < tolerance < math.inf:
        raise ValueError(f"tolerance must be positive, got {tolerance!r}")
    if problem.inputs.dtype != torch.float64:
        raise ValueError(f"problem must be float64, got {problem!r}")
    try:
        rates = torch.as_tensor(learning_rate, dtype=torch.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"learning_rate must be one number or {len(problem)}, got {learning_rate!r}") from error
    if rates.shape not in ((), (len(problem),)) or not bool((rates.isfinite() & (rates > 0)).all()):
        raise ValueError(f"learning_rate must be one positive number or {len(problem)}, got {learning_rate!r}")
    return rates.expand(len(problem)).to(problem.inputs.device)
