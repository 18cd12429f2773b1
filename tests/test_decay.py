"""Laws of decay: each finds itself, and only the right one carries to later times."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conslaw.theory.decay import fit_exponential, fit_inverse, fit_published_exponential, fit_time_scale

T = np.array([0, 50, 100, 150, 200, 250, 300, 400, 500, 750, 1000])


@given(amplitude=st.floats(0.5, 20), rate=st.floats(2e-3, 2e-2), floor=st.floats(0.1, 1), logarithmic=st.booleans())
def test_an_exponential_is_found_exactly(amplitude, rate, floor, logarithmic):
    fit = fit_exponential(T, amplitude * np.exp(-rate * T) + floor, logarithmic=logarithmic)
    assert (fit.rate, fit.floor) == pytest.approx((rate, floor), rel=1e-5)
    assert fit(2000.0) == pytest.approx(amplitude * np.exp(-rate * 2000) + floor, rel=1e-5)
    assert fit.r_squared == pytest.approx(1)


@given(kappa=st.floats(50, 1000), shift=st.floats(20, 200), logarithmic=st.booleans())
def test_an_inverse_is_found_exactly(kappa, shift, logarithmic):
    fit = fit_inverse(T, kappa / (T + shift), logarithmic=logarithmic)
    assert 1 / fit.rate == pytest.approx(shift, rel=1e-6)
    assert fit([2000.0, 1e4]) == pytest.approx(kappa / (np.array([2000, 1e4]) + shift), rel=1e-6)


def test_the_published_fit_fixes_its_floor_first():
    values = 3 * np.exp(-0.004 * T) + 0.2
    fit = fit_published_exponential(T, values)
    assert fit.floor == 0.9 * values.min()
    line = np.polyfit(T, np.log(values - fit.floor), 1)
    assert fit.rate == pytest.approx(-line[0])
    exact = 3 * np.exp(-0.004 * T)
    assert fit_published_exponential(T, exact, share=0).rate == pytest.approx(0.004)
    assert fit_published_exponential(T, exact, share=0).r_squared == pytest.approx(1)


@given(tau=st.floats(5, 500), factor=st.floats(1e-3, 1e3), unit=st.floats(1e-2, 1e2))
def test_the_time_scale_of_an_exponential(tau, factor, unit):
    times = T[1:]
    fit = fit_time_scale(times, factor * np.exp(-times / tau))
    assert fit.tau == pytest.approx(tau, rel=1e-9)
    assert fit.points == len(times)
    assert fit.exponential == pytest.approx(1)
    assert fit.power < 0.98
    assert fit_time_scale(unit * times, np.exp(-times / tau)).tau == pytest.approx(unit * tau, rel=1e-9)


def test_a_power_law_has_no_time_scale():
    early, late = (fit_time_scale(times, 3 / times**2) for times in (T[1:6], T[6:]))
    assert late.tau > 3 * early.tau
    assert (early.power, late.power) == pytest.approx((1, 1))
    assert max(early.exponential, late.exponential) < 0.98


def test_two_points_have_no_time_scale():
    assert np.isnan(fit_time_scale([1, 2], [2, 1])).tolist() == [True, False, True, True]
    assert fit_time_scale([], []).points == 0
    with pytest.raises(ValueError, match="times must be positive"):
        fit_time_scale([0, 1, 2], [3, 2, 1])
    with pytest.raises(ValueError, match="must be equally many"):
        fit_time_scale([1, 2, 3], [3, 2])


@pytest.mark.parametrize("logarithmic", [False, True])
def test_later_times_tell_the_laws_apart(logarithmic):
    inverse, exponential = 300 / (T + 50), 5 * np.exp(-0.005 * T) + 0.3
    assert fit_exponential(T, inverse, logarithmic=logarithmic)(4000) > 2 * 300 / 4050
    assert fit_inverse(T, exponential, logarithmic=logarithmic)(4000) < 0.2


def test_the_fit_of_logarithms_weighs_small_values():
    values = 300 / (T + 50)
    linear, logarithmic = fit_exponential(T, values), fit_exponential(T, values, logarithmic=True)
    assert linear.r_squared > logarithmic.r_squared
    error = [np.abs(np.log(fit(T) / values)).max() for fit in (linear, logarithmic)]
    assert error[1] < error[0]


@pytest.mark.parametrize(
    ("times", "values", "message"),
    [
        ([1, 2], [1, 2], "at least three each"),
        ([1, 2, 3], [1, 2], "equally many"),
        ([1, 2, 3], [1, 0, 1], "finite and positive"),
        ([1, 2, 3], [1, np.nan, 1], "finite and positive"),
    ],
)
@pytest.mark.parametrize("fit", [fit_exponential, fit_inverse, fit_published_exponential])
def test_bad_input(fit, times, values, message):
    with pytest.raises(ValueError, match=message):
        fit(times, values)


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_floor_that_cannot_be(share):
    with pytest.raises(ValueError, match="share must be"):
        fit_published_exponential(T, 1.0 / (T + 1), share)
