"""Tables: what each column is, on a trajectory made by hand; and published numbers beside ours."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from conslaw import Momentum, draw
from conslaw.paper import notebooks
from conslaw.paper.agreement import FLOAT32_UNIT
from conslaw.paper.published import published_table
from conslaw.paper.records import Record
from conslaw.paper.tables import beside_published, run_table
from conslaw.training.trajectory import Trajectory


def trajectory(widths, seeds=(7, 8), optimizer="gd", **problem):
    """Two learning rates, three recorded times, numbers that are all different."""
    layers, runs = len(widths) - 1, (2, len(seeds))
    count = iter(range(1, 10**6))

    def numbers(*shape):
        return torch.tensor([float(next(count)) for _ in range(math.prod(shape))]).double().reshape(shape)

    return Trajectory(
        problem=draw(seeds, widths, samples=30, **problem),
        learning_rates=torch.tensor([[0.1] * len(seeds), [0.2] * len(seeds)], dtype=torch.float64),
        times=torch.tensor([0, 5, 9]),
        parameters=(),
        loss=numbers(*runs, 3).flip(2),
        squared_norms=numbers(*runs, 3, layers).square(),
        squared_gradient_norms=numbers(*runs, 3, layers),
        squared_gradient_sums=numbers(*runs, layers).square(),
        squared_step_sums=numbers(*runs, layers),
        alignment_sums=numbers(*runs, layers),
        loss_before_last_update=numbers(*runs),
        diverged_at=torch.tensor([[-1] * len(seeds), [3] * len(seeds)]),
        optimizer=optimizer,
    )


def test_a_row_for_each_run():
    run = trajectory((6, 4, 3), loss="mse", activation=0.5)
    table = run_table(run, tau=torch.tensor([[1.0, 2.0], [3.0, 4.0]]), name="x")
    assert list(table) == [
        *("dataset", "n", "dim", "width", "depth", "activation", "loss", "optimizer", "seed", "eta", "steps", "dtype"),
        *("drift", "imbalance_sum", "squared_weights", "loss_final", "energy_ratio", "diverged_at", "tau", "name"),
    ]
    constant = {"dataset": "gaussian", "n": 30, "dim": 6, "width": 4, "depth": 2, "activation": 0.5, "loss": "mse"}
    constant |= {"optimizer": "gd", "steps": 9, "dtype": "float64", "name": "x"}
    assert all((table[column] == value).all() for column, value in constant.items())
    assert table.seed.tolist() == [7, 8, 7, 8]
    assert table.eta.tolist() == [0.1, 0.1, 0.2, 0.2]
    assert table.tau.tolist() == [1, 2, 3, 4]
    assert table.diverged_at.tolist() == [-1, -1, 3, 3]
    norms, sums = run.squared_norms.reshape(4, 3, 2).numpy(), run.squared_gradient_sums.reshape(4, 2).numpy()
    loss = run.loss.reshape(4, 3).numpy()
    assert table.drift.tolist() == ((norms[:, 2, 1] - norms[:, 2, 0]) - (norms[:, 0, 1] - norms[:, 0, 0])).tolist()
    assert table.imbalance_sum.tolist() == (sums[:, 1] - sums[:, 0]).tolist()
    assert table.squared_weights.tolist() == norms[:, 0].sum(1).tolist()
    assert table.loss_final.tolist() == run.loss_before_last_update.flatten().tolist()
    expected = table.eta * sums.sum(1) / (loss[:, 0] - loss[:, 2])
    assert table.energy_ratio.tolist() == pytest.approx(expected.tolist(), rel=1e-14)


def test_deeper_networks_have_a_column_for_each_pair():
    run = trajectory((6, 4, 5, 3), optimizer=Momentum(0.5), dtype="float32")
    table = run_table(run)
    assert (table.depth == 3).all()
    assert (table.width == 4).all()
    assert (table.optimizer == "Momentum(factor=0.5)").all()
    assert (table.dtype == "float32").all()
    for pair in (0, 1):
        assert table[f"drift_{pair + 1}"].tolist() == run.drift[..., pair].flatten().tolist()
        assert table[f"imbalance_sum_{pair + 1}"].tolist() == run.imbalance_sum[..., pair].flatten().tolist()
    assert "drift" not in table
    assert table.squared_weights.tolist() == run.squared_norms[:, :, 0].sum(2).flatten().tolist()


NOTEBOOK = """{"cells": [{"cell_type": "code", "metadata": {"tags": ["parameters"]},
 "source": "width: int = 64  # m"}]}"""
PUBLISHED = "eta,seed,drift\n0.1,1,2.0\n0.1,2,4.0\n0.2,1,8.0\n"
RUNS = pd.DataFrame(
    {
        "eta": [0.1, 0.1, 0.2, 0.3],
        "seed": [1, 2, 1, 1],
        "drift": [-2.2, 4.0, 7.0, 1.0],
        "squared_weights": [20.0, 21.0, 22.0, 23.0],
    }
)


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "published").mkdir()
    (tmp_path / "x.ipynb").write_text(NOTEBOOK, encoding="utf-8")
    (tmp_path / "published" / "x.csv").write_text(PUBLISHED, encoding="utf-8")
    (tmp_path / "published" / "x_more.csv").write_text("seed,tau\n2,5.0\n", encoding="utf-8")
    monkeypatch.setattr(notebooks, "NOTEBOOKS", tmp_path)
    monkeypatch.setenv("CONSLAW_FIGURES", str(tmp_path / "figures"))
    return tmp_path


def test_the_published_run_is_compared(project):
    record = Record("x", {"width": 64})
    rounded = RUNS.assign(drift=[2.2, 4.4, 7.7, 1.0])
    both = beside_published(record, RUNS, rounded=rounded)
    assert list(both) == ["eta", "seed", "published", "here", "relative_error", "rounding"]
    assert both.published.tolist() == [2, 4, 8]
    assert both.here.tolist() == [2.2, 4.0, 7.0]
    assert both.relative_error.tolist() == pytest.approx([0.1, 0, -0.125])
    assert both.rounding.tolist() == pytest.approx([0.1, 0.1, 0.1])
    [kept] = record.comparisons
    assert kept.quantity.tolist() == ["drift"] * 3
    assert kept.key.tolist() == ["eta = 0.1, seed = 1.0", "eta = 0.1, seed = 2.0", "eta = 0.2, seed = 1.0"]
    assert kept.rounding_unit.tolist() == [FLOAT32_UNIT * norm for norm in (20, 21, 22)]
    more = beside_published(record, pd.DataFrame({"seed": [1, 2], "tau": [3.0, 4.0]}), "tau", suffix="more")
    assert more.to_dict("records") == [
        {"seed": 2, "published": 5.0, "here": 4.0, "relative_error": -0.19999999999999996}
    ]
    assert record.comparisons[1].rounding_unit.isna().all()
    record.save()
    saved = pd.read_csv(project / "figures" / "x_published.csv")
    assert saved.quantity.tolist() == ["drift"] * 3 + ["tau"]


def test_a_published_value_without_a_run_is_an_error(project):
    for runs in (RUNS[:2], pd.concat([RUNS, RUNS])):
        with pytest.raises(ValueError, match=r"runs must have each of the 3 rows of x\.csv once"):
            beside_published(Record("x", {"width": 64}), runs)


def test_a_variant_shows_our_numbers_alone(project):
    record = Record("x", {"width": 128})
    runs = pd.concat([RUNS, RUNS.assign(loss="another")])
    both = beside_published(record, runs, rounded=RUNS)
    assert both.here.tolist() == [2.2, 4.0, 7.0, 1.0]
    assert both.published.isna().all()
    assert both.relative_error.isna().all()
    assert both.rounding.tolist() == [0.0] * 4
    assert list(both) == ["eta", "seed", "published", "here", "relative_error", "rounding"]
    # What notebooks do with it works, and a missing number can be printed.
    assert both.pivot(index="eta", columns="seed", values=["published", "here"]).shape == (3, 4)
    record["worst"] = both.relative_error.abs().max()
    assert f"{record['worst']:.1e}" == "nan"
    record.save()
    assert record.comparisons == []
    folder = project / "figures" / "variants" / "x" / "width=128"
    assert [path.name for path in folder.iterdir()] == ["x.json"]
    assert np.isnan(record["worst"])


def test_published_numbers_of_another_notebook():
    record = SimpleNamespace(name="exponent", is_default=True)
    table = published_table(record, "exponent", notebook="e11_activation")
    assert table.index.name == "epsilon"
    assert table.alpha[1.0] == pytest.approx(1.2928, abs=1e-4)
    record.is_default = False
    assert published_table(record, "exponent", notebook="e11_activation").alpha.isna().all()
    with pytest.raises(ValueError, match=r"no published numbers 'exponent' in .*exponent\.toml"):
        published_table(record, "exponent")
