"""Power laws y ~ x^α: fits with their window, spread and goodness, and local slopes.

Averages over seeds never change their set of seeds silently: a mean is NaN where one seed is, unless survivors are
asked for.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy

__all__ = [
    "FactorEffects",
    "PowerLaw",
    "bootstrap_exponent",
    "factor_effects",
    "fit_power_law",
    "fit_survivors",
    "local_slopes",
    "log_correlation",
    "mean_of_survivors",
    "seed_exponents",
    "slope_weights",
]


@dataclass(frozen=True)
class PowerLaw:
    """Least-squares line through (ln x, ln y)."""

    exponent: float
    """α, the slope."""
    prefactor: float
    """A in y = A x^α."""
    r_squared: float
    """1 − residual / total sum of squares of ln y."""
    points: int
    """Number of points fitted."""
    window: tuple[float, float]
    """Smallest and largest x fitted."""

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Evaluate A x^α."""
        return self.prefactor * np.asarray(x) ** self.exponent


def fit_power_law(x, y, window: tuple[float, float] = (0, np.inf), threshold: float = 0.0) -> PowerLaw:
    """Fit y = A x^α by ordinary least squares in ln–ln coordinates, as the paper does.

    Args:
        x: Positive abscissae, shape (N,).
        y: Shape (N,). Points that are not finite or not above the threshold are left out.
        window: Smallest and largest x to use, both included.
        threshold: See `y`.

    Returns:
        The fit.

    Raises:
        ValueError: If fewer than three points are left, or some x is not positive.

    >>> fit_power_law([1, 2, 4], [3, 12, 48]).exponent
    2.0
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    kept = _kept(x, y, window, threshold)
    line = scipy.stats.linregress(np.log(x[kept]), np.log(y[kept]))
    ends = float(x[kept].min()), float(x[kept].max())
    return PowerLaw(float(line.slope), float(np.exp(line.intercept)), float(line.rvalue**2), int(kept.sum()), ends)


def _kept(
    x: np.ndarray, y: np.ndarray, window: tuple[float, float] = (0, np.inf), threshold: float = 0.0
) -> np.ndarray:
    """Which points `fit_power_law` uses."""
    # A window's end is often the grid point itself, computed in another way.
    usable = (x > 0) & np.isfinite(x)
    if not usable.all():
        raise ValueError(f"x must be positive and finite, got {x[~usable]}")
    inside = (x >= window[0] * (1 - 1e-12)) & (x <= window[1] * (1 + 1e-12))
    kept = inside & np.isfinite(y) & (y > threshold)
    if kept.sum() < 3:
        raise ValueError(f"a power law takes at least 3 points, got {kept.sum()} in the window {window}")
    return kept


def fit_survivors(x, y, **window) -> PowerLaw:
    """Fit the mean over the seeds that did not diverge, as the published scripts do.

    Args:
        x: Shape (N,).
        y: Shape (N, seeds), NaN where a seed diverged.
        **window: As in `fit_power_law`.

    Returns:
        The fit; `mean_of_survivors` tells how many seeds each of its points has.
    """
    return fit_power_law(x, mean_of_survivors(y)[0], **window)


def local_slopes(x, y) -> np.ndarray:
    """Slopes Δ ln y / Δ ln x between neighbours.

    Args:
        x: Positive abscissae, shape (N,).
        y: Positive values, shape (N, …); NaN where missing.

    Returns:
        Shape (N − 1, …).
    """
    steps = np.diff(np.log(np.asarray(x, float)))
    return (np.diff(np.log(np.asarray(y, float)), axis=0).T / steps).T


def slope_weights(x) -> np.ndarray:
    """Weights with which a least-squares line through (ln x, ln y) averages the slopes between neighbours.

    Whatever y is, the fitted exponent is Σ_i w_i · slope_i: an average of local exponents over the window. With
    u_j = ln x_j − mean and the step h_i = ln x_{i+1} − ln x_i the weights are w_i = h_i Σ_{j>i} u_j / Σ_j u_j².

    Args:
        x: Positive, ascending abscissae, shape (N,).

    Returns:
        Shape (N − 1,): positive numbers whose sum is 1.

    >>> slope_weights([1, 2, 4, 8]).round(12).tolist()
    [0.3, 0.4, 0.3]
    """
    log = np.log(np.asarray(x, float))
    centred = log - log.mean()
    return np.diff(log) * centred[::-1].cumsum()[::-1][1:] / (centred**2).sum()


def log_correlation(x, y) -> float:
    """Pearson's correlation R of ln x and ln y, the paper's measure of agreement.

    Two power laws of any exponents have R = 1: it tells nothing about relative errors.

    Args:
        x: Positive values, shape (N,).
        y: Positive values, shape (N,).

    Returns:
        R.

    >>> round(log_correlation([1, 2, 4], [3, 30, 300]), 12)
    1.0
    """
    return float(np.corrcoef(np.log(np.asarray(x, float)), np.log(np.asarray(y, float)))[0, 1])


class FactorEffects(NamedTuple):
    """How two factors change a quantity, alone and together."""

    first: float
    second: float
    interaction: float


def factor_effects(neither, first, second, both) -> FactorEffects:
    """Effects of two factors, such as loss and activation on α, and what is left of their sum: their interaction.

    Args:
        neither: The quantity without either factor, a number or an array.
        first: With the first factor alone.
        second: With the second alone.
        both: With both.

    Returns:
        The change by the first factor, the change by the second, and what the first changes where the second is there,
        less what it changes alone.

    >>> factor_effects(1.0, 1.5, 1.25, 2.0)
    FactorEffects(first=0.5, second=0.25, interaction=0.25)
    """
    return FactorEffects(first - neither, second - neither, both - second - first + neither)


def seed_exponents(x, y, **window) -> np.ndarray:
    """Exponent of each seed by itself.

    Args:
        x: Shape (N,).
        y: Shape (N, seeds).
        **window: As in `fit_power_law`.

    Returns:
        Shape (seeds,).
    """
    return np.array([fit_power_law(x, column, **window).exponent for column in np.asarray(y, float).T])


def bootstrap_exponent(x, y, resamples: int = 2000, level: float = 0.95, **window) -> tuple[float, float]:
    """Percentile bootstrap interval of the exponent of the mean over seeds; seeds are drawn with replacement.

    Args:
        x: Shape (N,).
        y: Shape (N, seeds), without missing values in the window.
        resamples: Number of resamples, from a fixed random state.
        level: Confidence level.
        **window: As in `fit_power_law`.

    Returns:
        Lower and upper end; NaN for fewer than two seeds.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    if y.shape[1] < 2:
        return np.nan, np.nan
    kept = _kept(x, y.mean(1), **window)

    def exponent(seeds: np.ndarray, axis: int) -> np.ndarray:
        means = y[kept][:, seeds].mean(-1)  # (points, resamples)
        return np.polyfit(np.log(x[kept]), np.log(means), 1)[0]

    result = scipy.stats.bootstrap(
        (np.arange(y.shape[1]),),
        exponent,
        n_resamples=resamples,
        confidence_level=level,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(0),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def mean_of_survivors(y) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the seeds that did not diverge, and how many those are.

    Args:
        y: Shape (N, seeds), NaN where a seed diverged.

    Returns:
        Means (N,), NaN where no seed survived, and numbers of survivors (N,).
    """
    y = np.asarray(y, float)
    survivors = np.isfinite(y).sum(1)
    total = np.where(np.isfinite(y), y, 0.0).sum(1)
    return np.divide(total, survivors, out=np.full(len(y), np.nan), where=survivors > 0), survivors
