"""Comparison of numbers with those before, and that every tolerance in use can fail."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from conslaw.paper.comparison import Comparison, compare, compare_records, compare_runs, deviation
from conslaw.paper.notebooks import PROJECT

RECORDS = sorted((PROJECT / "figures").glob("*.json"))


@pytest.mark.parametrize(
    ("new", "old", "expected"),
    [
        (1.0, 1.0, 0),
        (None, None, 0),
        (math.nan, math.nan, 0),
        ("relu", "relu", 0),
        (True, True, 0),
        (2.0, 1.0, math.log(2)),
        (1.0, 2.0, math.log(2)),
        (-1.0, -10.0, math.log(10)),
        (1, 1.5, math.log(1.5)),
        (1.0, -1.0, math.inf),
        (0.0, 1e-300, math.inf),
        (None, 1.0, math.inf),
        (math.nan, 1.0, math.inf),
        (math.inf, 1.0, math.inf),
        ("relu", "tanh", math.inf),
        (True, 2, math.inf),
        ([], [1], math.inf),
    ],
)
def test_deviation(new, old, expected):
    assert deviation(new, old) == pytest.approx(expected)


def record(values, tolerances=None, bounds=None, parameters=None):
    return {
        "notebook": "x",
        "parameters": parameters or {},
        "values": values,
        "tolerances": tolerances or {},
        "bounds": bounds or {},
    }


def beyond(new, old, **statements):
    return compare_records(record(new, **statements), record(old, **statements)).beyond


def test_values_of_a_record():
    assert not beyond({"a": [1.0, {"b": 2}], "c": "x", "d": []}, {"a": [1.0, {"b": 2}], "c": "x", "d": []})
    assert not beyond({"a": 1.0 + 1e-9}, {"a": 1.0})
    assert beyond({"a": 1.0 + 2e-6}, {"a": 1.0}) == ["x: a"]
    assert beyond({"a": [1.0, {"b": 2}]}, {"a": [1.0, {"b": 3}]}) == ["x: a.1.b"]
    assert beyond({"a": [1.0]}, {"a": [1.0, 2.0]}) == ["x: a.1"]
    assert beyond({"a": 1.0, "b": 1.0}, {"a": 1.0}) == ["x: b"]
    assert beyond({"a": []}, {"a": {}}) == ["x: a"]
    assert not beyond({"a": 1.09}, {"a": 1.0}, tolerances={"a": 0.1})
    assert beyond({"a": 1.11}, {"a": 1.0}, tolerances={"a": 0.1})
    assert beyond({"a": -1.0}, {"a": 1.0}, tolerances={"a": math.log(10)})


def test_bounds_of_a_record():
    assert not beyond({"a": [1e-12, -9e-10]}, {"a": [3e-16, 0.0]}, bounds={"a": 1e-9})
    assert beyond({"a": 1.1e-9}, {"a": 1e-10}, bounds={"a": 1e-9}) == ["x: a"]
    assert beyond({"a": 1e-10}, {"a": 1.1e-9}, bounds={"a": 1e-9})
    assert beyond({"a": None}, {"a": 1e-10}, bounds={"a": 1e-9})


def test_what_is_stated_is_compared_too():
    old = record({"a": 1.0}, {"a": 0.1})
    assert compare_records(record({"a": 1.0}, {"a": 0.2}), old).beyond == ["x: tolerances"]
    assert compare_records(record({"a": 1.0}, bounds={"a": 2}), old).beyond == ["x: tolerances", "x: bounds"]
    assert compare_records(record({"a": 1.0}, {"a": 0.1}, parameters={"p": 1}), old).beyond == ["x: parameters"]
    result = compare_records(
        record({"a": 1.05, "b": 1, "c": 1e-20}, {"a": 0.1}), record({"a": 1.0, "b": 1}, {"a": 0.1})
    )
    assert (result.compared, result.equal, result.beyond) == (2, 1, ["x: c"])
    assert result.worst[0] == pytest.approx(math.log(1.05) / 0.1)
    assert str(result) == (
        "2 numbers compared with those before: 1 equal, the largest deviation 4.9e-02 of 1e-01 in x: a; "
        "beyond their tolerance: x: c"
    )
    assert str(Comparison(3, 3)) == "3 numbers compared with those before: 3 equal; all within their tolerance"


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_every_tolerance_in_use_rejects_something(path):
    committed = json.loads(path.read_text(encoding="utf-8"))
    assert not compare_records(committed, committed).beyond
    stated = [*committed["tolerances"].items(), *committed.get("bounds", {}).items()]
    for quantity, number in stated:
        limit = quantity in committed.get("bounds", {})
        assert number <= math.log(10) + 1e-9 or limit, quantity

        def moved(value, limit=limit, number=number):
            if isinstance(value, dict):
                return {key: moved(entry) for key, entry in value.items()}
            if isinstance(value, list):
                return [moved(entry) for entry in value]
            return number * 1.01 if limit else (value or 1) * math.exp(number * 1.01)

        changed = moved(committed["values"][quantity])
        other = {**committed, "values": {**committed["values"], quantity: changed}}
        assert compare_records(other, committed).beyond, quantity


RUNS = pd.DataFrame(
    {
        "seed": [1, 2, 3, 4, 5],
        "eta": [0.1] * 5,
        "dtype": ["float64", "float32", "float64", "float64", "float64"],
        "drift": [1.0, 2.0, 3.0, 4.0, math.nan],
        "energy_ratio": [1.0, 1.0, 2.0, 1.1, math.nan],
        "diverged_at": [-1, -1, -1, 7, -1],
        "sharpness_final": [1.0, 1.0, 1.0, 1.0, 1.0],
    }
)


@pytest.mark.parametrize(
    ("row", "column", "factor", "seen"),
    [
        (0, "drift", 1 + 1e-9, False),
        (0, "drift", 1 + 2e-6, True),
        (1, "drift", 2, False),  # float32
        (2, "drift", 2, False),  # overshoots
        (3, "drift", 2, False),  # diverges
        (1, "eta", 2, True),  # but what was asked for is the same for all
        (0, "sharpness_final", 1.0005, False),
        (0, "sharpness_final", 1.002, True),
        (4, "sharpness_final", 1.002, True),
    ],
)
def test_tables_of_runs(row, column, factor, seen):
    other = RUNS.copy()
    other.loc[row, column] *= factor
    assert compare_runs("t", other, RUNS).beyond == ([f"t: {column}"] if seen else [])


def test_tables_of_other_form():
    assert compare_runs("t", RUNS[:4], RUNS).beyond == ["t: its columns or number of rows"]
    assert compare_runs("t", RUNS.rename(columns={"eta": "rate"}), RUNS).beyond
    assert compare_runs("t", RUNS.assign(dtype="float64"), RUNS).beyond == ["t: dtype"]
    assert compare_runs("t", RUNS[:0], RUNS[:0]).beyond == []
    result = compare_runs("t", RUNS, RUNS)
    assert (result.compared, result.equal) == (15 + 4 * 2, 15 + 4 * 2)
    published = pd.DataFrame({"key": ["a", "b"], "published": [1.0, 2.0], "here": [1.0, 2.0], "rounding": [0.1, None]})
    assert not compare_runs("t", published.assign(here=[1.05, 2.0], rounding=[0.3, 0.1]), published).beyond
    assert compare_runs("t", published.assign(here=[1.2, 2.0]), published).beyond == ["t: here"]
    assert compare_runs("t", published.assign(here=[1.0, 2.1]), published).beyond == ["t: here"]


def test_files(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps(record({"a": 1.0})), encoding="utf-8")
    (tmp_path / "x.csv").write_text("a\n1.0\n", encoding="utf-8")
    (tmp_path / "x.svg").write_text("<svg></svg>\n", encoding="utf-8")
    files = {Path(name): (tmp_path / name).read_bytes() for name in ("x.json", "x.csv", "x.svg")}
    result = compare(files, tmp_path)
    assert (result.compared, result.equal, result.beyond) == (2, 2, [])
    (tmp_path / "x.svg").write_text("<svg>", encoding="utf-8")
    (tmp_path / "x.json").write_text("[]", encoding="utf-8")
    (tmp_path / "x.csv").unlink()
    assert compare(files, tmp_path).beyond == [
        "x.json, which could not be read",
        "x.csv, which is new",
        "x.svg, which was incomplete",
    ]
