"""Both grids of one problem, and the sharpness that the second is relative to."""

import numpy as np
import pytest

from conslaw import draw, gradient_descent, sharpness
from conslaw.theory.grids import initial_sharpness, train_on_grids


@pytest.mark.parametrize("kind", [("mse", "linear", False), ("mse", "linear", True), ("cross_entropy", "relu", False)])
def test_grids(kind):
    loss, activation, bias = kind
    problem = draw([42, 137], (20, 8, 5), loss=loss, activation=activation, bias=bias)
    grids = train_on_grids(problem, [0.01, 0.1], [0.1, 0.3, 0.5], 40)
    np.testing.assert_allclose(grids.sharpness, sharpness(problem).value, rtol=1e-7)
    np.testing.assert_allclose(grids.sharpness, initial_sharpness(problem))
    np.testing.assert_allclose(grids.scaled.learning_rates[2], 1 / grids.sharpness)  # half of 2/λ_max(0)
    run = gradient_descent(problem, [0.01, 0.1], 40)
    np.testing.assert_allclose(grids.drift, run.drift[..., 0].abs(), rtol=1e-9)
    assert grids.relative_drift.shape == (3, 2)
    assert (grids.relative_drift > 0).all()
    assert grids.run.times.tolist() == [0, 40]


def test_a_diverged_network_has_no_drift():
    grids = train_on_grids(draw([42], (20, 8, 5), loss="mse"), [1e4], [0.1], 60)
    assert np.isnan(grids.drift).all()
    assert np.isfinite(grids.relative_drift).all()
