"""The compiled steps against numpy and against those in torch."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conslaw import as_problem, draw, gradient_descent
from conslaw.training import _compiled, _kernel
from conslaw.training._compiled import CompiledSteps

FEW = st.integers(1, 9)


@pytest.fixture
def both_ways(monkeypatch):
    """Train with the compiled steps, and again with those in torch."""

    def train(*arguments, **options):
        here = gradient_descent(*arguments, **options)
        with monkeypatch.context() as patch:
            patch.setattr(CompiledSteps, "takes", staticmethod(lambda _: False))
            return here, gradient_descent(*arguments, **options)

    return train


@settings(max_examples=200)
@given(FEW, FEW, st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_products(rows, terms, columns, seed):
    random = np.random.default_rng(seed)
    a, b, out = (
        random.normal(size=(rows, terms)),
        random.normal(size=(terms, columns)),
        np.full((rows, columns), np.nan),
    )
    _kernel._product(a, b, out)
    np.testing.assert_allclose(out, a @ b, rtol=1e-13, atol=1e-13)
    _kernel._product(np.ascontiguousarray(a.T).T, b, out)
    np.testing.assert_allclose(out, a @ b, rtol=1e-13, atol=1e-13)
    _kernel._add_product_with_transposed(a, np.ascontiguousarray(b.T), out)
    np.testing.assert_allclose(out, 2 * (a @ b), rtol=1e-13, atol=1e-13)


@settings(max_examples=200)
@given(st.lists(st.floats(-800, 0), min_size=1, max_size=40))
def test_exponential(values):
    for dtype, smallest in ((np.float64, 1e-307), (np.float32, 1e-37)):
        x = np.array(values, dtype)
        expected = np.exp(x)
        _kernel._exponential(x)
        np.testing.assert_allclose(x, expected, rtol=2 * np.finfo(dtype).eps, atol=smallest)
    x = np.array([-np.inf, np.nan, 0.0])
    _kernel._exponential(x)
    assert x[0] <= 5e-324
    assert np.isnan(x[1])
    assert x[2] == 1


@pytest.mark.parametrize("widths", [(20, 64, 5), (20, 7, 6, 5, 3), (20, 1, 2), (20, 16, 12, 1)])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", 0.3])
@pytest.mark.parametrize("loss", ["mse", "cross_entropy", 0.4])
def test_steps_are_those_in_torch(widths, activation, loss, both_ways):
    problem = draw([1, 2, 3], widths, loss=loss, activation=activation)
    assert CompiledSteps.takes(problem)
    observe = {"last layer": lambda networks: networks.weights[-1][:, 0]}
    options = {"record_every": 7, "record_at": [64, 65], "observe": observe}
    here, there = both_ways(problem, [0.01, 0.05], 150, **options)
    assert torch.equal(here.times, there.times)
    for name in ("loss", "squared_norms", "squared_gradient_norms", "squared_gradient_sums"):
        torch.testing.assert_close(getattr(here, name), getattr(there, name), rtol=1e-10, atol=1e-14)
    pairs = zip(
        (*here.parameters, here.observed["last layer"]), (*there.parameters, there.observed["last layer"]), strict=True
    )
    for ours, others in pairs:
        torch.testing.assert_close(ours, others, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("loss", ["mse", 0.4])
def test_float32_is_that_in_torch(loss, both_ways):
    problem = draw([1, 2, 3], (20, 17, 6, 5), loss=loss, activation=0.3).to("float32")
    assert CompiledSteps.takes(problem)
    here, there = both_ways(problem, 0.1, 70, record_every=10)
    assert here.parameters[0].dtype == torch.float32
    for name in ("loss", "squared_norms", "squared_gradient_norms", "squared_gradient_sums"):
        torch.testing.assert_close(getattr(here, name), getattr(there, name), rtol=1e-5, atol=1e-7)
    norms = here.squared_norms.sqrt()  # have been rounded to float32, as the published ones
    torch.testing.assert_close(norms, norms.float().double(), rtol=1e-15, atol=0)


@pytest.mark.parametrize("samples", [63, 64, 65, 200])
@pytest.mark.parametrize("shared", [False, True])
def test_tiles_of_samples_change_nothing(samples, shared, both_ways, monkeypatch):
    problem = draw([1, 2, 3], (20, 9, 7, 5), samples=samples, loss=0.4)
    if shared:
        problem = as_problem(problem.inputs[0].T, problem.targets[0].T, weights=problem.weights, loss=0.4)
    whole = gradient_descent(problem, 0.1, 30)
    monkeypatch.setattr(_compiled, "CACHE_BYTES", 1)
    for other in both_ways(problem, 0.1, 30):
        torch.testing.assert_close(whole.loss, other.loss, rtol=1e-12, atol=0)
        torch.testing.assert_close(whole.drift, other.drift, rtol=1e-10, atol=1e-13)


def test_one_network_with_several_learning_rates_is_left_alone(both_ways):
    problem = draw([1])
    before = [p.clone() for p in problem.parameters]
    here, there = both_ways(problem, [0.01, 0.1, 1.0], 70)
    torch.testing.assert_close(here.drift, there.drift, rtol=1e-10, atol=1e-13)
    assert all(torch.equal(p, q) for p, q in zip(problem.parameters, before, strict=True))


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_divergence_is_that_in_torch(loss, both_ways):
    problem, rates = draw([1, 2, 3], loss=loss), [0.1, 1e3, 1e150]
    here, there = both_ways(problem, rates, 300)
    assert (here.diverged_at[0] == -1).all()
    assert (here.diverged_at[2] >= 0).all()
    # The step may differ by one, as torch divides the sum of the losses of all samples, which is infinite earlier.
    assert (here.diverged_at - there.diverged_at).abs().max() <= 1
    torch.testing.assert_close(here.loss[0], there.loss[0], rtol=1e-10, atol=0)


def test_threads_change_nothing():
    problem, threads = draw(range(7)), torch.get_num_threads()
    several = gradient_descent(problem, [0.1, 0.5], 100)
    torch.set_num_threads(1)
    try:
        one = gradient_descent(problem, [0.1, 0.5], 100)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(several.loss, one.loss)
    assert torch.equal(several.drift, one.drift)


def test_what_is_left_to_torch():
    problem = draw([1, 2])
    assert CompiledSteps.takes(problem)
    assert not CompiledSteps.takes(problem.under(activation="tanh"))
    assert not CompiledSteps.takes(problem.under(activation="linear"))
    assert not CompiledSteps.takes(draw([1, 2], bias=True))
    assert not CompiledSteps.takes(draw([1, 2], (20, 5)))


TRAIN = """
import warnings
import conslaw
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    run = conslaw.gradient_descent(conslaw.draw([42], (20, 8, 5)), 0.1, 3)
print(run.drift.item(), len([w for w in caught if "cache" in str(w.message)]))
"""


@pytest.fixture(scope="module")
def train_elsewhere(tmp_path_factory):
    """Train in another process whose compilation cache is in a given folder; return the drift, and the warnings."""

    def train(folder):
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder)}
        done = subprocess.run(
            [sys.executable, "-c", TRAIN], env=environment, capture_output=True, encoding="utf-8", check=True
        )
        drift, warned = done.stdout.split()
        return float(drift), int(warned)

    return train


@pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="nothing is compiled")
def test_a_truncated_cache_costs_time_and_nothing_else(tmp_path, train_elsewhere):
    expected = pytest.approx(gradient_descent(draw([42], (20, 8, 5)), 0.1, 3).drift.item())
    assert train_elsewhere(tmp_path) == (expected, 0)
    for path in tmp_path.rglob("*.nb*"):
        path.write_bytes(path.read_bytes()[:20])
    assert train_elsewhere(tmp_path) == (expected, 1)


@pytest.mark.parametrize("error", [RuntimeError("cannot cache"), OSError(28, "No space left on device")])
def test_no_place_for_a_cache(error, monkeypatch):
    fresh, calls = _compiled._kernel, []

    def without_place(cached):
        calls.append(cached)
        if cached:
            raise error
        return fresh(False)

    monkeypatch.setattr(_compiled, "_kernel", without_place)
    monkeypatch.setattr(_compiled, "_cache_is_usable", True)
    problem = draw([42], (20, 8, 5))
    with pytest.warns(UserWarning, match="numba's cache cannot be used"):
        run = gradient_descent(problem, 0.1, 70)
    assert calls == [True, False, False]  # asked once, not at every block of steps
    monkeypatch.undo()
    torch.testing.assert_close(run.drift, gradient_descent(problem, 0.1, 70).drift)
