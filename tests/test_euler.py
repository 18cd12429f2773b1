"""The drift as the error of Euler's method: closed forms, the proved bounds, and predictions held against training."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conslaw import as_problem, dense_hessian, draw, gradient_descent
from conslaw.theory.euler import drift_from_history, energy_bounds, step_curvature
from conslaw.theory.grids import initial_sharpness

LINEAR = {"loss": "mse", "activation": "linear"}


def eigenvalue_range(networks):
    """Smallest and largest Hessian eigenvalue, (M, 2)."""
    values = torch.linalg.eigvalsh(dense_hessian(networks).matrix)
    return torch.stack([values[:, 0], values[:, -1]], 1)


def test_one_weight_has_the_energy_of_a_parabola():
    # L = (w_2 w_1 − 1)² at w_1 = 0, w_2 = 1 has no gradient in w_2: along the step it is (w_1 − 1)², of curvature 2.
    problem = as_problem(
        [[1.0]], [[1.0]], weights=[torch.zeros(1, 1), torch.ones(1, 1)], loss="mse", activation="linear"
    )
    run = gradient_descent(problem, 0.25, 1)
    assert run.energy_ratio.item() == pytest.approx(1 / (1 - 0.25 * 2 / 2), rel=1e-12)
    assert step_curvature(run.learning_rates, run.energy_ratio).item() == pytest.approx(2.0, rel=1e-12)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), product=st.floats(0.05, 1.9), loss=st.sampled_from(["mse", "cross_entropy"]))
def test_energy_of_one_step_is_within_the_bounds_of_the_hessian_along_it(seed, product, loss):
    problem = draw([seed], (4, 6, 3), samples=20, activation="linear", loss=loss)
    rate = product / initial_sharpness(problem).item()
    run = gradient_descent(problem, rate, 1)
    points = [
        [(1 - u) * a + u * b[0] for a, b in zip(problem.parameters, run.parameters, strict=True)]
        for u in np.linspace(0, 1, 41)
    ]
    ends = torch.stack([eigenvalue_range(problem.with_parameters(point))[0] for point in points])
    low, high = energy_bounds(torch.tensor(rate), ends[:, 0].min(), ends[:, 1].max())
    assert low * (1 - 1e-6) <= run.energy_ratio.item() <= high * (1 + 1e-6)


def test_bounds_end_at_the_limit_of_stability():
    low, high = energy_bounds(torch.tensor([0.1, 0.2, 0.3]), torch.tensor(-2.0), torch.tensor(10.0))
    torch.testing.assert_close(low, 1 / torch.tensor([1.1, 1.2, 1.3]))
    assert high.tolist() == [pytest.approx(2.0), np.inf, np.inf]


def test_step_curvature_inverts_the_energy_ratio():
    rate, curvature = torch.tensor([0.1, 0.5]), torch.tensor([3.0, -2.0])
    torch.testing.assert_close(step_curvature(rate, 1 / (1 - rate * curvature / 2)), curvature)


@pytest.mark.parametrize("kind", [LINEAR, {"loss": "cross_entropy"}])
def test_history_tells_its_own_drift_exactly(kind):
    problem = draw([3, 4], (20, 24, 5), **kind)
    rate = 0.5 / initial_sharpness(problem)[None]
    history = gradient_descent(problem, rate, 60)
    for steps in (1, 17, 60):
        known = history.conserved_quantity[:, :, steps] - history.conserved_quantity[:, :, 0]
        torch.testing.assert_close(
            drift_from_history(history, history.learning_rates, steps), known, rtol=1e-9, atol=1e-13
        )


@pytest.mark.parametrize("widths", [(20, 48, 5), (20, 32, 32, 5)])
def test_the_error_of_the_prediction_falls_with_the_learning_rate_it_was_learned_at(widths):
    problem = draw([5, 6], widths, **LINEAR)
    top = initial_sharpness(problem)[None]
    rates, steps = torch.as_tensor(0.02 / top), 400
    measured = gradient_descent(problem, rates, steps, record_every=steps).drift
    errors = []
    for product in (0.08, 0.04):
        predicted = drift_from_history(gradient_descent(problem, product / top, steps), rates, steps)
        errors.append((predicted / measured - 1).abs().max().item())
    # The distance of both from the flow is of first order: 0.06 and 0.02 in ηλ.
    assert errors[0] < 0.03
    assert errors[1] / errors[0] == pytest.approx(1 / 3, rel=0.25)


def test_what_a_history_does_not_reach_is_missing():
    problem = draw([5], (20, 24, 5))
    history = gradient_descent(problem, 0.1, 20)
    drift = drift_from_history(history, torch.tensor([[0.05], [0.2]]), 20)[:, 0, 0]
    assert drift.isfinite().tolist() == [True, False]


def test_histories_that_do_not_serve():
    problem = draw([5], (20, 8, 5))
    with pytest.raises(ValueError, match="history must have one learning rate for each network, got 2"):
        drift_from_history(gradient_descent(problem, [0.1, 0.2], 4), torch.tensor([[0.1]]), 4)
    with pytest.raises(ValueError, match="history must be recorded at every step, got 3 times"):
        drift_from_history(gradient_descent(problem, 0.1, 4, record_every=2), torch.tensor([[0.1]]), 4)
