"""Laws in a user's own training: exact parts under every optimizer, nothing of the training changed."""

import copy
import math

import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from conslaw import draw as drawn
from conslaw import gradient_descent
from conslaw.conserved import quadratic_laws
from conslaw.models import CriticalLearningRate, ModelSharpness, laws, track
from conslaw.models.examples import GPT, cnn, mlp

X, Y = torch.randn(40, 5, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 3


def network(seed=0, **options):
    torch.manual_seed(seed)
    return mlp(5, 7, 6, 3, **options)


def train(model, optimizer, steps=4, *, batches=2, clip=None, scheduler=None, accumulate=1):
    """A loop as users write it."""
    for step in range(steps):
        part = slice(step % batches, None, batches)
        optimizer.zero_grad()
        for _ in range(accumulate):
            (cross_entropy(model(X[part]), Y[part]) / accumulate).backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        if scheduler:
            scheduler.step()


OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.3),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "Nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "weight decay": lambda p: torch.optim.SGD(p, lr=0.3, weight_decay=0.1),
    **{
        name: lambda p, name=name: getattr(torch.optim, name)(p, lr=0.01)
        for name in ("Adam", "AdamW", "RMSprop", "Adagrad", "Adamax", "NAdam", "RAdam", "Rprop", "ASGD", "Adafactor")
    },
    "Adadelta": lambda p: torch.optim.Adadelta(p),
    "fused Adam": lambda p: torch.optim.Adam(p, lr=0.01, fused=True),
    "foreach SGD": lambda p: torch.optim.SGD(p, lr=0.1, foreach=True),
}


def test_errors_are_relative_to_the_weights_of_the_step():
    """Also where the weights have grown far beyond those at the start."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=300)  # w → −29 w
    with track(model, optimizer, laws(model, (X, Y), cross_entropy)) as run:
        train(model, optimizer)
    assert max(numbers[:, 0].abs().max().item() for numbers in run.numbers) > 1e8
    assert run.identity_error < 1e-14


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_parts_are_the_change_and_training_is_the_same(name, dtype, monkeypatch):
    monkeypatch.setattr("test_tracking.X", X.to(dtype))
    plain, model = (network().to(dtype) for _ in range(2))
    train(plain, OPTIMIZERS[name](plain.parameters()))
    optimizer = OPTIMIZERS[name](model.parameters())
    with track(model, optimizer, laws(model, (X, Y), cross_entropy)) as run:
        train(model, optimizer)
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert run.steps.tolist() == [0, 1, 2, 3, 4]
    assert run.identity_error < 1e-14
    for numbers in run.numbers:
        value, drift, first, second = numbers.unbind(1)
        torch.testing.assert_close(value.diff(dim=0), (first + second)[1:], rtol=1e-9, atol=1e-13)
        torch.testing.assert_close(drift, value - value[0], rtol=0, atol=0)
    if name in ("SGD", "foreach SGD"):
        rounding = 10 * torch.finfo(dtype).eps
        assert all(numbers[1:, 2].abs().max() <= rounding for numbers in run.numbers)
        assert run.numbers[0][1:, 3].abs().max() > 1e-5


def test_drift_is_that_of_the_core():
    """η² S of `gradient_descent`, trained by torch's SGD; in `conslaw.conserved` the laws are written down by hand."""
    problem = drawn([1], (5, 7, 6, 3), loss="mse", bias=True)
    model = network().double()
    names = ["0.weight", "2.weight", "4.weight", "0.bias", "2.bias", "4.bias"]
    model.load_state_dict(dict(zip(names, (p[0] for p in problem.parameters), strict=True)))
    batch = problem.inputs[0].mT, problem.targets[0].mT
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with track(model, optimizer, laws(model, batch, mse_loss)) as run:
        for _ in range(20):
            optimizer.zero_grad()
            mse_loss(model(batch[0]), batch[1]).backward()
            optimizer.step()
    end = gradient_descent(problem, 0.05, 20).networks().parameters
    for family, drifts in zip(quadratic_laws(problem), run.drifts[:2], strict=True):
        expected = (family(end) - family(problem.parameters))[0]
        torch.testing.assert_close(drifts[-1], expected, rtol=1e-9, atol=1e-12)


