"""The central flow: gradient flow below the edge, and at it the predicted drift of every law."""

import math

import numpy as np
import pytest
import torch

from conslaw import as_problem, central_flow, draw, gradient_descent, gradient_flow, networks_at, unit_laws
from conslaw.conserved import quadratic_laws


@pytest.fixture(scope="module")
def at_edge():
    """A network that oscillates at the edge, its centre, and η."""
    problem, eta = draw([1], (20, 24, 24, 2), loss="mse"), 0.2
    first, second = networks_at(problem, eta, [200, 201])
    means = [(a + b) / 2 for a, b in zip(first.parameters, second.parameters, strict=True)]
    return first, problem.with_parameters(means), eta


@pytest.fixture(scope="module")
def flow(at_edge):
    _, centre, eta = at_edge
    return central_flow(centre, eta, 150, record_every=50)


def test_drift_of_every_unit_is_predicted(at_edge, flow):
    start, _, eta = at_edge
    end = gradient_descent(start, eta, 150, record_every=150)
    measured = torch.cat([b - a for a, b in zip(unit_laws(start), unit_laws(end.networks()), strict=True)], 1)[0]
    predicted, oscillation = (flow.observed[name][0, 0, -1] for name in ("laws", "oscillation"))
    assert torch.corrcoef(torch.stack([measured, predicted]))[0, 1] > 0.99
    assert (measured - predicted).abs().sum() < 0.15 * measured.abs().sum()
    smooth = predicted - oscillation  # without the oscillation nearly all of it is missed
    assert (measured - smooth).abs().sum() > 0.9 * measured.abs().sum()
    torch.testing.assert_close(flow.squared_gradient_sums.sum(), end.squared_gradient_sums.sum(), rtol=0.15, atol=0)


def test_records_agree_with_each_other(at_edge, flow):
    _, centre, eta = at_edge
    laws = flow.observed["laws"][..., -1, :].unflatten(2, (2, 24)).sum(3)
    torch.testing.assert_close(laws, eta**2 * flow.imbalance_sum, rtol=1e-9, atol=1e-15)
    assert flow.times.tolist() == [0, 50, 100, 150]
    top = eta / 2 * flow.observed["eigenvalues"][..., 1:, 0]
    assert ((top > 0.985) & (top < 1.005)).all()  # held at the edge, where it would rise
    assert (torch.linalg.eigvalsh(flow.observed["covariance"])[..., -1] > 0).all()
    # w̄ itself is moved by the oscillation alone: the rest is first-order error of the integration.
    path = flow.drift - flow.observed["oscillation"][..., -1, :].unflatten(2, (2, 24)).sum(3)
    assert path.abs().max() < 0.03 * flow.drift.abs().max()
    assert flow.optimizer == "central flow"
    family = quadratic_laws(centre, "layer")
    again = central_flow(centre, eta, 150, record_every=150, laws=family)
    torch.testing.assert_close(again.observed["laws"][..., -1, :], laws, rtol=0.02, atol=1e-5)


def test_finer_steps_change_little(at_edge, flow):
    _, centre, eta = at_edge
    fine = central_flow(centre, eta, 100, record_every=100, tolerance=1e-4)
    coarse, fine = flow.observed["laws"][0, 0, 2], fine.observed["laws"][0, 0, -1]
    assert (coarse - fine).abs().sum() < 0.05 * fine.abs().sum()


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_below_the_edge_it_is_gradient_flow(activation):
    problem = draw([42, 137], (20, 8, 6, 5), samples=30, loss="mse", activation=activation, bias=True)
    errors, drifts, exact = [], [], gradient_flow(problem, 0.25, times=2, tolerance=1e-8)
    for tolerance in (1e-3, 1e-5):
        flow = central_flow(problem, 0.05, 5, record_every=5, tolerance=tolerance)
        pairs = zip(flow.parameters, exact.parameters, strict=True)
        errors.append(max((a - b).abs().max().item() for a, b in pairs))
        drifts.append(flow.corrected_drift.abs().max().item())
        assert flow.observed["covariance"].abs().max() == 0
    assert errors[1] < 1e-3 < 10 * errors[0]
    assert errors[1] < 0.3 * errors[0]  # of first order in the step, which is the root of the tolerance
    if activation == "relu":
        assert drifts[1] < 0.3 * drifts[0] < 0.01
    else:
        assert drifts[1] > 0.5 * drifts[0]


