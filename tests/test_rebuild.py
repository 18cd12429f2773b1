"""Batch rebuild and command line, on a project of tiny notebooks."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import nbformat
import pytest
import torch
from click.testing import CliRunner
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from conslaw.paper import records
from conslaw.paper.commands import main
from conslaw.paper.rebuild import LONGEST, rebuild


def write_notebook(folder, name, code):
    parameters = new_code_cell("rate: float = 0.1  # a rate\nnames: list = ['a']  # names", id="p")
    parameters.metadata["tags"] = ["parameters"]
    cells = [new_markdown_cell(f"# About {name}", id="t"), parameters, new_code_cell(code, id="c")]
    metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    nbformat.write(new_notebook(cells=cells, metadata=metadata), folder / f"{name}.ipynb")


# What a notebook leaves in the folder of figures.
FIGURE = "import os, pathlib; (pathlib.Path(os.environ['CONSLAW_FIGURES']) / 'figure.png').write_text(str(rate))\n"


@pytest.fixture
def project(tmp_path, monkeypatch):
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    write_notebook(notebooks, "good", FIGURE + "open('out.txt', 'a').write(f'{rate} ')\nprint(rate)")
    write_notebook(notebooks, "bad", FIGURE.replace("rate", "'half'") + "raise RuntimeError('no luck')")
    monkeypatch.setattr(records, "NOTEBOOKS", notebooks)
    monkeypatch.setenv("CONSLAW_FIGURES", str(tmp_path / "figures"))
    return notebooks


def test_rebuild_again_and_with_other_parameters(project):
    result = CliRunner().invoke(main, ["rebuild", "good", "good"])
    assert result.exit_code == 0
    assert "good: rebuilt" in result.output
    first = (project / "good.ipynb").read_bytes()
    assert b"papermill" not in first
    assert b'"0.1\\n"' in first
    assert rebuild(["good"])[0].status == "up to date"
    assert rebuild(["good"], {"rate": 0.1}, force=True)[0].status == "rebuilt"
    assert (project / "good.ipynb").read_bytes() == first
    assert rebuild(["good"], {"rate": 0.5})[0].status == "rebuilt"
    assert (project / "good.ipynb").read_bytes() == first
    assert b'"0.5\\n"' in (project / "variants" / "good.ipynb").read_bytes()
    assert (project / "out.txt").read_text() == "0.1 0.1 0.5 "
    assert (project.parent / "figures" / "figure.png").read_text() == "0.5"
    (project.parent / "figures" / "figure.png").unlink()
    assert rebuild(["good"])[0].status == "rebuilt"


def test_a_failure_is_named_and_the_rest_goes_on(project):
    write_notebook(project, "dead", "import os\nos._exit(1)")
    before = (project / "bad.ipynb").read_bytes()
    here = Path.cwd()
    result = CliRunner().invoke(main, ["rebuild", "bad", "good", "dead", "-p", "rate", "0.2"])
    assert result.exit_code == 1
    lines = {line.split(": ")[0]: line for line in result.output.splitlines() if ": " in line}
    assert "failed" in lines["bad"]
    assert "cell 3: RuntimeError: no luck" in lines["bad"]
    assert "cell 3: " in lines["dead"]
    assert "Kernel died" in lines["dead"]
    assert "good: rebuilt" in lines["good"]
    assert (project.parent / "figures" / "figure.png").read_text() == "0.2"  # not the half-made one of "bad"
    assert Path.cwd() == here
    assert (project / "bad.ipynb").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rebuild", "good", "-p", "rte", "1"], "no parameter rte; it has rate, names"),
        (["rebuild", "goood"], "there is no notebook 'goood'; there are bad, good"),
        (["rebuild", "good", "--device", "cpu"], "no parameter device"),
    ],
)
def test_bad_arguments_run_nothing(project, arguments, message):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert message in result.output
    assert not (project / "out.txt").exists()


def test_a_figures_folder_that_is_a_file(project, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("CONSLAW_FIGURES", str(tmp_path / "file"))
    result = CliRunner().invoke(main, ["rebuild", "good"])
    assert result.exit_code == 1
    assert "cannot write" in result.output
    assert (tmp_path / "file").read_text() == "mine"
    assert not (project / "out.txt").exists()


def test_an_interrupted_write_keeps_the_old_file(tmp_path, monkeypatch):
    target = tmp_path / "records.json"
    records.replace_file(target, "old")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        records.replace_file(target, "new")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["records.json"]


def test_a_parameter_goes_to_the_notebooks_that_have_it(project):
    write_notebook(project, "00_summary", "print('summary')")
    text = (project / "00_summary.ipynb").read_text().replace("rate: float = 0.1", "columns: int = 3")
    (project / "00_summary.ipynb").write_text(text)
    (project / "bad.ipynb").unlink()
    assert [outcome.name for outcome in rebuild(parameters={"rate": 0.2})] == ["good"]
    with pytest.raises(ValueError, match="no parameter rte"):
        rebuild(parameters={"rte": 0.2})


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe"])
def test_a_damaged_stamp_costs_one_run(project, damage):
    rebuild(["good"])
    (project.parent / "figures" / ".stamps" / "good").write_bytes(damage)
    assert rebuild(["good"])[0].status == "rebuilt"
    assert rebuild(["good"])[0].status == "up to date"


def test_without_notebooks(project):
    for path in project.glob("*.ipynb"):
        path.unlink()
    result = CliRunner().invoke(main, ["list"])
    assert result.exit_code == 1
    assert "install from a clone" in result.output


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
def test_cuda_without_cuda(project):
    result = CliRunner().invoke(main, ["rebuild", "--device", "cuda"])
    assert result.exit_code == 1
    assert "finds no CUDA device" in result.output


def test_an_interrupted_rebuild_ends_at_once_and_keeps_what_was_made(project):
    write_notebook(
        project, "slow", FIGURE + "open('begun', 'w').close()\nimport time\ntime.sleep(300)\nopen('ended', 'w').close()"
    )
    before = (project / "slow.ipynb").read_bytes()

    def interrupt():
        while not (project / "begun").exists():
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore the signal
    try:
        with pytest.raises(KeyboardInterrupt):
            rebuild(["slow", "good"], jobs=1)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert not (project / "ended").exists()
    assert (project / "slow.ipynb").read_bytes() == before
    assert not (project / "out.txt").exists()
    assert not (project.parent / "figures" / "figure.png").exists()


def test_a_relative_figures_folder_is_the_callers(project, monkeypatch):
    monkeypatch.chdir(project.parent)
    monkeypatch.setenv("CONSLAW_FIGURES", "elsewhere")
    assert rebuild(["good"])[0].status == "rebuilt"
    assert (project.parent / "elsewhere" / "figure.png").read_text() == "0.1"


def test_list(project):
    result = CliRunner().invoke(main, ["list"])
    assert "good: About good" in result.output
    assert "rate = 0.1  # a rate" in result.output


def test_the_notebooks_that_start_first_are_those_that_take_longest():
    measured = json.loads((records.PROJECT / "benchmarks" / "results" / "paper.json").read_text())["seconds_of_each"]
    assert set(sorted(measured, key=measured.get)[-len(LONGEST) :]) == LONGEST


def test_they_start_first(project, monkeypatch):
    monkeypatch.setattr("conslaw.paper.rebuild.LONGEST", {"long"})
    for name in ("brief", "long"):
        write_notebook(project, name, FIGURE + f"open('order.txt', 'a').write('{name} ')")
    assert [outcome.name for outcome in rebuild(["brief", "long"], jobs=1)] == ["brief", "long"]
    assert (project / "order.txt").read_text() == "long brief "
