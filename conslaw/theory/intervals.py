"""Intervals over seeds that have their level whatever the distribution.

Beyond 2/λ_max(0) single seeds drift hundreds of times as far as others. A mean over few seeds then says little, and
bootstrap intervals of it miss far more often than they promise. The median has an interval whose level follows from
counting alone.
"""

import numpy as np
import scipy

__all__ = ["median_interval"]


def median_interval(values, level: float = 0.95) -> np.ndarray:
    """Interval of the median between two order statistics, with at least the given level for any distribution.

    Of n independent values the k-th smallest is above the median if fewer than k are below it, which has the
    probability P(B < k) with B binomial (n, 1/2). The interval from the k-th smallest to the k-th largest value
    therefore misses with probability 2 P(B < k) at most; k is the largest number for which that is 1 − level or less.

    Args:
        values: Shape (…, n): one value for each seed. A missing one (NaN) counts as larger than all others, as the
            drift of a run that diverged is.
        level: Between 0 and 1.

    Returns:
        Lower and upper end, shape (…, 2). An end is NaN where it would be a missing value, and both are where n is
        too small for the level: below 6 for 95 %.

    Raises:
        ValueError: If the level is not between 0 and 1.

    >>> median_interval(range(1, 21)).tolist()
    [6.0, 15.0]
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    ordered = np.sort(np.asarray(values, float), axis=-1)  # which puts missing values last
    n = ordered.shape[-1]
    k = int(scipy.stats.binom.ppf((1 - level) / 2, n, 0.5))  # the smallest with P(B ≤ k) ≥ (1 − level)/2
    if k == 0:
        return np.full((*ordered.shape[:-1], 2), np.nan)
    return ordered[..., [k - 1, n - k]]