def test_scalar_network_loses_imbalance():
    """For f = b a a step multiplies b² − a² by 1 − η² ε², with ε = ∂L/∂f (Beneventano & Woodworth 2025)."""
    a, b = 0.4, 2.5
    scalar = as_problem([[1.0]], [[1.0]], weights=[[[a]], [[b]]], loss="mse", activation="linear")
    imbalance = b * b - a * a
    eta = 1.01 / (a * a + b * b)  # λ_max = 2 (a² + b²), one per cent beyond the edge
    run = gradient_descent(scalar.with_parameters([w + 0.01 for w in scalar.weights]), eta, 20)
    change = run.conserved_quantity[0, 0, :, 0]
    residual = run.squared_gradient_norms[0, 0, :, 0] / (run.squared_norms[0, 0, :, 1])  # (∂L/∂a)² / b²
    torch.testing.assert_close(change[1:] / change[:-1], 1 - eta**2 * residual[:-1], rtol=1e-13, atol=0)

    flow = central_flow(scalar, eta, 1)
    variance = flow.observed["covariance"][0, 0, 0].diagonal().sum()
    assert variance > 0
    residual = 4 * variance * (a * a + b * b)  # ε² = (2 x)² with x = f − 1, linear in the oscillation along (b, a)
    predicted = 4 * (flow.squared_norms[0, 0, 0].diff() - imbalance)  # 4 tr(QΣ), as squared norms hold w̄ and Σ
    # 4 tr(QΣ) is for λ = 2/η, and this λ is one per cent above.
    np.testing.assert_allclose(predicted, -(eta**2) * residual * imbalance / 1.01**2, rtol=1e-9)


def test_networks_go_together_as_alone():
    problem = draw([1, 2], (20, 12, 12, 3), samples=50, loss="mse")
    together = central_flow(problem, [0.2, 0.3], 10, record_every=10, tolerance=1e-4)
    for index, eta in enumerate((0.2, 0.3)):
        alone = central_flow(problem.select([index]), eta, 10, record_every=10, tolerance=1e-4)
        torch.testing.assert_close(together.loss[:, index], alone.loss[:, 0], rtol=1e-2, atol=0)
        laws, expected = together.observed["laws"][:, index, -1], alone.observed["laws"][:, 0, -1]
        torch.testing.assert_close(laws, expected, rtol=0.05, atol=0.02 * expected.abs().max().item())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps must be an integer of at least 1, got 0"),
        ({"steps": True}, "steps must be an integer"),
        ({"record_every": 1.5}, r"record_every must be an integer of at least 1, got 1\.5"),
        ({"modes": 0}, "modes must be an integer of at least 1, got 0"),
        ({"tolerance": 0.0}, r"tolerance must be positive, got 0\.0"),
        ({"tolerance": math.nan}, "tolerance must be positive, got nan"),
        ({"learning_rate": -1.0}, r"learning_rate must be one positive number or 1, got -1\.0"),
        ({"learning_rate": [0.1, 0.2]}, "learning_rate must be one positive number or 1"),
        ({"learning_rate": "fast"}, "learning_rate must be one number or 1, got 'fast'"),
        ({"problem": draw([1], dtype="float32")}, "problem must be float64"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        central_flow(**{"problem": draw([1], (20, 8, 5)), "learning_rate": 0.1, "steps": 5, **arguments})


def test_more_modes_than_allowed_and_runs_that_blow_up_are_errors():
    problem = draw([1], (20, 16, 16, 5), loss="mse")
    with pytest.raises(RuntimeError, match="more than 1 eigenvalues are at 2/η"):
        central_flow(problem, 3.0, 50, modes=1)
    weights = [np.full((4, 3), 1e200), np.full((3, 4), 1e200)]
    huge = as_problem(np.eye(3), np.eye(3), weights=weights, loss="mse")
    with pytest.raises(RuntimeError, match="loss on the central flow has become infinite"):
        central_flow(huge, 0.1, 5)
