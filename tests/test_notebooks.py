"""The form of the committed notebooks, and the numbers that nbval's run of them has just left."""

from pathlib import Path

import nbformat
import pytest
import torch

from conslaw import draw, gradient_descent
from conslaw.paper.comparison import compare
from conslaw.paper.notebooks import NOTEBOOKS, PROJECT, notebook_names
from conslaw.paper.stamps import code_of

FIGURES = PROJECT / "figures"
RECORDED = [name for name in notebook_names() if not name.startswith("0")]


@pytest.fixture(params=notebook_names())
def notebook(request):
    return nbformat.read(NOTEBOOKS / f"{request.param}.ipynb", 4)


def test_form(notebook):
    assert {key: value for key, value in notebook.metadata.items() if key != "conslaw"} == {
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


@pytest.mark.parametrize("name", notebook_names())
def test_little_code_comes_before_the_first_result(name):
    """Imports, long settings and drawing are folded; what is left is a screen or so."""
    lines = 0
    for cell in nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4).cells:
        if cell.cell_type != "code":
            continue
        is_folded = cell.metadata.get("jupyter", {}).get("source_hidden", False)
        lines += 0 if is_folded else len(cell.source.splitlines())
        if any({"image/png", "text/html"} & output.get("data", {}).keys() for output in cell.outputs):
            break
    assert lines <= 70


def test_every_parameter_is_explained(notebook):
    (cell,) = [cell for cell in notebook.cells if cell.metadata.get("tags") == ["parameters"]]
    assert all(": " in line.split("=")[0] and "  # " in line for line in cell.source.splitlines())


@pytest.mark.parametrize("name", notebook_names())
def test_outputs_are_of_this_code(name, committed):
    metadata = nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4).metadata
    assert metadata["conslaw"] == {"code": code_of(name)}, f"run `conslaw rebuild {name}` and commit what it writes"


@pytest.mark.parametrize("name", RECORDED)
def test_numbers_are_those_committed(name, fresh):
    if not (fresh / f"{name}.json").exists():
        pytest.skip("the notebook was not run in this session; run pytest without arguments")
    made = {Path(path.name): path.read_bytes() for path in fresh.glob(f"{name}*.*")}
    assert compare(made, FIGURES).beyond == []


@pytest.mark.parametrize("name", RECORDED)
def test_there_are_figures(name):
    for extension in ("png", "svg"):
        assert (FIGURES / f"{name}.{extension}").stat().st_size > 10_000


def test_minimal_agrees_with_the_core():
    code = [cell.source for cell in nbformat.read(NOTEBOOKS / "01_minimal.ipynb", 4).cells if cell.cell_type == "code"]
    assert "conslaw" not in "".join(code)
    namespace, threads = {}, torch.get_num_threads()
    exec(code[0].replace("2000", "100") + "\n" + code[1], namespace)
    torch.set_num_threads(threads)
    run = gradient_descent(draw([42]), namespace["learning_rates"], 100)
    minimal = torch.tensor(list(namespace["drift"].values()), dtype=torch.float64)
    torch.testing.assert_close(run.drift[:, 0, 0], minimal, rtol=1e-9, atol=1e-13)
