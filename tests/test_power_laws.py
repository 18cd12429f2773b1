"""Fits of power laws with known exponents."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conslaw import fit_power_law
from conslaw.theory.power_laws import (
    bootstrap_exponent,
    local_slopes,
    mean_of_survivors,
    seed_exponents,
)

X = np.geomspace(1e-4, 1, 9)


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


def test_x_must_be_positive():
    with pytest.raises(ValueError, match="x must be positive"):
        fit_power_law([0, 1, 2, 3], [1, 1, 2, 3])


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
