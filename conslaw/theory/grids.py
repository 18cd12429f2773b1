"""One experiment of many: drifts on a grid of learning rates, and on a grid relative to each network's own limit.

An exponent belongs to its window of learning rates. On a common grid networks reach different distances from their
limit of stability 2/λ_max(0); on a grid relative to it they all stand at the same ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from conslaw.eigenvalues import sharpness
from conslaw.problems import Problem
from conslaw.training.descent import gradient_descent
from conslaw.training.trajectory import Trajectory

__all__ = ["Grids", "initial_sharpness", "train_on_grids"]


@dataclass(frozen=True)
class Grids:
    """The runs of one problem on both grids."""

    run: Trajectory
    """With the learning rates η that all networks share, shape (R, M)."""
    scaled: Trajectory
    """With η = c · 2/λ_max(0) for each network, shape (R', M)."""
    sharpness: np.ndarray
    """λ_max(0), shape (M,)."""

    @property
    def drift(self) -> np.ndarray:
        """|ΔC_1| on the common grid, shape (R, M); NaN where a network diverged."""
        return self.run.drift[..., 0].abs().numpy()

    @property
    def relative_drift(self) -> np.ndarray:
        """|ΔC_1| on the relative grid, shape (R', M); NaN where a network diverged."""
        return self.scaled.drift[..., 0].abs().numpy()


def initial_sharpness(problem: Problem) -> np.ndarray:
    """λ_max(0) of every network, shape (M,), float64; of linear ones under squared error from sufficient statistics."""
    reducible = problem.is_linear_regression and not problem.biases
    return sharpness(problem.reduced() if reducible else problem).value.double().cpu().numpy()


def train_on_grids(
    problem: Problem,
    learning_rates: Sequence[float] | np.ndarray,
    relative_rates: Sequence[float] | np.ndarray,
    steps: int,
    *,
    progress: str | None = None,
) -> Grids:
    """Train every network of a problem on both grids.

    Args:
        problem: M networks, their data and loss.
        learning_rates: η, R of them.
        relative_rates: c = η λ_max(0)/2, R' of them.
        steps: T.
        progress: Title of the progress bar.

    Returns:
        The runs, recorded at their start and end.
    """
    top = initial_sharpness(problem)
    run, scaled = (
        gradient_descent(problem, rates, steps, record_every=steps, progress=progress)
        for rates in (learning_rates, np.asarray(relative_rates, float)[:, None] * 2 / top)
    )
    return Grids(run, scaled, top)
