"""The drift as the error of Euler's method: below the edge of stability one run tells that of every learning rate.

Gradient descent is Euler's method for gradient flow, which keeps C. With r = S / Σ‖g‖² and the energy ratio
E = η Σ‖g‖² / (L(0) − L(T)) the drift η² S is, identically, η r E (L(0) − L(T)). Runs of equal η T follow the same
flow, so that they have nearly the same r and loss, and E is 1 up to the curvature along the steps.
"""

import torch
from torch import Tensor

from conslaw.training.trajectory import Trajectory

__all__ = ["drift_from_history", "energy_bounds", "step_curvature"]


def step_curvature(learning_rates: Tensor, energy_ratio: Tensor) -> Tensor:
    """κ̄ = 2 (1 − 1/E) / η, the curvature of the loss along the steps: of each step's mean, weighted with ‖g‖².

    A step changes the loss by −η‖g‖² + η² κ ‖g‖² / 2, where κ = 2 ∫ (1 − u) ĝᵀH(θ − uηg)ĝ du is the mean curvature
    along it. The sum over all steps gives E = 1 / (1 − η κ̄ / 2).

    Args:
        learning_rates: η, any shape.
        energy_ratio: E, of a shape that broadcasts with it.

    Returns:
        κ̄, of the common shape. If the loss has risen, E is negative, and κ̄ above 2/η.

    >>> step_curvature(torch.tensor(0.5), torch.tensor(2.0))
    tensor(2.)
    """
    return 2 * (1 - 1 / energy_ratio) / learning_rates


def energy_bounds(learning_rates: Tensor, smallest: Tensor, largest: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds 1 / (1 − η κ / 2) of E, at the smallest and the largest curvature κ that the Hessian has along the run.

    Args:
        learning_rates: η, any shape.
        smallest: Lower bound −μ of the Hessian's eigenvalues on the path, which broadcasts with it.
        largest: Upper bound λ, likewise.

    Returns:
        Lower and upper bound; the upper one is infinite where ηλ ≥ 2, where the lemma gives none.

    Source:
        The descent lemma, applied to every step (Nesterov, Introductory Lectures on Convex Optimization, 1.2.3).
    """
    lower, upper = (1 / (1 - learning_rates * curvature / 2) for curvature in (smallest, largest))
    return lower, torch.where(learning_rates * largest < 2, upper, torch.inf)


def drift_from_history(history: Trajectory, learning_rates: Tensor, steps: int) -> Tensor:
    """Predict the drift ΔC = η r E (L(0) − L(T)) with other learning rates from the history of one run.

    At the same time s = ηT of the flow r and the loss are taken from the history, and E = 1 / (1 − η κ̄ / 2) with its κ̄.

    Args:
        history: Runs of gradient descent with one learning rate η* for each of M networks, recorded at every step.
        learning_rates: η, shape (R, M).
        steps: T.

    Returns:
        Signed drift, shape (R, M, L − 1); NaN where the history is too short, ηT > η*T*, has diverged, or ηκ̄ ≥ 2.

    Raises:
        ValueError: If the history has several learning rates for a network, or lacks a step.
    """
    if len(history.learning_rates) != 1:
        raise ValueError(f"history must have one learning rate for each network, got {len(history.learning_rates)}")
    if len(history.times) <= history.times[-1]:
        raise ValueError(f"history must be recorded at every step, got {len(history.times)} times")
    place = learning_rates * steps / history.learning_rates  # of the same s in the history, (R, M)
    known = place <= history.times[-1]
    before = place.floor().long().clamp(max=int(history.times[-1]) - 1)

    def at_same_time(values: Tensor) -> Tensor:
        """Interpolate values (M, T* + 1, …) to (R, M, …)."""
        network = torch.arange(len(values)).expand_as(before)
        earlier, later = values[network, before], values[network, before + 1]
        share = (place - before).reshape(*place.shape, *[1] * (earlier.dim() - 2))
        return torch.lerp(earlier, later, share.to(earlier))

    energy = history.squared_gradient_norms[0].sum(2).cumsum(1)
    spent = torch.cat([torch.zeros_like(energy[:, :1]), energy[:, :-1]], 1) * history.learning_rates[0].unsqueeze(1)
    lost = history.loss[0, :, :1] - history.loss[0]
    ratio = at_same_time(spent) / at_same_time(lost)
    product = learning_rates * step_curvature(history.learning_rates, ratio)
    factor = learning_rates / history.learning_rates / (ratio * (1 - product / 2))
    drift = history.conserved_quantity[0] - history.conserved_quantity[0, :, :1]
    known = known & (product < 2)
    return torch.where(known.unsqueeze(2), at_same_time(drift) * factor.unsqueeze(2), torch.nan)
