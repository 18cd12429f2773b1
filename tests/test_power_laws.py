"""Fits of power laws with known exponents."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conslaw import fit_power_law
from conslaw.theory.power_laws import (
    bootstrap_exponent,
    factor_effects,
    fit_survivors,
    local_slopes,
    log_correlation,
    mean_of_survivors,
    seed_exponents,
    slope_weights,
)

X = np.geomspace(1e-4, 1, 9)


@given(start=st.floats(-3, 3), a=st.floats(-3, 3), b=st.floats(-3, 3), together=st.floats(-3, 3))
def test_effects_of_two_factors(start, a, b, together):
    effects = factor_effects(start, start + a, start + b, start + a + b + together)
    assert effects == pytest.approx((a, b, together), abs=1e-12)
    swapped = factor_effects(start, start + b, start + a, start + a + b + together)
    assert swapped == pytest.approx((b, a, together), abs=1e-12)


@given(exponent=st.floats(-3, 3), prefactor=st.floats(1e-3, 1e3))
def test_a_power_law_is_found_exactly(exponent, prefactor):
    y = prefactor * X**exponent
    fit = fit_power_law(X, y)
    assert fit.exponent == pytest.approx(exponent, abs=1e-10)
    np.testing.assert_allclose(fit(X), y, rtol=1e-9)
    np.testing.assert_allclose(local_slopes(X, y), exponent, atol=1e-10)
    np.testing.assert_allclose(local_slopes(X, np.c_[y, 2 * y]), np.full((len(X) - 1, 2), exponent), atol=1e-10)
    assert (fit.points, fit.window) == (9, (X[0], X[-1]))


def test_windows_separate_a_broken_power_law():
    y = np.where(X <= 0.01, X, X**2 / 0.01)
    assert fit_power_law(X, y, (0, 0.01)).exponent == pytest.approx(1)
    assert fit_power_law(X, y, (0.01, 1)).exponent == pytest.approx(2)
    assert 1.1 < fit_power_law(X, y).exponent < 1.9
    assert fit_power_law(X, y).r_squared < 0.99 < fit_power_law(X, y, (0, 0.01)).r_squared


def test_missing_and_small_values_are_left_out():
    y = X**1.5
    y[3], y[5] = np.nan, 0.0
    assert fit_power_law(X, y).points == 7
    assert fit_power_law(X, y).exponent == pytest.approx(1.5)
    assert fit_power_law(X, y, threshold=1e-5).points == 5


@pytest.mark.parametrize(("x", "y"), [([1, 2], [1, 2]), ([1, 2, 3], [1, np.nan, 3]), ([], [])])
def test_fewer_than_three_points_is_an_error(x, y):
    with pytest.raises(ValueError, match="at least 3 points"):
        fit_power_law(x, y)


def test_spread_over_seeds():
    rng = np.random.default_rng(1)
    exponents = 1.2 + 0.05 * rng.standard_normal(8)
    y = X[:, None] ** exponents
    np.testing.assert_allclose(seed_exponents(X, y), exponents)
    low, high = bootstrap_exponent(X, y)
    whole = fit_power_law(X, y.mean(1)).exponent
    assert low < whole < high
    assert high - low < 0.2
    assert bootstrap_exponent(X, y) == (low, high)
    assert np.isnan(bootstrap_exponent(X, y[:, :1])).all()


def test_survivors_are_counted():
    mean, survivors = mean_of_survivors([[1.0, 3.0], [np.inf, 5.0], [np.nan, np.nan]])
    np.testing.assert_array_equal(mean, [2.0, 5.0, np.nan])
    assert survivors.tolist() == [2, 1, 0]


def test_fit_of_survivors():
    y = np.stack([X, 3 * X, X**2], 1)
    y[-1, 2] = np.nan
    fit = fit_survivors(X, y, window=(1e-3, 1))
    expected = fit_power_law(X, np.append(y[:-1].mean(1), 2.0), (1e-3, 1))
    assert fit == expected
    assert fit.points == 7
    assert fit_power_law(X, y.mean(1)).points == 8  # a mean over all seeds leaves the point out


def test_log_correlation():
    assert log_correlation(X, X**-0.5) == pytest.approx(-1)
    assert log_correlation([1, np.e, np.e**2], [1, np.e, 1]) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.inf, np.nan])
def test_x_that_has_no_logarithm(bad):
    with pytest.raises(ValueError, match="x must be positive and finite"):
        fit_power_law([0.1, 1, 2, 3, bad], [1, 1, 2, 3, 4])


def test_ends_of_the_window_and_the_threshold():
    assert fit_power_law(X, X, (X[1], X[4])).points == 4  # both ends are included
    assert fit_power_law(X, X, (X[1] * (1 + 1e-13), X[4] * (1 - 1e-13))).points == 4  # also to rounding
    assert fit_power_law(X, X, threshold=X[2]).points == 6  # and the threshold is not
    near = np.array([0.9, 1.0, 1.1, 1.2, 1.3])
    assert fit_power_law(near, near, (1.0, 1.2)).points == 3
    fit = fit_power_law([1, 2, 4, 8], [3, 12, 48, 193])
    assert fit.prefactor == pytest.approx(3, rel=1e-2)
    assert fit.window == (1, 8)


def test_the_interval_covers_what_its_level_says():
    rng = np.random.default_rng(2)
    y = X[:, None] ** (1 + 0.05 * rng.standard_normal(30))
    narrow, wide = bootstrap_exponent(X, y, level=0.5), bootstrap_exponent(X, y)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    small = bootstrap_exponent(X, y, window=(1e-4, 1e-2))
    assert small != wide


@given(
    logs=st.lists(st.floats(0.1, 2), min_size=2, max_size=9).map(np.cumsum),
    seed=st.integers(0, 1000),
)
def test_a_fitted_exponent_is_the_average_of_local_slopes(logs, seed):
    y = np.exp(np.random.default_rng(seed).normal(size=len(logs)))
    weights = slope_weights(np.exp(logs))
    assert (weights > 0).all()
    assert weights.sum() == pytest.approx(1)
    fitted = np.polyfit(logs, np.log(y), 1)[0]
    assert weights @ local_slopes(np.exp(logs), y) == pytest.approx(fitted, abs=1e-9)