def test_weight_decay_multiplies_the_laws():
    """C ← (1 − ηλ)² C + η² gᵀQg."""
    model = network().double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, weight_decay=0.3)
    found = laws(model, (X, Y), cross_entropy)
    with track(model, optimizer, found) as run:
        cross_entropy(model(X.double()), Y).backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
        optimizer.step()
    for family, numbers in list(zip(found.families, run.numbers, strict=True))[:2]:
        expected = (1 - 0.06) ** 2 * numbers[0, 0] + 0.04 * family.form(gradients)
        torch.testing.assert_close(numbers[1, 0], expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_constants_are_constant_but_for_weight_decay(decay):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9, weight_decay=decay)
    found = laws(model, (X, Y), cross_entropy)
    with track(model, optimizer, found) as run:
        train(model, optimizer)
    drifts = [d.abs().max() for f, d in zip(found.families, run.drifts, strict=True) if f.kind == "constant"]
    assert len(drifts) == 2
    assert (max(drifts) < 1e-5) == (decay == 0)


@pytest.mark.parametrize("options", [{"clip": 0.01}, {"accumulate": 3}, {"batches": 4}])
def test_what_users_do_besides(options):
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    with track(model, optimizer, laws(model, (X, Y), cross_entropy)) as run:
        train(model, optimizer, scheduler=scheduler, **options)
    assert run.identity_error < 1e-14
    assert [record.learning_rate for record in run.records] == [0.01, 0.01, 0.005, 0.0025, 0.00125]


@pytest.mark.parametrize("fused", [False, True])
def test_steps_that_gradscaler_skips_are_none(fused):
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    with track(model, optimizer, laws(model, (X, Y), cross_entropy)) as run:
        for scale in (1.0, math.inf, 1.0):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = cross_entropy(model(X), Y)
            scaler.scale(loss * scale).backward()
            scaler.step(optimizer)
            scaler.update()
    assert run.steps.tolist() == [0, 1, 2]
    assert run.identity_error < 1e-14


def test_every_tenth_step_and_the_end():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with track(model, optimizer, laws(model, (X, Y), cross_entropy), every=10) as run:
        train(model, optimizer, 25)
    assert run.steps.tolist() == [0, 10, 20, 25]
    split = [bool(record.numbers[0][2:].isfinite().all()) for record in run.records]
    assert split == [False, True, True, False]
    assert repr(run) == f"Run({len(run.laws)} laws, 4 records up to step 25)"


def test_without_a_split_nothing_is_copied(monkeypatch):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tracking = track(model, optimizer, laws(model, (X, Y), cross_entropy), split=False)
    copies = []
    clone = torch.Tensor.clone
    with tracking as run:
        monkeypatch.setattr(torch.Tensor, "clone", lambda self, **k: copies.append(self) or clone(self, **k))
        train(model, optimizer, 2)
        monkeypatch.undo()
    assert not copies
    assert math.isnan(run.identity_error)
    assert run.drifts[0].isfinite().all()


def test_an_error_in_the_loop_leaves_records_and_no_hooks():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tracking = track(model, optimizer, laws(model, (X, Y), cross_entropy))
    with pytest.raises(KeyboardInterrupt), tracking as run:  # noqa: PT012
        train(model, optimizer, 3)
        raise KeyboardInterrupt
    train(model, optimizer, 2)
    assert run.steps.tolist() == [0, 1, 2, 3]
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    with pytest.raises(RuntimeError, match="this tracking has begun already"), tracking:
        pass


def test_two_at_once():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found = laws(model, (X, Y), cross_entropy)
    with track(model, optimizer, found) as one, track(model, optimizer, found, every=2) as other:
        train(model, optimizer)
    assert torch.equal(one.drifts[0][::2], other.drifts[0])


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel])
def test_wrapped_models(wrap):
    model = network()
    found = laws(wrap(model), (X, Y), cross_entropy)
    optimizer = torch.optim.SGD(wrap(model).parameters(), lr=0.1)
    with track(wrap(model), optimizer, found) as run:
        train(model, optimizer, 2)
    assert run.identity_error < 1e-14


def test_norms_of_matrices():
    torch.manual_seed(0)
    model = GPT()
    tokens = torch.randint(11, (4, 8))
    loss = lambda logits, targets: cross_entropy(logits.flatten(0, 1), targets.flatten())  # noqa: E731
    found = laws(model, (tokens, tokens.roll(1)), loss)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with track(model, optimizer, found) as run:
        for _ in range(2):
            optimizer.zero_grad()
            loss(model(tokens), tokens.roll(1)).backward()
            optimizer.step()
    assert run.identity_error < 1e-14
    (place, *_) = (i for i, family in enumerate(found.families) if family.kind == "head")
    end = found.families[place].form({name: p.detach().double() for name, p in model.named_parameters()})
    assert end.shape == (2, 4, 4)
    torch.testing.assert_close(run.numbers[place][-1, 0], torch.linalg.matrix_norm(end))


