"""Parameters of notebooks: what is none of what they take is named before a kernel starts, and by the first cell."""

import logging

import papermill
import pytest
import torch

from conslaw.paper import notebooks
from conslaw.paper.notebooks import NOTEBOOKS, notebook_names, read_parameters
from conslaw.paper.parameters import changed, check, label
from conslaw.paper.records import Record

FIGURE = "fig1b_drift_scaling"


@pytest.mark.parametrize("name", notebook_names())
def test_defaults_are_what_they_take(name):
    defaults = notebooks.default_parameters(name)
    assert check(name, defaults) == defaults
    assert not changed(name, check(name, defaults))


@pytest.mark.parametrize("name", notebook_names())
def test_papermill_reads_the_same_parameters(name, caplog):
    with caplog.at_level(logging.WARNING, "papermill"):
        inspected = papermill.inspect_notebook(str(NOTEBOOKS / f"{name}.ipynb"))
    own = read_parameters(name)
    assert list(inspected) == list(own)
    assert {key: entry["help"] for key, entry in inspected.items()} == {key: own[key].comment for key in own}
    assert not caplog.records
    assert all(parameter.comment and "=" not in parameter.comment for parameter in own.values())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dtype": "float16"}, "dtype of fig1b_drift_scaling takes one of float64, float32, got 'float16'"),
        ({"width": "abc"}, "width of fig1b_drift_scaling takes an integer above 0, got 'abc'"),
        ({"width": True}, "width .* takes an integer above 0, got True"),
        ({"width": 64.0}, "width .* takes an integer above 0, got 64.0"),
        ({"width": 1j}, "width .* got 1j"),
        ({"width": b"x"}, "width .* got b'x'"),
        ({"width": None}, "width .* got None"),
        ({"steps": -5}, "steps .* takes an integer above 0, got -5"),
        ({"steps": 1e2}, "steps .* takes an integer above 0, got 100.0"),
        ({"steps": 0}, "steps .* got 0"),
        ({"seeds": {1, 2}}, "seeds .* takes a list of at least 1 different integers from 0 to .*, got {1, 2}"),
        ({"seeds": "range(3)"}, r"seeds .* got 'range\(3\)'"),
        ({"seeds": 42}, "seeds .* takes a list of"),
        ({"seeds": []}, "seeds .* at least 1"),
        ({"seeds": [1, 1]}, "seeds .* different"),
        ({"seeds": [-1]}, "seeds .* from 0 to"),
        ({"seeds": [2**32]}, "seeds .* from 0 to"),
        ({"seeds": [1, 2.5]}, "seeds .* integers"),
        ({"learning_rates": [0.1, 0.2]}, "learning_rates .* at least 3 ascending numbers above 0"),
        ({"learning_rates": [0.3, 0.2, 0.1]}, "learning_rates .* ascending"),
        ({"learning_rates": [0, 0.1, 0.2]}, "learning_rates .* above 0"),
        ({"learning_rates": [0.1, 0.2, float("inf")]}, "learning_rates"),
        ({"learning_rates": [0.1, 0.2, float("nan")]}, "learning_rates"),
        ({"rate": 1}, "no parameter rate; it has seeds, learning_rates"),
        ({"device": "gpu"}, "device .* takes one of cpu, cuda, got 'gpu'"),
    ],
)
def test_what_is_none_is_named(values, message):
    with pytest.raises(ValueError, match=message):
        check(FIGURE, values)
    if "rate" not in values:
        with pytest.raises(ValueError, match=message):
            Record(FIGURE, notebooks.default_parameters(FIGURE) | values)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("e04_edge_of_stability", {"samples": 100}, "samples of e04_edge_of_stability takes an integer of 500, 1000"),
        ("e04_edge_of_stability", {"window": [5]}, "window .* takes a list of 2 ascending integers of at least 0"),
        ("e07_optimizers", {"activations": ["relu", "rel"]}, "activations .* names, each one of relu"),
        ("e07_optimizers", {"factor": 1.0}, "factor .* takes a number of at least 0 and below 1"),
        ("e11_activation", {"mixtures": [0, 1.5]}, "mixtures .* from 0 to 1"),
        ("e06_architecture_and_optimizer", {"seeds": [1]}, "few_seeds .* takes some of seeds"),
        ("fig2a_spectral_crossover", {"seeds": [42, 512]}, "more_seeds .* takes other seeds than seeds"),
    ],
)
def test_notebooks_of_their_own_ranges(name, values, message):
    if not values.keys() <= read_parameters(name).keys():
        pytest.skip("the notebook has other parameters now")
    with pytest.raises(ValueError, match=message):
        check(name, values)


def test_what_is_meant_is_taken():
    assert check(FIGURE, {"seeds": (3, 1)}) == {"seeds": [3, 1]}
    assert check(FIGURE, {"learning_rates": [1, 2, 3]}) == {"learning_rates": [1.0, 2.0, 3.0]}
    assert check("e04_edge_of_stability", {"hidden": [8, 8]}) == {"hidden": [8, 8]}
    with pytest.raises(ValueError, match=f"{FIGURE} has no value of seeds"):
        Record(FIGURE, {})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
def test_a_device_that_is_not_there():
    with pytest.raises(ValueError, match="finds no CUDA device"):
        check(FIGURE, {"device": "cuda"})


def test_variants_are_named_by_what_differs():
    values = check(FIGURE, {"seeds": [42, 137], "width": 128, "samples": 200, "dtype": "float32"})
    assert label(changed(FIGURE, values)) == "seeds=[42,137],width=128,dtype=float32"
    assert label({"rate": 1e-05}) == "rate=1e-05"
    long, other = (label({"seeds": list(range(count))}) for count in (1000, 1001))
    assert long != other
    assert len(long) < 120
    assert label({"names": ["../x y"]}) != label({"names": ["../x z"]})
    assert all(sign not in label({"names": ["../x y"]}) for sign in "/ ")
