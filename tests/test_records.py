"""Records: what is saved, where, and that nothing already made is lost."""

import json
import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from conslaw.paper import notebooks
from conslaw.paper.ledger import verdicts
from conslaw.paper.records import Record, plain

NOTEBOOK = """{"cells": [{"cell_type": "code", "metadata": {"tags": ["parameters"]},
 "source": "width: int = 64  # m\\nseeds: list = [1, 2]  # seeds"}]}"""
DEFAULTS = {"width": 64, "seeds": [1, 2], "more": "not a parameter"}


@pytest.fixture
def figures(tmp_path, monkeypatch):
    (tmp_path / "x.ipynb").write_text(NOTEBOOK, encoding="utf-8")
    monkeypatch.setattr(notebooks, "NOTEBOOKS", tmp_path)
    monkeypatch.setenv("CONSLAW_FIGURES", str(tmp_path / "figures"))
    return tmp_path / "figures"


def test_plain_values():
    value = {1: torch.tensor([0.1, math.nan]), "a": np.float64(1 / 3), "b": (np.int64(2), True, None, "α", math.inf)}
    assert plain(value) == {"1": [pytest.approx(0.1), None], "a": 0.3333333333, "b": [2, True, None, "α", None]}


def test_what_is_saved(figures):
    record = Record("x", DEFAULTS)
    record["alpha"], record["missing"] = 1.5, math.nan
    record.approximate(0.1, loose=2.0)
    record.bound(1e-9, rounding=1e-12, more=[1e-11])
    figure, (left, right) = plt.subplots(1, 2)
    left.set(xlabel=r"step $t$", ylabel="drift", title="(a) run")
    right.set_title("(b) nothing", loc="center")
    record.figure(figure, "extra")
    plt.close(figure)
    record.save(pd.DataFrame({"eta": [0.1], "name": ["α"]}), more=pd.DataFrame({"step": [3]}))
    files = ["x.csv", "x.json", "x_extra.png", "x_extra.svg", "x_more.csv"]
    assert sorted(path.name for path in figures.iterdir()) == files
    assert (figures / "x_more.csv").read_text(encoding="utf-8") == "step\n3\n"
    saved = json.loads((figures / "x.json").read_text(encoding="utf-8"))
    assert saved["parameters"] == {"width": 64, "seeds": [1, 2]}
    assert saved["values"] == {"alpha": 1.5, "missing": None, "loose": 2.0, "rounding": 1e-12, "more": [1e-11]}
    assert saved["tolerances"] == {"loose": 0.1}
    assert saved["bounds"] == {"rounding": 1e-9, "more": 1e-9}
    assert saved["figures"] == {"x_extra": "(a) run: drift against step $t$. (b) nothing."}
    assert "numba" in saved["provenance"]
    assert (figures / "x.csv").read_bytes() == "eta,name\n0.1,α\n".encode()
    assert math.isnan(record["missing"])


@pytest.mark.parametrize("tolerance", [0, -1, 3, 10, math.inf, math.nan])
def test_statements_that_say_nothing(figures, tolerance):
    record = Record("x", DEFAULTS)
    with pytest.raises(ValueError, match="tolerance must be above 0 and at most ln 10"):
        record.approximate(tolerance, a=1.0)
    if tolerance not in (3, 10):
        with pytest.raises(ValueError, match="limit must be positive"):
            record.bound(tolerance, a=1.0)


def test_a_run_that_agrees_leaves_the_record(figures):
    def run(value, bound=1e-9):
        record = Record("x", DEFAULTS)
        record["alpha"] = value
        record.bound(bound, rounding=value * 1e-12)
        record.save(pd.DataFrame({"eta": [value]}))
        return (figures / "x.json").read_bytes(), (figures / "x.csv").read_bytes()

    first = run(1.0)
    assert run(1.0 + 1e-9) == first
    changed = run(1.1)
    assert changed[0] != first[0]
    assert changed[1] != first[1]
    assert run(1.1, 1e-8)[0] != changed[0]


def test_variants_go_elsewhere(figures):
    record = Record("x", DEFAULTS | {"width": 128})
    assert not record.is_default
    assert record.folder == figures / "variants" / "x" / "width=128"
    assert verdicts(record) == ["A variant, with width = 128: no verdict on the paper, whose run has other parameters."]
    assert Record("x", DEFAULTS).folder == figures
    assert verdicts(Record("x", DEFAULTS)) == []


def test_edited_defaults_are_a_variant_until_they_are_rebuilt(figures):
    Record("x", DEFAULTS).save()
    path = notebooks.NOTEBOOKS / "x.ipynb"
    path.write_text(NOTEBOOK.replace("64", "128"), encoding="utf-8")
    record = Record("x", DEFAULTS | {"width": 128})
    assert not record.is_default
    assert record.folder.name == "width=128"
    (figures / "x.json").unlink()  # `conslaw rebuild` runs in an empty folder
    assert Record("x", DEFAULTS | {"width": 128}).is_default
