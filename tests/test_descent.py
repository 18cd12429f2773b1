"""Gradient descent: the theory's identities, torch.optim.SGD, one network at a time, published values."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from conslaw import (
    Adam,
    Momentum,
    Problem,
    SharpnessObserver,
    as_problem,
    draw,
    gradient_descent,
    loss_and_gradients,
    networks_at,
)
from conslaw.paper.notebooks import NOTEBOOKS
from conslaw.theory.switching import LayerSwitchObserver, SwitchObserver
from conslaw.training import _chunk
from conslaw.training.optimizers import optimizer_name

SEEDS = [42, 137, 256, 512, 1024]


def test_same_as_torch_sgd():
    problem = draw([42], bias=True)
    run = gradient_descent(problem, 0.05, 100)
    network = torch.nn.Sequential(torch.nn.Linear(20, 64), torch.nn.ReLU(), torch.nn.Linear(64, 5)).double()
    with torch.no_grad():
        for layer, weight, bias in zip((network[0], network[2]), problem.weights, problem.biases, strict=True):
            layer.weight.copy_(weight[0])
            layer.bias.copy_(bias[0])
    optimizer, losses = torch.optim.SGD(network.parameters(), lr=0.05), []
    inputs, labels = problem.inputs[0].T, problem.targets[0].argmax(0)
    for _ in range(100):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(inputs), labels)
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(run.loss[0, 0, :-1], torch.tensor(losses, dtype=torch.float64), rtol=1e-10, atol=0)
    final = [network[0].weight, network[2].weight, network[0].bias, network[2].bias]
    for ours, theirs in zip(run.parameters, final, strict=True):
        torch.testing.assert_close(ours[0, 0], theirs.detach(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("momentum", lambda parameters: torch.optim.SGD(parameters, lr=0.02, momentum=0.9)),
        (Momentum(0.5), lambda parameters: torch.optim.SGD(parameters, lr=0.02, momentum=0.5)),
        ("adam", lambda parameters: torch.optim.Adam(parameters, lr=0.02)),
        (
            Adam((0.8, 0.99), 1e-3),
            lambda parameters: torch.optim.Adam(parameters, lr=0.02, betas=(0.8, 0.99), eps=1e-3),
        ),
    ],
)
def test_same_as_the_optimizers_of_torch(ours, theirs):
    problem = draw([42], (20, 16, 12, 5))
    run = gradient_descent(problem, 0.02, 100, optimizer=ours)
    weights = [weight[0].clone().requires_grad_() for weight in problem.weights]
    optimizer, labels = theirs(weights), problem.targets[0].argmax(0)
    for _ in range(100):
        optimizer.zero_grad()
        hidden = torch.relu(weights[1] @ torch.relu(weights[0] @ problem.inputs[0]))
        torch.nn.functional.cross_entropy((weights[2] @ hidden).T, labels).backward()
        optimizer.step()
    for mine, other in zip(run.parameters, weights, strict=True):
        torch.testing.assert_close(mine[0, 0], other.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_drift_of_any_optimizer_is_cross_part_and_step_part(optimizer):
    run = gradient_descent(draw([1, 2], (20, 16, 12, 5)), [0.001, 0.02], 70, optimizer=optimizer)
    assert ((run.drift - run.cross_part - run.step_part).abs() / run.squared_norms[:, :, 0, :1]).max() < 1e-12
    assert run.cross_part.abs().min() > 1e-6
    plain = gradient_descent(draw([1, 2]), 0.02, 70)
    torch.testing.assert_close(plain.step_part, plain.drift, rtol=1e-9, atol=1e-12)
    still = gradient_descent(draw([1, 2]), 0.02, 70, optimizer=Momentum(0.0))
    torch.testing.assert_close(still.drift, plain.drift, rtol=1e-9, atol=1e-12)
    assert still.cross_part.abs().max() < 1e-12


def test_momentum_multiplies_the_drift_with_an_end_term():
    problem, rate, factor, velocity = draw([1, 2], (20, 16, 5)), 0.03, 0.8, []

    class Spy(Momentum):
        def directions(self, gradients, state, step):
            velocity[:] = super().directions(gradients, state, step)
            return velocity

    run = gradient_descent(problem, rate, 50, optimizer=Spy(factor))
    first, second = (
        torch.linalg.vecdot(w[0].flatten(1), u.flatten(1)) for w, u in zip(run.parameters, velocity, strict=True)
    )
    predicted = (1 + factor) / (1 - factor) * run.step_part[0, :, 0] + 2 * rate * factor / (1 - factor) * (
        second - first
    )
    torch.testing.assert_close(run.drift[0, :, 0], predicted, rtol=1e-9, atol=1e-12)


def test_a_diverged_network_leaves_the_optimizer_of_the_others_alone():
    problem = draw(SEEDS, (20, 16, 5), loss="mse")
    together = gradient_descent(problem, [0.01, 1e150], 150, optimizer="momentum")
    assert (together.diverged_at >= 0).tolist() == [[False] * 5, [True] * 5]
    alone = gradient_descent(problem, 0.01, 150, optimizer="momentum")
    torch.testing.assert_close(together.drift[0], alone.drift[0], rtol=1e-9, atol=1e-12)
    assert together.step_part[1].isnan().all()


@pytest.mark.parametrize("widths", [(20, 64, 5), (20, 16, 12, 5), (20, 8, 8, 8, 5)])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("activation", ["relu", "linear", "leaky_relu"])
def test_drift_is_exactly_the_imbalance_sum(widths, bias, activation):
    run = gradient_descent(draw([1, 2], widths, bias=bias, activation=activation), [0.01, 0.2], 60)
    predicted = run.learning_rates[..., None] ** 2 * run.corrected_imbalance_sum
    scale = run.squared_norms[:, :, 0].sum(-1, keepdim=True)
    assert ((run.corrected_drift - predicted).abs() / scale).max() < 1e-12
    if not bias:
        assert torch.equal(run.drift, run.corrected_drift)
        assert torch.equal(run.imbalance_sum, run.corrected_imbalance_sum)
    else:
        uncorrected = run.learning_rates[..., None] ** 2 * run.imbalance_sum
        assert ((run.drift - uncorrected).abs() / scale).max() > 1e-6


def test_tanh_has_no_such_law():
    run = gradient_descent(draw([1], activation="tanh"), 0.1, 50)
    assert (run.drift / (0.1**2 * run.imbalance_sum) - 1).abs().item() > 0.1


def test_batched_equals_one_at_a_time():
    rates = [0.01, 0.3]
    together = gradient_descent(draw(SEEDS), rates, 200)
    for column, seed in enumerate(SEEDS):
        for row, rate in enumerate(rates):
            alone = gradient_descent(draw([seed]), rate, 200)
            torch.testing.assert_close(together.loss[row, column], alone.loss[0, 0], rtol=1e-10, atol=1e-14)
            torch.testing.assert_close(together.drift[row, column], alone.drift[0, 0], rtol=1e-10, atol=1e-13)


def test_what_is_recorded_does_not_change_what_happens():
    problem = draw([1, 2])
    before = [p.clone() for p in problem.parameters]
    threads = torch.get_num_threads()

    def first(networks):
        return networks.weights[0][:, 0, 0]

    observe = {"first": first, "now and then": (first, [0, 3, 64, 77])}
    every = gradient_descent(problem, 0.1, 150, observe=observe)
    some = gradient_descent(problem, 0.1, 150, record_every=40, record_at=[1, 80], observe=observe)
    assert some.times.tolist() == [0, 1, 40, 80, 120, 150]
    assert torch.equal(every.loss[:, :, some.times], some.loss)
    assert torch.equal(every.observed["first"][:, :, some.times], some.observed["first"])
    for run in (every, some):
        assert torch.equal(every.observed["first"][:, :, [0, 3, 64, 77]], run.observed["now and then"])
    assert torch.equal(every.conserved_quantity[:, :, some.times], some.conserved_quantity)
    assert torch.equal(every.imbalance_sum, some.imbalance_sum)
    torch.testing.assert_close(every.imbalance_sum, every.gradient_imbalance[:, :, :-1].sum(2))
    assert torch.equal(every.observed["first"][0, :, 0], problem.weights[0][:, 0, 0])  # a view of weights in training
    assert torch.equal(every.observed["first"][0, :, -1], every.parameters[0][0, :, 0, 0])
    for run in (every, gradient_descent(problem, 0.1, 150)):  # in blocks of one step, and of many
        assert torch.equal(run.loss_before_last_update, run.loss[:, :, -2])
    assert all(torch.equal(p, q) for p, q in zip(problem.parameters, before, strict=True))
    assert torch.get_num_threads() == threads


def test_divergence_is_flagged_and_harms_no_other():
    problem = draw(SEEDS, (20, 192, 5), loss="mse", activation="linear")
    run = gradient_descent(problem, [0.01, 0.1], 200)
    gone = run.diverged_at >= 0
    assert gone.tolist() == [[False] * 5, [True, False, True, False, True]]  # published: NaN for seeds 42, 256, 1024
    assert run.diverged_at[1, 0] < 200
    for row, column in gone.nonzero().tolist():
        step = run.diverged_at[row, column]
        assert run.loss[row, column, :step].isfinite().all()
        assert run.loss[row, column, step:].isnan().all()
        assert run.drift[row, column].isnan().all()
        assert run.imbalance_sum[row, column].isnan().all()
    survivor = gradient_descent(problem.select([1]), 0.1, 200)
    torch.testing.assert_close(run.drift[1, 1], survivor.drift[0, 0], rtol=1e-9, atol=0)


def test_all_diverged():
    run = gradient_descent(draw([1], (20, 16, 5), loss="mse", activation="linear"), 1e3, 300)
    assert run.diverged_at.item() >= 0
    assert run.parameters[0].isnan().all()


def test_norms_whose_sum_overflows_have_diverged_without_a_warning():
    norms = np.array([[1.0, 2.0], [1.7e308, 1.7e308]])
    with np.errstate(over="raise"):
        assert _chunk._is_sound(np.ones(2), norms).tolist() == [True, False]


def test_sufficient_statistics_are_exact():
    problem = draw(SEEDS, (20, 16, 5), loss="mse", activation="linear")
    assert problem.reduced().inputs.shape == (5, 20, 25)
    assert problem.reduced().samples == problem.samples
    own = {"nothing": lambda networks: networks.weights[0][:, 0, 0]}  # with an observable, data stay as they are
    full = gradient_descent(problem, [0.01, 0.05], 300, observe=own)
    reduced = gradient_descent(problem, [0.01, 0.05], 300)
    torch.testing.assert_close(full.loss, reduced.loss, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(full.conserved_quantity, reduced.conserved_quantity, rtol=1e-12, atol=0)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("watched", [False, True])
def test_statistics_are_taken_where_they_are_exact_and_nowhere_else(bias, watched, monkeypatch):
    problem, taken, reduce = draw([1, 2], (6, 4, 3), loss="mse", activation="linear", bias=bias), [], Problem.reduced
    monkeypatch.setattr(Problem, "reduced", lambda self: taken.append(self) or reduce(self))
    observe = {"columns": lambda networks: networks.inputs[:, 0, 0]} if watched else None
    run = gradient_descent(problem, 0.1, 40, observe=observe)
    assert len(taken) == (not bias and not watched)
    weights = [w[0].clone().requires_grad_() for w in problem.parameters]
    for _ in range(40):
        outputs = problem.inputs[0]
        for layer, weight in enumerate(weights[:2]):
            outputs = weight @ outputs + (weights[2 + layer].unsqueeze(1) if bias else 0)
        gradients = torch.autograd.grad(torch.nn.functional.mse_loss(outputs, problem.targets[0]), weights)
        weights = [(w - 0.1 * g).detach().requires_grad_() for w, g in zip(weights, gradients, strict=True)]
    for ours, theirs in zip(run.parameters, weights, strict=True):
        torch.testing.assert_close(ours[0, 0], theirs.detach(), rtol=1e-10, atol=1e-12)


@pytest.fixture(scope="module")
def published_runs():
    published = pd.read_csv(NOTEBOOKS / "published" / "fig1b_drift_scaling.csv").pivot(index="eta", columns="seed")
    rates = published.index.to_numpy()
    run = gradient_descent(draw(SEEDS), rates, 2000, record_every=2000)
    return rates, np.abs(run.drift[..., 0].numpy()), published["drift"][SEEDS].to_numpy()


@pytest.mark.parametrize(
    ("rate", "tolerance"),
    # Published drifts are float32: the rounding of 2000 updates is about 1e-6 to 1e-5, whatever the learning rate.
    [
        (1e-4, 0.4),
        (3e-4, 0.03),
        (1e-3, 0.01),
        (3e-3, 6e-3),
        (0.01, 1e-3),
        (0.03, 4e-4),
        (0.1, 2e-4),
        (0.3, 3e-5),
        (1.0, 1e-5),
    ],
)
def test_published_drifts_seed_by_seed(published_runs, rate, tolerance):
    rates, here, published = published_runs
    row = list(rates).index(rate)
    np.testing.assert_allclose(here[row], published[row], rtol=tolerance)


def test_published_imbalances():
    run = gradient_descent(draw([42]), 0.01, 30)
    np.testing.assert_allclose(
        run.gradient_imbalance[0, 0, ::10, 0], [2.754334, 1.863160, 1.161383, 0.692526], rtol=2e-6
    )
    np.testing.assert_allclose(run.loss[0, 0, ::10], [1.645257, 1.140678, 0.802774, 0.579480], rtol=2e-6)


def test_float32_is_close():
    problem = draw([42])
    double, single = (gradient_descent(problem.to(dtype), 0.1, 100) for dtype in ("float64", torch.float32))
    torch.testing.assert_close(double.loss, single.loss, rtol=1e-4, atol=1e-6)
    assert single.parameters[0].dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"learning_rates": 0.0}, "learning_rates must be positive"),
        ({"learning_rates": [0.1, -1]}, "learning_rates must be positive"),
        ({"learning_rates": float("nan")}, "learning_rates must be positive"),
        ({"learning_rates": []}, "learning_rates must have shape"),
        ({"learning_rates": np.ones((2, 3))}, "learning_rates must have shape"),
        ({"learning_rates": "fast"}, "learning_rates must be numbers, got 'fast'"),
        ({"learning_rates": None}, "learning_rates must be"),
        ({"learning_rates": "0.1"}, "learning_rates must be numbers, got '0.1'"),
        ({"learning_rates": True}, "learning_rates must be numbers, got True"),
        ({"record_at": 5}, "record_at must be times from 0 to 2, got 5"),
        ({"record_at": [True]}, "record_at must be times from 0 to 2"),
        ({"observe": {"x": 3}}, r"observe\['x'\] must be a function, or a pair of one and of times"),
        ({"observe": {"x": lambda n: n.weights[0].mean()}}, r"observe\['x'\] must return a real tensor \(1, …\)"),
        ({"observe": {"x": lambda n: torch.ones(2)}}, r"observe\['x'\] must return a real tensor .* got \(2,\)"),
        ({"observe": {"x": lambda n: 1.0}}, r"observe\['x'\] must return a real tensor .* got float"),
        (
            {"observe": {"x": lambda n: torch.ones(1, n.step + 1)}},
            r"the same shape at all times, got \(2,\) after \(1,\)",
        ),
        ({"steps": 0}, "steps must be an integer of at least 1, got 0"),
        ({"steps": 1e2}, "steps must be an integer of at least 1, got 100.0"),
        ({"steps": True}, "steps must be an integer"),
        ({"record_every": 0}, "record_every must be an integer of at least 1, got 0"),
        ({"record_at": [0.5]}, "record_at must be times from 0 to 2"),
        ({"record_at": [3]}, "record_at must be times from 0 to 2"),
        ({"observe": {"loss": (len, [0, 3])}}, "times in observe.*loss.* must be times from 0 to 2"),
        ({"observe": {"loss": (len, [1, 2])}}, "times in observe.*loss.* must ascend from 0 to at most 2"),
        ({"optimizer": "sgd"}, "optimizer must be one of gd, momentum, adam"),
        ({"optimizer": len}, "optimizer must be one of gd, momentum, adam or an Optimizer"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        gradient_descent(draw([1]), **{"learning_rates": 0.1, "steps": 2, **arguments})


def test_bad_optimizers():
    with pytest.raises(ValueError, match="factor must be from 0 to below 1, got 1"):
        Momentum(1.0)
    with pytest.raises(ValueError, match="epsilon positive"):
        Adam(epsilon=0.0)


def test_divergence_in_the_last_step_leaves_no_sums():
    problem = draw([1], (20, 8, 5), loss="mse")
    run = gradient_descent(problem, 1e4, 60)
    last = int(run.diverged_at)
    until = gradient_descent(problem, 1e4, last)
    assert until.diverged_at.item() == last
    for values in (until.drift, until.imbalance_sum, until.step_part):
        assert values.isnan().all()


def test_trained_networks_are_those_of_the_trajectory():
    run = gradient_descent(draw([1, 2]), [0.1, 0.2], 5)
    for rate in range(2):
        loss, _ = loss_and_gradients(run.networks(rate))
        torch.testing.assert_close(loss, run.loss[rate, :, -1])


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_devices_agree():
    runs = [gradient_descent(draw(SEEDS, device=device), [0.01, 0.1], 200) for device in ("cpu", "cuda")]
    torch.testing.assert_close(runs[0].loss, runs[1].loss, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(runs[0].drift, runs[1].drift, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_what_float32_cannot_hold_has_diverged_in_any_precision(dtype):
    """Three layers at η = 1: in float64 the run blows up, loses all its units and ends at a finite loss."""
    problem = draw([42], (20, 64, 64, 5), dtype=dtype)
    run = gradient_descent(problem, 1.0, 300)
    assert 0 <= run.diverged_at.item() < 50
    assert run.drift.isnan().all()
    assert run.loss[0, 0, int(run.diverged_at) :].isnan().all()


def test_networks_that_end_without_a_gradient_are_flagged():
    problem = as_problem([[1.0], [2.0]], [[1.0], [1.0]], weights=[[[1.0]], [[-3.0]]], loss="mse", activation="relu")
    run = gradient_descent(problem, [1e-3, 0.9], 5)  # the larger step makes W_1 negative: the unit is off for ever
    assert run.dead.tolist() == [[False], [True]]
    assert run.diverged_at.tolist() == [[-1], [-1]]
    assert run.loss[1, 0, -1] == 1.0
    diverged = gradient_descent(draw([1], (20, 8, 5), loss="mse"), 1e4, 60)
    assert not diverged.dead.any()


def test_times_may_be_a_tensor():
    problem = draw([1])
    run = gradient_descent(problem, 0.1, 6, record_every=2, record_at=torch.tensor([2, 3]))
    assert run.times.tolist() == [0, 2, 3, 4, 6]
    same = gradient_descent(problem, 0.1, 6, record_every=2, record_at=np.array([3]))
    assert torch.equal(run.squared_norms, same.squared_norms)
    assert run.drift.isfinite().all()


def test_energy_ratio_of_one_quadratic_mode():
    """With L = (w x − y)²/… only one weight moves along a quadratic of curvature λ: E = 1 / (1 − ηλ/2) exactly."""
    problem = as_problem([[2.0]], [[0.0]], weights=[[[3.0]]], loss="mse", activation="linear")
    curvature, rates = 8.0, [0.01, 0.1, 0.2]  # L = 4 w²
    run = gradient_descent(problem, rates, 7)
    expected = 1 / (1 - torch.tensor(rates, dtype=torch.float64) * curvature / 2)
    torch.testing.assert_close(run.energy_ratio[:, 0], expected, rtol=1e-12, atol=0)


def test_weights_may_require_grad_in_the_users_model():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4, bias=False), torch.nn.ReLU(), torch.nn.Linear(4, 2, bias=False))
    inputs, labels = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), [0, 1, 0, 1, 1, 0]
    problem = as_problem(inputs, labels, weights=list(model.parameters()))
    run = gradient_descent(problem, 0.1, 3)
    assert not any(parameter.requires_grad for parameter in run.parameters)
    learned = problem.with_parameters([p.clone().requires_grad_() for p in problem.parameters])
    torch.testing.assert_close(gradient_descent(learned, 0.1, 3).drift, run.drift)


@pytest.mark.parametrize("cache_bytes", [1, 2**14, 2**21])
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("kind", [{"activation": "relu"}, {"activation": "tanh"}, {"loss": "mse", "activation": 0.5}])
def test_neither_chunks_nor_threads_change_a_number(cache_bytes, threads, kind, monkeypatch):
    problem, before = draw(SEEDS, (20, 12, 5), samples=40, **kind), torch.get_num_threads()
    observe = {"sharpness": SharpnessObserver(1e-2), "switches": SwitchObserver()}

    def train():
        return gradient_descent(problem, [0.05, 0.2, 1e3], 40, record_every=10, observe=observe)

    reference = train()
    monkeypatch.setattr(_chunk, "CACHE_BYTES", cache_bytes)
    torch.set_num_threads(threads)
    try:
        again = train()
    finally:
        torch.set_num_threads(before)
    options = {"rtol": 1e-11, "atol": 1e-14, "equal_nan": True}
    for name in ("loss", "squared_norms", "diverged_at"):
        torch.testing.assert_close(getattr(again, name), getattr(reference, name), **options)
    for name in observe:
        torch.testing.assert_close(again.observed[name], reference.observed[name], **options)


@pytest.mark.parametrize("observable", ["sharpness", "switches", "layers"])
def test_a_network_that_diverges_changes_nothing_of_its_neighbours(observable):
    problem = draw([42, 137], (20, 16, 5), samples=50, loss="mse")
    observers = {
        "sharpness": lambda: SharpnessObserver(1e-2),
        "switches": SwitchObserver,
        "layers": LayerSwitchObserver,
    }
    together, alone = (
        gradient_descent(problem, rates, 30, observe={observable: observers[observable]()})
        for rates in ([0.05, 1000.0], [0.05])
    )
    assert (together.diverged_at >= 0).tolist() == [[False, False], [True, True]]
    ours, theirs = together.observed[observable][0], alone.observed[observable][0]
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14, equal_nan=True)
    assert ours[:, 1:].isfinite().all()


def test_observers_are_told_which_runs_they_see():
    seen, problem = [], draw([1, 2], (20, 8, 5), loss="mse")

    def observe(networks):
        seen.append((networks.runs.tolist(), networks.origin.seeds))
        return networks.weights[0][:, 0, 0]

    gradient_descent(problem, [0.01, 1e5], 70, record_every=70, observe={"x": (observe, [0, 70])})
    assert seen == [([0, 1, 2, 3], (1, 2, 1, 2)), ([0, 1], (1, 2))]
    assert problem.runs is None


def test_what_is_observed_of_a_network_before_it_diverges_stays():
    problem, first = draw([1], (20, 8, 5), loss="mse"), lambda networks: networks.weights[0][:, 0, 0]
    every, some = (
        gradient_descent(problem, 1e5, 70, observe={"x": (first, times)}) for times in (list(range(71)), [0, 70])
    )
    at = int(every.diverged_at)
    assert 0 < at < 64  # within a block of steps between two looks
    assert every.observed["x"][0, 0].isfinite().tolist() == [time < at for time in range(71)]
    assert some.observed["x"][0, 0].isfinite().tolist() == [True, False]


def test_networks_at_checks_its_arguments():
    problem = draw([1, 2], (20, 8, 5))
    assert len(networks_at(problem, [0.1, 0.2], torch.tensor([0, 2]))) == 2
    for rate, times, message in (
        ([0.1, 0.2, 0.3], [1], "learning_rate must be one number, or one for each of 2 networks"),
        (-0.1, [0], "learning_rates must be positive"),
        (0.1, [2.5], "times must be times from 0"),
        (0.1, [], "times must be ascending"),
        (0.1, [-1, 2], "times must be"),
    ):
        with pytest.raises(ValueError, match=message):
            networks_at(problem, rate, times)


def test_optimizers_have_names_of_their_own():
    names = [optimizer_name(o) for o in ("gd", "momentum", Momentum(), Momentum(0.5), Adam(), Adam(epsilon=1e-3))]
    assert names[:3] == ["gd", "momentum", "momentum"]
    assert names[3:] == ["Momentum(factor=0.5)", "adam", "Adam(decays=(0.9, 0.999), epsilon=0.001)"]
    for wrong in (
        lambda: Momentum("a"),
        lambda: Adam(0.9),
        lambda: Adam(epsilon=float("inf")),
        lambda: Adam((0.9, "b")),
        lambda: Adam((0.9,)),
    ):
        with pytest.raises(ValueError, match="must be"):
            wrong()


def test_a_network_that_has_fitted_everything_is_not_dead():
    problem = as_problem([[1.0], [2.0]], [[3.0], [6.0]], weights=[[[1.0]], [[3.0]]], loss="mse", activation="relu")
    run = gradient_descent(problem, 0.01, 3)
    assert run.loss[0, 0, -1] == 0
    assert not run.dead.any()


def test_what_is_sound():
    losses = torch.tensor([1.0, 3.4e38, 3.5e38, torch.inf, torch.nan, 1.0, 1.0, 1.0]).double()
    losses[2] = 3.5e38
    gradients = torch.tensor([[1.0, 1.0]] * 5 + [[2e38, 1e38], [2e38, 2e38], [torch.nan, 1.0]]).double()
    expected = [True, True, False, False, False, True, False, False]
    assert _chunk._is_sound(losses, gradients).tolist() == expected


@pytest.mark.parametrize("rates", [[0.1, 0.2], [0.1, 1e5], [1e5]])
def test_a_bar_comes_to_its_end(rates, monkeypatch):
    bars = []

    def progress_bar(total, title):
        bars.append(SimpleNamespace(total=total, title=title, steps=0))
        bars[0].update = lambda steps: setattr(bars[0], "steps", bars[0].steps + steps)
        return nullcontext(bars[0])

    monkeypatch.setattr("conslaw.training.descent.progress_bar", progress_bar)
    gradient_descent(draw([1, 2], (20, 8, 5), loss="mse"), rates, 150, progress="training")
    assert bars[0].title == "training"
    assert bars[0].steps == bars[0].total == 151 * 2 * len(rates)
