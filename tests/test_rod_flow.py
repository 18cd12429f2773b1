"""The rod flow: gradient flow below the edge, gradient descent's two-cycle, and the drift of every law at the edge."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conslaw import as_problem, draw, gradient_descent, gradient_flow, gradient_vector, networks_at, unit_laws
from conslaw.conserved import quadratic_laws
from conslaw.networks import as_parameters
from conslaw.quadratic import QuadraticLaws, Term, whole
from conslaw.training.rod_flow import gradients_at_ends, rod_flow


def flat(problem):
    """All parameters of M networks, (M, P)."""
    return torch.cat([p.flatten(1) for p in problem.parameters], 1)


@pytest.fixture(scope="module")
def at_edge():
    """A network that oscillates at the edge, and η."""
    problem, eta = draw([1], (20, 24, 24, 2), loss="mse"), 0.2
    return networks_at(problem, eta, [200])[0], eta


@pytest.fixture(scope="module")
def flow(at_edge):
    return rod_flow(*at_edge, 150, record_every=50)


@given(st.integers(0, 1000), st.sampled_from(["relu", "leaky_relu", "linear", "tanh"]), st.floats(0.01, 1.0))
@settings(max_examples=20, deadline=None)
def test_eulers_step_is_gradient_descent(seed, activation, eta):
    problem = draw([seed, seed + 1], (20, 6, 5, 3), samples=15, loss="mse", activation=activation)
    points = [flat(p) for p in networks_at(problem, eta, [0, 1, 2])]
    centre, swing = (points[0] + points[1]) / 2, (points[0] - points[1]) / 2
    _, mean, half = gradients_at_ends(problem, True)(centre, swing)
    torch.testing.assert_close(centre - eta * mean, (points[1] + points[2]) / 2, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(eta * half - swing, (points[2] - points[1]) / 2, rtol=1e-12, atol=1e-14)


@given(st.integers(0, 1000), st.sampled_from(["relu", "leaky_relu", "linear"]), st.booleans(), st.booleans())
@settings(max_examples=20, deadline=None)
def test_rescaling_leaves_the_loss_of_both_ends(seed, activation, kinks, bias):
    """⟨Qw̄, ḡ⟩ + ⟨Qx, γ⟩ = 0, also with the gates of the centre."""
    problem = draw([seed], (20, 6, 5, 3), samples=15, activation=activation, bias=bias)
    swing = 0.1 * torch.randn(flat(problem).shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    vectors = (flat(problem), swing, *gradients_at_ends(problem, kinks)(flat(problem), swing)[1:])
    centre, swing, mean, half = (as_parameters(x, problem) for x in vectors)
    for law in quadratic_laws(problem):
        total = law(centre, mean) + law(swing, half)
        assert total.abs().max() < 1e-14 * (1 + law.size(centre, mean).max())


def test_gates_of_the_centre():
    problem, unlike = draw([3], (20, 16, 16, 3), loss="mse"), []
    direction = torch.randn(flat(problem).shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for length in (1e-9, 0.03):
        results = [gradients_at_ends(problem, kinks)(flat(problem), length * direction) for kinks in (True, False)]
        unlike.append(((results[0][2] - results[1][2]).norm() / results[0][2].norm()).item())
    assert unlike[0] < 1e-5 < 0.02 < unlike[1]
    torch.testing.assert_close(
        gradients_at_ends(problem, False)(flat(problem), 0 * direction)[1], gradient_vector(problem), rtol=1e-12, atol=0
    )
    linear = draw([3], (20, 8, 3), activation="linear")
    for with_kinks, without in zip(
        *(gradients_at_ends(linear, kinks)(flat(linear), 0.1 * flat(linear)) for kinks in (True, False)), strict=True
    ):
        torch.testing.assert_close(with_kinks, without, rtol=1e-10, atol=1e-14)


def test_drift_of_every_unit_is_predicted(at_edge, flow):
    start, eta = at_edge
    end = gradient_descent(start, eta, 150, record_every=150)
    measured = torch.cat([b - a for a, b in zip(unit_laws(start), unit_laws(end.networks()), strict=True)], 1)[0]
    predicted, oscillation = (flow.observed[name][0, 0, -1] for name in ("laws", "oscillation"))
    assert torch.corrcoef(torch.stack([measured, predicted]))[0, 1] > 0.999
    assert (measured - predicted).abs().sum() < 0.03 * measured.abs().sum()
    smooth = predicted - oscillation  # without the oscillation nearly all of it is missed
    assert (measured - smooth).abs().sum() > 0.9 * measured.abs().sum()
    torch.testing.assert_close(flow.squared_gradient_sums.sum(), end.squared_gradient_sums.sum(), rtol=0.03, atol=0)


def test_records_agree_with_each_other(at_edge, flow):
    start, eta = at_edge
    laws = flow.observed["laws"][..., -1, :].unflatten(2, (2, 24)).sum(3)
    torch.testing.assert_close(laws, eta**2 * flow.imbalance_sum, rtol=1e-9, atol=1e-15)
    assert flow.times.tolist() == [0, 50, 100, 150]
    first, second = networks_at(start, eta, [0, 1])
    squares = (flat(first).square().sum() + flat(second).square().sum()) / 2
    torch.testing.assert_close(flow.squared_norms[0, 0, 0].sum(), squares, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        flow.observed["swing"][0, 0, 0], (flat(first) - flat(second)).square().sum() / 4, rtol=1e-12, atol=0
    )
    # Along the path the laws change by the oscillation, less ẋᵀQẋ, as x changes slowly.
    path = flow.drift - flow.observed["oscillation"][..., -1, :].unflatten(2, (2, 24)).sum(3)
    assert path.abs().max() < 0.1 * flow.drift.abs().max()
    assert flow.optimizer == "rod flow"
    again = rod_flow(start, eta, 150, record_every=150, laws=quadratic_laws(start, "layer"))
    torch.testing.assert_close(again.observed["laws"][..., -1, :], laws, rtol=1e-3, atol=1e-6)


def test_finer_steps_change_little(at_edge, flow):
    fine = rod_flow(*at_edge, 50, record_every=50, tolerance=1e-5)
    coarse, fine = flow.observed["laws"][0, 0, 1], fine.observed["laws"][0, 0, -1]
    assert (coarse - fine).abs().sum() < 0.01 * fine.abs().sum()


def test_two_cycle_is_exact():
    """Where gradient descent repeats every second step, ḡ = 0 and ηγ = 2x: the rod rests, however large its swing."""
    scalar = as_problem([[1.0]], [[1.0]], weights=[[[1.02]], [[1.02]]], loss="mse", activation="linear")
    eta = 0.55  # the edge of L = (ba − 1)² is at 2/λ = 0.5
    run = gradient_descent(scalar, eta, 401)
    flow = rod_flow(scalar, eta, 400, record_every=400, tolerance=1e-7)
    one, other = (networks_at(scalar, eta, [t])[0].weights[0].item() for t in (400, 401))
    assert abs(one - other) > 0.3
    np.testing.assert_allclose([p.item() for p in flow.parameters], (one + other) / 2, rtol=1e-6)
    np.testing.assert_allclose(flow.observed["swing"][0, 0, -1], (one - other) ** 2 / 2, rtol=1e-6)
    for name in ("loss", "squared_gradient_norms", "squared_norms"):
        expected = getattr(run, name)[0, 0, -2:].mean(0)
        torch.testing.assert_close(getattr(flow, name)[0, 0, -1], expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("product", [0.1, 1.0, 1.7])
def test_few_large_steps_are_not_described(product):
    """For L = w², Σ η²g² is a / (2 − a) w² with a = ηλ, and in the flow [(2 − a)³ + a³] / 8 of it."""
    square = as_problem([[1.0]], [[0.0]], weights=[[[1.0]]], loss="mse")
    law = QuadraticLaws((Term(0, whole, 1),))
    flow = rod_flow(square, product / 2, 200, record_every=200, laws=[law], tolerance=1e-6)
    run = gradient_descent(square, product / 2, 200, record_every=200)
    exact = product / (2 - product)
    torch.testing.assert_close(run.squared_gradient_sums.item() * product**2 / 4, exact, rtol=1e-10, atol=0)
    share = ((2 - product) ** 3 + product**3) / 8
    torch.testing.assert_close(flow.observed["laws"][0, 0, -1].item(), share * exact, rtol=1e-4, atol=0)


@pytest.mark.parametrize("activation", ["linear", "tanh"])
def test_below_the_edge_it_is_gradient_flow(activation):
    problem = draw([42], (20, 8, 6, 5), samples=30, loss="mse", activation=activation, bias=True)
    errors, drifts = [], []
    for eta in (0.04, 0.02):
        flow = rod_flow(problem, eta, round(0.32 / eta), record_every=1000, tolerance=1e-7)
        pairs = zip(problem.parameters, networks_at(problem, eta, [1])[0].parameters, strict=True)
        middle = problem.with_parameters([(a + b) / 2 for a, b in pairs])
        exact = gradient_flow(middle, 0.32, times=2, tolerance=1e-8)
        errors.append(max((a - b).abs().max().item() for a, b in zip(flow.parameters, exact.parameters, strict=True)))
        drifts.append(flow.corrected_drift.abs().max().item())
        assert flow.observed["swing"][0, 0, -1] < 1e-4 * flow.observed["swing"][0, 0, 0]
    assert errors[1] < 0.3 * errors[0] < 1e-3  # x is of first order in η, and moves w̄ by its square
    if activation == "linear":
        assert drifts[1] < 0.3 * drifts[0] < 0.01
    else:
        assert drifts[1] > 0.5 * drifts[0]


def test_networks_go_together_as_alone():
    problem = draw([1, 2], (20, 12, 12, 3), samples=50, loss="mse", activation="tanh")
    together = rod_flow(problem, [0.2, 0.3], 5, record_every=5, tolerance=1e-7)
    for index, eta in enumerate((0.2, 0.3)):
        alone = rod_flow(problem.select([index]), eta, 5, record_every=5, tolerance=1e-7)
        torch.testing.assert_close(together.loss[:, index], alone.loss[:, 0], rtol=1e-3, atol=0)
        laws, expected = together.observed["laws"][:, index, -1], alone.observed["laws"][:, 0, -1]
        torch.testing.assert_close(laws, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


def test_coordinates_of_the_span_change_nothing():
    problem = draw([1], (784, 6, 5, 10), loss="mse", dataset="mnist", samples=500, activation="tanh")
    for name in ("loss", "squared_norms", "squared_gradient_sums"):
        flows = (rod_flow(p, 0.1, 3, record_every=3, tolerance=1e-7) for p in (problem, problem.in_span_of_inputs()))
        torch.testing.assert_close(*(getattr(f, name) for f in flows), rtol=1e-3, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps must be an integer of at least 1, got 0"),
        ({"record_every": 1.5}, r"record_every must be an integer of at least 1, got 1\.5"),
        ({"tolerance": math.inf}, "tolerance must be positive, got inf"),
        ({"learning_rate": [0.1, 0.2]}, "learning_rate must be one positive number or 1"),
        ({"problem": draw([1], dtype="float32")}, "problem must be float64"),
        ({"problem": draw([1], activation="tanh"), "kinks": False}, "kinks may be False where .*, got 'tanh'"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        rod_flow(**{"problem": draw([1], (20, 8, 5)), "learning_rate": 0.1, "steps": 5, **arguments})


def test_flows_that_blow_up_are_errors():
    def with_weights(size):
        weights = [np.full((4, 3), size), np.full((3, 4), size)]
        return as_problem(np.eye(3), np.eye(3), weights=weights, loss="mse", activation="linear")

    with pytest.raises(RuntimeError, match="rod flow must start where the gradient is finite"):
        rod_flow(with_weights(1e200), 0.1, 5)
    with pytest.raises(RuntimeError, match="rod flow could not be integrated beyond step"):
        rod_flow(with_weights(1e60), 1.0, 5)
