"""The interval of a median: its level by counting, by simulation, and against scipy; and what bootstraps miss."""

import numpy as np
import pytest
import scipy

from conslaw.theory.intervals import median_interval
from conslaw.theory.power_laws import bootstrap_exponent, fit_power_law


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("n", [1, 5, 6, 9, 20, 25, 200])
def test_it_is_the_one_of_scipy(n, level):
    values = np.random.default_rng(n).standard_normal(n)
    expected = scipy.stats.quantile_test(values, q=0.0, p=0.5).confidence_interval(level)
    np.testing.assert_array_equal(median_interval(values, level), expected)


@pytest.mark.parametrize("n", [6, 20, 25])
def test_its_level_does_not_depend_on_the_distribution(n):
    rng = np.random.default_rng(0)
    k = int(np.searchsorted(np.sort(np.arange(n)), median_interval(np.arange(n))[0])) + 1
    level = 1 - 2 * scipy.stats.binom.cdf(k - 1, n, 0.5)
    assert level >= 0.95
    draws = 4000
    for sample, median in ((rng.lognormal(0, 3, (draws, n)), 1), (rng.standard_cauchy((draws, n)), 0)):
        low, high = median_interval(sample).T
        covered = np.mean((low <= median) & (median <= high))
        assert abs(covered - level) < 4 * np.sqrt(level * (1 - level) / draws)


def test_the_bootstrap_of_five_seeds_misses_the_exponent_of_a_mean_with_a_heavy_tail():
    """Drifts as beyond 2/λ_max(0): the last of ten points is lognormal, with σ = 2."""
    rng, eta, repeats = np.random.default_rng(1), np.geomspace(1e-4, 1, 10), 100
    truth = fit_power_law(eta, eta * np.append(np.ones(9), np.exp(2.0))).exponent  # of the mean over all seeds
    middle = fit_power_law(eta, eta).exponent  # of the median seed
    bootstrap = median = 0
    for _ in range(repeats):
        drift = np.repeat(eta[:, None], 20, 1)
        drift[-1] *= rng.lognormal(0, 2, 20)
        low, high = bootstrap_exponent(eta, drift[:, :5], resamples=200)
        bootstrap += low <= truth <= high
        exponents = np.polyfit(np.log(eta), np.log(drift), 1)[0]
        low, high = median_interval(exponents)
        median += low <= middle <= high
    assert bootstrap < 0.7 * repeats
    assert median > 0.88 * repeats  # three standard deviations below 0.95


def test_missing_values_are_the_largest():
    values = np.append(np.arange(17.0), [np.nan] * 3)
    np.testing.assert_array_equal(median_interval(values), [5, 14])
    np.testing.assert_array_equal(median_interval(np.append(np.arange(10.0), [np.nan] * 10)), [5, np.nan])
    assert np.isnan(median_interval([1.0, 2.0, 3.0])).all()
    assert median_interval(np.zeros((2, 3, 8))).shape == (2, 3, 2)


@pytest.mark.parametrize("level", [0.0, 1.0, 95])
def test_a_level_that_is_none(level):
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        median_interval(range(20), level)
