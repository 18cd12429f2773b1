"""The form of the committed notebooks, and the numbers that nbval's run of them has just left."""

import ast
import json
import math

import nbformat
import pandas as pd
import pytest
import torch

from conslaw import draw, gradient_descent
from conslaw.paper.records import NOTEBOOKS, PROJECT, Record, default_parameters

PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
RECORDED = [path.stem for path in PATHS if not path.stem.startswith("0")]
STABLE = 1.25  # energy ratio, above which runs overshoot: at the edge of stability, chaotic, or blowing up


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, 4)


def test_form(notebook):
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    tags = [cell.metadata.get("tags", []) for cell in notebook.cells]
    assert tags.count(["parameters"]) == 1
    assert ["injected-parameters"] not in tags
    checked = [cell for cell in notebook.cells if "nbval-check-output" in cell.metadata.get("tags", [])]
    assert checked
    assert all(cell.outputs for cell in checked)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for output in (output for cell in code for output in cell.outputs):
        assert output.output_type in ("stream", "display_data", "execute_result")
        assert output.get("name") != "stderr"
    assert any("image/png" in output.get("data", {}) for cell in code for output in cell.outputs)
    assert str(PROJECT) not in nbformat.writes(notebook)


def test_every_parameter_is_explained(notebook):
    (cell,) = [cell for cell in notebook.cells if cell.metadata.get("tags") == ["parameters"]]
    assert all(": " in line.split("=")[0] and "  # " in line for line in cell.source.splitlines())


def close(fresh, committed, tolerance=1e-6):
    """Compare two values of a record."""
    if isinstance(committed, dict):
        return fresh.keys() == committed.keys() and all(close(fresh[k], committed[k], tolerance) for k in committed)
    if isinstance(committed, list):
        pairs = zip(fresh, committed, strict=False)
        return len(fresh) == len(committed) and all(close(a, b, tolerance) for a, b in pairs)
    if isinstance(committed, int | float) and isinstance(fresh, int | float):
        return math.isclose(fresh, committed, rel_tol=tolerance)
    return fresh == committed


def reproducible(runs):
    """Tell the runs whose digits do not depend on the machine: in float64, stable, and to the end."""
    return (
        (runs.dtype == "float64") & ~(runs.energy_ratio >= STABLE) & ~(runs.energy_ratio < 0) & (runs.diverged_at < 0)
    )


@pytest.mark.parametrize("name", RECORDED)
def test_numbers_are_those_committed(name, fresh):
    path = fresh / f"{name}.json"
    if not path.exists():
        pytest.skip("the notebook was not run in this session; run pytest without arguments")
    new, old = json.loads(path.read_text()), json.loads((PROJECT / "figures" / path.name).read_text())
    assert new["parameters"] == old["parameters"]
    assert new["tolerances"] == old["tolerances"]
    assert new["values"].keys() == old["values"].keys()
    different = {
        key: (new["values"][key], value)
        for key, value in old["values"].items()
        if not close(new["values"][key], value, old["tolerances"].get(key, 1e-6))
    }
    assert not different
    for extension in ("png", "svg"):
        assert (PROJECT / "figures" / f"{name}.{extension}").stat().st_size > 10_000


@pytest.mark.parametrize("name", RECORDED)
def test_runs_are_those_committed(name, fresh):
    if not (fresh / f"{name}.csv").exists():
        pytest.skip("the notebook was not run in this session; run pytest without arguments")
    new, old = (pd.read_csv(folder / f"{name}.csv") for folder in (fresh, PROJECT / "figures"))
    keys = ["dataset", "n", "dim", "width", "depth", "activation", "loss", "optimizer", "seed", "eta", "steps", "dtype"]
    pd.testing.assert_frame_equal(new[keys], old[keys], rtol=1e-6)
    same = reproducible(old)
    # Along a trajectory eigenvalues are iterated to a residual of 1e-2 only, whose square is their error.
    iterated = [column for column in old if column == "sharpness_final"]
    pd.testing.assert_frame_equal(new.loc[same, iterated], old.loc[same, iterated], rtol=1e-3)
    new, old = new.drop(columns=iterated), old.drop(columns=iterated)
    pd.testing.assert_frame_equal(new[same], old[same], rtol=1e-6, atol=1e-12)


def test_comparison_sees_a_difference():
    assert close([1.0, 2.0], [1.0, 2.0 + 1e-9])
    assert not close([1.0, 2.0], [1.0, 2.00001])
    assert close({"a": [1.0, 2]}, {"a": [1.05, 2]}, 0.1)
    assert not close({"a": [1.0, 2]}, {"a": [1.05, 3]}, 0.1)
    assert not close([1.0], [1.0, 2.0])
    assert not close(None, 1.0)


def test_another_run_does_not_replace_the_figure(fresh):
    name = "fig1b_drift_scaling"
    defaults = default_parameters(name)
    assert Record(name, defaults).folder == fresh
    assert Record(name, {**defaults, "seeds": [42]}).folder == fresh / "variants"


def test_minimal_agrees_with_the_core():
    code = [cell.source for cell in nbformat.read(NOTEBOOKS / "01_minimal.ipynb", 4).cells if cell.cell_type == "code"]
    assert "conslaw" not in "".join(code)
    namespace = {}
    exec(code[0].replace("2000", "100") + "\n" + code[1], namespace)
    run = gradient_descent(draw([42]), namespace["learning_rates"], 100)
    minimal = torch.tensor(list(namespace["drift"].values()), dtype=torch.float64)
    torch.testing.assert_close(run.drift[:, 0, 0], minimal, rtol=1e-9, atol=1e-13)


def test_modules_import_only_from_above():
    order = [
        "data",
        "problems",
        "losses",
        "network",
        "conservation",
        "trajectory",
        "optimizers",
        "steps",
        "compiled",
        "chunk",
        "descent",
        "flow",
        "hessian",
        "lanczos",
        "spectral",
        "modes",
        "switching",
        "compression",
        "scaling",
        "ranking",
    ]
    order += ["record", "agreement", "tables", "ledger", "plotting", "rebuild", "site", "sweep", "__main__"]
    assert sorted([*order, "__init__"]) == sorted(path.stem for path in (PROJECT / "conslaw").glob("*.py"))
    for module in order:
        imported = set()
        for node in ast.walk(ast.parse((PROJECT / "conslaw" / f"{module}.py").read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "conslaw":
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module.removeprefix("conslaw."))
        assert not imported.intersection(order[order.index(module) :])
