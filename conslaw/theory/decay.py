"""Laws of decay in time, fitted to early times so that later ones can decide between them.

Over the times of a fit an exponential with a free floor and a power law can be equally close. What they say of later
times is not: an exponential comes to its floor, a power law goes on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy

__all__ = ["Decay", "TimeScale", "fit_exponential", "fit_inverse", "fit_published_exponential", "fit_time_scale"]


@dataclass(frozen=True)
class Decay:
    """A law of decay fitted to values at some times."""

    curve: Callable[[np.ndarray], np.ndarray]
    """The law, a function of time."""
    rate: float
    """b of an exponential, 1/t₀ of κ/(t + t₀)."""
    floor: float
    """What it comes to as t → ∞."""
    r_squared: float
    """1 − residual / total sum of squares of the values."""

    def __call__(self, times) -> np.ndarray:
        """Evaluate the law at times, also such as were not fitted."""
        return self.curve(np.asarray(times, float))


class TimeScale(NamedTuple):
    """The time scale of a decay, and how straight it is."""

    tau: float
    """τ of e^(−t/τ)."""
    points: int
    """Number of points fitted."""
    exponential: float
    """R² of ln y against t, in which an exponential is a line."""
    power: float
    """R² of ln y against ln t, in which a power law is one."""


def fit_time_scale(times, values) -> TimeScale:
    """Fit e^(−t/τ) up to a factor, as the published scripts do: τ is −1 over the slope of ln y against t.

    Args:
        times: t > 0, shape (N,).
        values: y > 0, shape (N,).

    Returns:
        The fit; all but the number of points is NaN for fewer than three.

    Raises:
        ValueError: If times and values are no pairs of positive numbers.

    >>> fit_time_scale([1, 2, 3], np.exp([-0.5, -1, -1.5])).tau.round(12)
    np.float64(2.0)
    """
    t, y = _pairs(times, values, at_least=0)
    if not (t > 0).all():
        raise ValueError("times must be positive")
    if len(t) < 3:
        return TimeScale(np.nan, len(t), np.nan, np.nan)
    line, power = (scipy.stats.linregress(x, np.log(y)) for x in (t, np.log(t)))
    return TimeScale(-1 / line.slope, len(t), line.rvalue**2, power.rvalue**2)


def fit_published_exponential(times, values, share: float = 0.9) -> Decay:
    """Fit a e^(−bt) + c as the published scripts do: c is fixed, then ln(y − c) is fitted by a straight line.

    Args:
        times: t, shape (N,).
        values: y > 0, shape (N,).
        share: c as a share of the smallest value, at least 0 and below 1.

    Returns:
        The fit.

    Raises:
        ValueError: If the share is out of its range, or times and values are no pairs of numbers.
    """
    if not 0 <= share < 1:
        raise ValueError(f"share must be at least 0 and below 1, got {share}")
    t, y = _pairs(times, values)
    floor = share * y.min()
    line = scipy.stats.linregress(t, np.log(y - floor))
    return _decay(lambda t: np.exp(line.intercept + line.slope * t) + floor, -line.slope, floor, t, y)


def fit_exponential(times, values, *, logarithmic: bool = False) -> Decay:
    """Fit a e^(−bt) + c with all three free and none negative, by least squares of the values or their logarithms.

    Args:
        times: t, shape (N,).
        values: y > 0, shape (N,).
        logarithmic: Whether the squares are those of ln y.

    Returns:
        The fit.

    Raises:
        ValueError: If times and values are no pairs of numbers.

    >>> t = np.arange(10)
    >>> round(fit_exponential(t, 2 * np.exp(-0.5 * t) + 1).floor, 6)
    1.0
    """
    t, y = _pairs(times, values)
    begin = (y[0] - 0.9 * y.min(), 3 / np.ptp(t), 0.9 * y.min())
    amplitude, rate, floor = _least_squares(lambda p, t: p[0] * np.exp(-p[1] * t) + p[2], begin, t, y, logarithmic)
    return _decay(lambda t: amplitude * np.exp(-rate * t) + floor, rate, floor, t, y)


def fit_inverse(times, values, *, logarithmic: bool = False) -> Decay:
    """Fit κ / (t + t₀) by least squares of the values or their logarithms.

    Args:
        times: t, shape (N,).
        values: y > 0, shape (N,).
        logarithmic: Whether the squares are those of ln y.

    Returns:
        The fit; its rate is 1/t₀.

    Raises:
        ValueError: If times and values are no pairs of numbers.
    """
    t, y = _pairs(times, values)
    shift = np.ptp(t) / 20
    begin = (y[0] * (t[0] + shift), shift)
    kappa, shift = _least_squares(lambda p, t: p[0] / (t + p[1]), begin, t, y, logarithmic)
    return _decay(lambda t: kappa / (t + shift), 1 / shift, 0.0, t, y)


def _pairs(times, values, at_least: int = 3) -> tuple[np.ndarray, np.ndarray]:
    t, y = np.asarray(times, float), np.asarray(values, float)
    if t.ndim != 1 or t.shape != y.shape or len(t) < at_least:
        least = "at least three each and " if at_least else ""
        raise ValueError(f"times and values must be {least}equally many, got {t.shape} and {y.shape}")
    if not (np.isfinite(t).all() and np.isfinite(y).all() and (y > 0).all()):
        raise ValueError("times must be finite and values finite and positive")
    return t, y


def _least_squares(law: Callable, begin: tuple[float, ...], t: np.ndarray, y: np.ndarray, logarithmic: bool):
    """Parameters of the law with the smallest squares, each kept positive by way of its logarithm."""

    def residuals(logs: np.ndarray) -> np.ndarray:
        fitted = law(np.exp(logs), t)
        return np.log(fitted) - np.log(y) if logarithmic else (fitted - y) / y.max()

    found = scipy.optimize.least_squares(residuals, np.log(begin), xtol=1e-14, ftol=1e-14, gtol=1e-14, max_nfev=2000)
    return np.exp(found.x)


def _decay(curve: Callable, rate: float, floor: float, t: np.ndarray, y: np.ndarray) -> Decay:
    squares = ((y - curve(t)) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    return Decay(curve, float(rate), float(floor), float(1 - squares))
