"""Gradient flow: it conserves every law, and gradient descent comes to it."""

import math

import numpy as np
import pytest
import scipy
import torch

from conslaw import as_problem, conserved_quantity, draw, gradient_descent, gradient_flow, matrix_laws, unit_laws


@pytest.mark.parametrize("bias", [False, True])
def test_gradient_flow_conserves_every_law(bias):
    problem = draw([42], (20, 12, 9, 5), bias=bias, samples=30, activation="leaky_relu")
    errors = []
    for tolerance in (1e-4, 1e-6):
        flow = gradient_flow(problem, 1.0, tolerance=tolerance)
        end = flow.networks()
        changes = [after - before for before, after in zip(unit_laws(problem), unit_laws(end), strict=True)]
        errors.append(max(change.abs().max().item() for change in changes))
        assert (conserved_quantity(end) - conserved_quantity(problem)).abs().max() < 100 * tolerance
        assert (flow.loss[0, :, -1] < 0.9 * flow.loss[0, :, 0]).all()
    assert errors[1] < 1e-6
    assert errors[1] < errors[0]


def test_gradient_flow_conserves_the_matrix_law_of_linear_networks():
    problem = draw([42], (20, 12, 5), loss="mse", activation="linear").reduced()
    flow = gradient_flow(problem, 5.0, tolerance=1e-9)
    torch.testing.assert_close(matrix_laws(problem)[0], matrix_laws(flow.networks())[0], rtol=0, atol=1e-8)
    assert flow.optimizer == "flow"


def test_matrix_law_with_biases():
    problem = draw([3], (6, 5, 4), bias=True, samples=12, loss="mse", activation="linear")
    flow = gradient_flow(problem, 2.0, tolerance=1e-9)
    torch.testing.assert_close(matrix_laws(problem)[0], matrix_laws(flow.networks())[0], rtol=0, atol=1e-8)


def test_flow_is_the_limit_of_small_steps():
    problem = draw([1, 2], (20, 8, 5), activation="tanh")
    flow, descent = gradient_flow(problem, 0.5, times=3), gradient_descent(problem, 5e-5, 10_000, record_every=5000)
    torch.testing.assert_close(flow.loss[0], descent.loss[0], rtol=1e-4, atol=0)
    assert flow.times.tolist() == [0, 0.25, 0.5]
    assert (flow.diverged_at == -1).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"duration": 0.0}, "duration must be positive and finite, got 0"),
        ({"duration": math.inf}, "duration must be positive and finite, got inf"),
        ({"duration": math.nan}, "duration must be positive and finite, got nan"),
        ({"duration": 1.0, "times": 1}, "times must be an integer of at least 2"),
        ({"duration": 1.0, "tolerance": 0.0}, "tolerance positive"),
        ({"duration": "1"}, "duration must be positive and finite, got '1'"),
        ({"duration": 1.0, "times": 2.5}, "times must be an integer"),
        ({"duration": 1.0, "tolerance": 1e-20}, "tolerance must be at least 2e-14 in torch.float64, got 1e-20"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        gradient_flow(draw([1]), **arguments)


def test_a_diverged_network_has_no_flow():
    run = gradient_descent(draw([1], loss="mse"), 1e5, 60)
    with pytest.raises(ValueError, match="weights of the problem must be finite"):
        gradient_flow(run.networks(), 1.0)


def test_kinks_make_a_high_order_costly(monkeypatch):
    integrate, evaluations = scipy.integrate.solve_ivp, {}
    for method in ("RK45", "DOP853"):

        def counted(velocity, span, start, _, *arguments, method=method, **options):
            solution = integrate(velocity, span, start, method, *arguments, **options)
            evaluations[method] = solution.nfev
            return solution

        monkeypatch.setattr(scipy.integrate, "solve_ivp", counted)
        gradient_flow(draw([42]), 2.0, tolerance=1e-5)
    assert 4 * evaluations["RK45"] < evaluations["DOP853"]


def test_a_flow_that_cannot_be_integrated_ends(monkeypatch):
    weights = [np.full((4, 3), 1e200), np.full((3, 4), 1e200)]
    huge = as_problem(np.eye(3), np.eye(3), weights=weights, loss="mse")
    with pytest.raises(ValueError, match="the gradient of the problem must be finite"):
        gradient_flow(huge, 1.0)
    with pytest.raises(ValueError, match=r"tolerance must be at least 1e-05 in torch\.float32"):
        gradient_flow(draw([1], dtype="float32"), 1.0, tolerance=1e-9)
    monkeypatch.setattr("conslaw.training.flow.EVALUATIONS", 50)
    with pytest.raises(RuntimeError, match=r"came to time .* of 1e\+12 in 50 evaluations"):
        gradient_flow(draw([1], (20, 8, 5)), 1e12)
