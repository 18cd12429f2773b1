"""The agreement report: its criterion on made-up numbers, and that no published number is left out."""

import pandas as pd
import pytest
from click.testing import CliRunner

from conslaw.paper.agreement import FLOAT32_NOISE, FLOAT32_UNIT, comparisons, report
from conslaw.paper.commands import main
from conslaw.paper.notebooks import NOTEBOOKS
from conslaw.paper.records import read_record


@pytest.fixture
def made_up(tmp_path, monkeypatch):
    table = pd.DataFrame(
        {
            "quantity": ["drift", "drift", "drift", "tau"],
            "key": ["a", "b", "c", "d"],
            "published": [1.0, 1e-4, 2.0, 10.0],
            "here": [1.0001, 1.1e-4, 2.2, 10.00001],
            "rounding": [None, None, 0.2, None],
            "rounding_unit": [20 * FLOAT32_UNIT] * 3 + [None],
        }
    )
    table.to_csv(tmp_path / "x_published.csv", index=False)
    monkeypatch.setenv("CONSLAW_RECORDS", str(tmp_path))
    return tmp_path


def test_what_is_limited_by_rounding_is_computed(made_up):
    table = comparisons()
    assert list(table) == [
        *("notebook", "quantity", "key", "published", "here", "relative_error", "expected_rounding", "resolved"),
    ]
    assert (table.notebook == "x").all()
    assert table.relative_error.tolist() == pytest.approx([1e-4, 0.1, 0.1, 1e-6])
    assert table.resolved.tolist() == [True, False, False, True]
    assert table.expected_rounding.tolist() == pytest.approx(
        [FLOAT32_NOISE * 20 * FLOAT32_UNIT, FLOAT32_NOISE * 20 * FLOAT32_UNIT / 1e-4, 0.2, 0]
    )
    summary = report(table)
    assert summary.loc[("x", "drift"), "resolved"] == 1
    assert summary.loc[("x", "drift"), "worst"] == pytest.approx(1e-4)
    assert summary.loc[("x", "drift"), "limited by rounding"] == 2
    assert summary.loc[("x", "drift"), "within rounding"] == 2
    assert summary.loc[("x", "drift"), "worst of these"] == pytest.approx(0.1)
    assert summary.loc[("x", "tau"), "worst"] == pytest.approx(1e-6)
    result = CliRunner().invoke(main, ["agreement"])
    assert result.exit_code == 0
    assert "4 numbers; 2 are resolved" in result.output


def test_the_report():
    table = pd.DataFrame(
        {
            "notebook": "x",
            "quantity": "drift",
            "relative_error": [1e-4, 3e-4, 2e-4, 0.5, 0.1, 0.2],
            "expected_rounding": [0, 0, 0, 0.2, 0.06, 0.1],
            "resolved": [True] * 3 + [False] * 3,
        }
    )
    [row] = report(table).to_dict("records")
    expected = {"resolved": 3, "median": 2e-4, "worst": 3e-4}
    assert row == expected | {"limited by rounding": 3, "worst of these": 0.5, "within rounding": 1}


def test_no_comparisons(tmp_path, monkeypatch):
    monkeypatch.setenv("CONSLAW_RECORDS", str(tmp_path))
    result = CliRunner().invoke(main, ["agreement"])
    assert result.exit_code == 1
    assert "there are no comparisons" in result.output


def test_every_published_number_is_compared(committed):
    published = {
        path.stem: len(pd.read_csv(path, encoding="utf-8")) for path in (NOTEBOOKS / "published").glob("*.csv")
    }
    compared = comparisons().groupby("notebook").size()
    for notebook, count in compared.items():
        assert count == sum(rows for name, rows in published.items() if name.startswith(notebook))
    assert compared.sum() == sum(published.values())


def test_the_numbers_agree(committed):
    table = comparisons()
    assert read_record("fig1b_drift_scaling")["values"]["noise_in_units"] < FLOAT32_NOISE
    resolved = table[table.resolved]
    assert len(resolved) > 550
    assert resolved.relative_error.median() < 1e-5
    assert (resolved.relative_error < 1e-3).mean() > 0.99