def tracked(**options):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with track(model, optimizer, laws(model, (X, Y), cross_entropy), **options) as run:
        train(model, optimizer, 3)
    return run


def test_table_file_and_figure(tmp_path):
    run = tracked()
    table = run.table
    assert list(table) == ["step", "law", "kind", "value", "drift", "first_order", "second_order", "learning_rate"]
    assert len(table) == 4 * len(run.laws)
    run.save(tmp_path / "run.csv")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "run.csv"), table, check_dtype=False)
    assert [path.name for path in tmp_path.iterdir()] == ["run.csv"]
    with pytest.raises(ValueError, match=r"path must end in .csv or .parquet, got 'run.txt'"):
        run.save(tmp_path / "run.txt")
    figure = run.plot()
    assert [axis.get_title() for axis in figure.axes] == ["unit", "constant"]
    assert len(figure.axes[0].lines) == 2


def test_rows_go_to_a_callback_and_to_tensorboard(tmp_path):
    rows = []
    run = tracked(callback=rows.append)
    pd.testing.assert_frame_equal(pd.DataFrame(rows), run.table)
    tensorboard = pytest.importorskip("torch.utils.tensorboard")
    with tensorboard.SummaryWriter(tmp_path) as writer:
        tracked(callback=lambda row: writer.add_scalar(f"drift/{row['law']}", row["drift"], row["step"]))
    assert list(tmp_path.glob("events*"))


def test_observers_leave_training_as_it_is():
    torch.manual_seed(0)
    model = nn.Sequential(cnn(1, 4, 5, norm=nn.BatchNorm2d), nn.Dropout(0.1))
    other = copy.deepcopy(model)
    batch = torch.randn(20, 1, 8, 8), torch.arange(20) % 3
    observe = {
        "sharpness": ModelSharpness(batch, cross_entropy),
        "critical": CriticalLearningRate(batch, cross_entropy),
    }
    found = laws(model, batch, cross_entropy)

    def loop(model, optimizer):
        torch.manual_seed(1)
        for _ in range(3):
            optimizer.zero_grad()
            cross_entropy(model(batch[0]), batch[1]).backward()
            optimizer.step()

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with track(model, optimizer, found, observe=observe) as run:
        loop(model, optimizer)
    loop(other, torch.optim.SGD(other.parameters(), lr=0.1))
    for (name, ours), theirs in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    assert {"sharpness", "critical"} < set(run.table)
    assert (run.table.sharpness > 0).all()
    # The curvature along the gradient, 2/η_c, is at most about the largest.
    assert (2 / run.table.critical < 1.5 * run.table.sharpness).all()


def test_sharpness_is_that_of_the_core():
    from conslaw import sharpness

    problem = drawn([3], (5, 7, 6, 3), bias=True)
    model = network().double()
    names = ["0.weight", "2.weight", "4.weight", "0.bias", "2.bias", "4.bias"]
    model.load_state_dict(dict(zip(names, (p[0] for p in problem.parameters), strict=True)))
    batch = problem.inputs[0].mT, problem.targets[0].mT
    ours = ModelSharpness(batch, cross_entropy, tolerance=1e-8, iterations=80)(model)
    assert ours == pytest.approx(sharpness(problem).value.item(), rel=1e-7)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model": "model"}, TypeError, "model must be a torch.nn.Module, got str"),
        ({"optimizer": 3}, TypeError, "optimizer must be one of torch.optim, got int"),
        ({"laws": []}, TypeError, "laws must be what conslaw.laws returns, got list"),
        ({"model": cnn(1, 4, 5)}, ValueError, "laws must be those of this model, which has no parameter"),
        ({"optimizer": torch.optim.SGD(mlp(2, 2).parameters())}, ValueError, "optimizer must hold the parameters"),
        ({"every": 0}, ValueError, "every must be a positive integer, got 0"),
    ],
)
def test_bad_input(change, error, message):
    model = network()
    given = {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters()),
        "laws": laws(model, (X, Y), cross_entropy),
    }
    given |= change
    with pytest.raises(error, match=message):
        track(given.pop("model"), given.pop("optimizer"), **given)
