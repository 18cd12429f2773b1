"""Batch rebuild and command line, on a project of tiny notebooks."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
import torch
from click.testing import CliRunner
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from tqdm import tqdm

from conslaw.paper import execution, files, notebooks, records, stamps
from conslaw.paper.commands import main
from conslaw.paper.rebuild import _follow, rebuild
from conslaw.paper.stamps import is_up_to_date

PNG = b"\x89PNG and so on IEND\xaeB`\x82"


def write_notebook(folder, name, code, parameters="rate: float = 0.1  # a rate\nnames: list = ['a']  # names"):
    cell = new_code_cell(parameters, id="p")
    cell.metadata["tags"] = ["parameters"]
    cells = [new_markdown_cell(f"# About {name}", id="t"), cell, new_code_cell(code, id="c")]
    metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    nbformat.write(new_notebook(cells=cells, metadata=metadata), folder / f"{name}.ipynb")


# What a notebook leaves in the folder of figures: a figure and a record, in a folder of its own if it is a variant.
FIGURE = """import json, os, pathlib
figures = pathlib.Path(os.environ["CONSLAW_FIGURES"])
(figures / "figure.png").write_bytes(f"{rate} IEND".encode() + b"\\xaeB`\\x82")
def keep(value):
    record = {"notebook": "good", "parameters": {"rate": rate}, "values": {"alpha": value}}
    (figures / "good.json").write_text(json.dumps(record), encoding="utf-8")
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    write_notebook(folder, "good", FIGURE + "keep(rate)\nopen('out.txt', 'a').write(f'{rate} ')\nprint(rate)")
    write_notebook(folder, "bad", FIGURE.replace("{rate}", "half") + "raise RuntimeError('no luck')")
    monkeypatch.setattr(notebooks, "NOTEBOOKS", folder)
    monkeypatch.setenv("CONSLAW_FIGURES", str(tmp_path / "figures"))
    return folder


@pytest.fixture
def without_kernel(project, monkeypatch):
    """Run notebooks in this process, which takes no time: one at a time, as environment and folder are the process'."""
    monkeypatch.setattr("conslaw.paper.rebuild.cores", lambda: 1)
    one_at_a_time = threading.Lock()

    def run(self, name, folder, parameters, environment):
        notebook = json.loads((folder / "source.ipynb").read_text(encoding="utf-8"))
        namespace = {}
        with one_at_a_time, monkeypatch.context() as context, contextlib.chdir(project):
            for key in ("CONSLAW_FIGURES", "CONSLAW_RECORDS"):
                context.setenv(key, environment[key])
            for number, cell in enumerate((c for c in notebook["cells"] if c["cell_type"] == "code"), 1):
                with contextlib.redirect_stdout(io.StringIO()) as printed:
                    try:
                        exec("".join(cell["source"]), namespace)
                    except Exception as error:
                        return f"cell {number + 1}: {error!r}"
                namespace |= parameters if number == 1 else {}
                cell["execution_count"] = number
                text = printed.getvalue()
                cell["outputs"] = [dict(new_output("stream", name="stdout", text=text))] if text else []
        (folder / "executed.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
        return ""

    monkeypatch.setattr(execution.Processes, "run", run)
    return project


@pytest.fixture
def figures(project):
    return project.parent / "figures"


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_rebuild_again_and_with_other_parameters(project, figures):
    result = CliRunner().invoke(main, ["rebuild", "good", "good"])
    assert result.exit_code == 0
    assert "good: rebuilt" in result.output
    assert str(figures) in result.output
    first = (project / "good.ipynb").read_bytes()
    assert b"papermill" not in first
    assert b'"0.1\\n"' in first
    assert rebuild(["good"])[0].status == "up to date"
    result = CliRunner().invoke(main, ["rebuild", "good", "-p", "rate", "0.5"])
    place = figures / "variants" / "good" / "rate=0.5"
    assert str(place) in result.output
    assert (project / "good.ipynb").read_bytes() == first
    assert b'"0.5\\n"' in (place / "good.ipynb").read_bytes()
    assert json.loads((place / "good.json").read_text(encoding="utf-8"))["values"] == {"alpha": 0.5}
    assert json.loads((figures / "good.json").read_text(encoding="utf-8"))["values"] == {"alpha": 0.1}
    assert (project / "out.txt").read_text(encoding="utf-8") == "0.1 0.5 "


def test_folded_cells_stay_folded(without_kernel):
    path = without_kernel / "good.ipynb"
    notebook = nbformat.read(path, 4)
    notebook.cells[2].metadata = {"jupyter": {"source_hidden": True, "outputs_hidden": False}, "scrolled": True}
    nbformat.write(notebook, path)
    assert rebuild(["good"])[0].status == "rebuilt"
    _, parameters, code = (cell.metadata for cell in nbformat.read(path, 4).cells)
    assert parameters == {"tags": ["parameters"]}
    assert code == {"jupyter": {"source_hidden": True}}


def test_variants_do_not_meet(without_kernel, figures):
    for rate in (0.5, 0.6):
        rebuild(["good"], {"rate": rate})
    rebuild(["good"], {"rate": 0.6, "names": ["b", "a"]})
    folders = sorted(path.name for path in (figures / "variants" / "good").iterdir())
    assert folders == ["rate=0.5", "rate=0.6", "rate=0.6,names=[b,a]"]
    assert not (figures / "good.json").exists()
    assert rebuild(["good"], {"rate": 0.1})[0].folder == figures  # the default, said aloud


def test_a_failure_is_named_and_the_rest_goes_on(project, figures):
    write_notebook(project, "dead", "import os\nos._exit(1)")
    before = (project / "bad.ipynb").read_bytes()
    here = Path.cwd()
    result = CliRunner().invoke(main, ["rebuild", "bad", "good", "dead"])
    assert result.exit_code == 1
    lines = {line.split(": ")[0]: line for line in result.output.splitlines() if ": " in line}
    assert "failed" in lines["bad"]
    assert "cell 3: RuntimeError: no luck" in lines["bad"]
    assert "cell 3: " in lines["dead"]
    assert "Kernel died" in lines["dead"]
    assert "good: rebuilt" in lines["good"]
    assert (figures / "figure.png").read_bytes().startswith(b"0.1")  # not the half-made one of "bad"
    assert Path.cwd() == here
    assert (project / "bad.ipynb").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rebuild", "good", "-p", "rte", "1"], "no parameter rte; it has rate, names"),
        (["rebuild", "goood"], "there is no notebook 'goood'; there are bad, good"),
        (["rebuild", "../notebooks/good"], "there is no notebook"),
        (["rebuild", "good", "--device", "cpu"], "no parameter device"),
        (["rebuild", "good", "-p", "rate", "abc"], "rate of good takes a number above 0, got 'abc'"),
    ],
)
def test_bad_arguments_run_nothing(without_kernel, arguments, message):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert message in result.output
    assert not (without_kernel / "out.txt").exists()


def test_names_are_no_paths(without_kernel, tmp_path):
    with pytest.raises(ValueError, match="there is no notebook"):
        rebuild([str(without_kernel / "good")])


def test_a_figures_folder_that_is_a_file(without_kernel, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    monkeypatch.setenv("CONSLAW_FIGURES", str(tmp_path / "file"))
    result = CliRunner().invoke(main, ["rebuild", "good"])
    assert result.exit_code == 1
    assert "cannot write" in result.output
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"
    assert not (without_kernel / "out.txt").exists()


def test_what_cannot_be_written_is_found_before_the_run(without_kernel, monkeypatch):
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as context:
        context.setattr(shutil, "disk_usage", lambda folder: usage(1, 1, 0))
        with pytest.raises(OSError, match="no room in"):
            rebuild(["good"])

    def refuse(dir):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files, "NamedTemporaryFile", refuse)
    with pytest.raises(OSError, match=r"cannot write good.ipynb into the folder .*: Permission denied"):
        rebuild(["good"])
    assert not (without_kernel / "out.txt").exists()


def test_a_write_that_fails_changes_nothing_of_that_notebook(without_kernel, figures):
    (figures / "figure.png").mkdir(parents=True)
    write_notebook(without_kernel, "other", "print(1)")
    before = (without_kernel / "good.ipynb").read_bytes()
    failed, other = rebuild(["good", "other"], jobs=1)
    assert (failed.status, other.status) == ("failed", "rebuilt")
    assert "cannot write figure.png" in failed.error
    assert not (figures / "good.json").exists()
    assert (without_kernel / "good.ipynb").read_bytes() == before


def test_an_edit_during_the_run_stays(without_kernel, figures):
    write_notebook(without_kernel, "edited", FIGURE + "keep(1.0)\nopen('edited.ipynb', 'a').write('\\n')")
    before = (without_kernel / "edited.ipynb").read_bytes()
    [outcome] = rebuild(["edited"])
    assert outcome.status == "failed"
    assert "edited while it ran" in outcome.error
    assert (without_kernel / "edited.ipynb").read_bytes() == before + b"\n"
    assert not (figures / "good.json").exists()
    assert not is_up_to_date("edited")


@pytest.mark.parametrize("damage", ["figure", "record", "cleared", "error", "code", "stamp"])
def test_up_to_date_means_contents(without_kernel, figures, damage):
    rebuild(["good"])
    assert rebuild(["good"])[0].status == "up to date"
    path = without_kernel / "good.ipynb"
    if damage == "figure":
        (figures / "figure.png").write_bytes(b"")
    elif damage == "record":
        (figures / "good.json").unlink()
    elif damage == "stamp":
        (figures / ".stamps" / "good.json").write_bytes(b"\xff\xfe")
    elif damage == "code":
        edit(path, "print(rate)", "print(rate, 1)")
    else:
        notebook = nbformat.read(path, 4)
        failed = new_output("error", ename="ValueError", evalue="no", traceback=[])
        notebook.cells[-1].outputs = [] if damage == "cleared" else [failed]
        nbformat.write(notebook, path)
    assert not is_up_to_date("good")
    [outcome] = rebuild(["good"])
    assert (outcome.status, outcome.kept) == ("rebuilt", damage == "stamp")
    assert json.loads(path.read_text(encoding="utf-8"))["cells"][-1]["outputs"][0]["output_type"] == "stream"
    assert (figures / "figure.png").read_bytes().startswith(b"0.1")
    assert rebuild(["good"])[0].status == "up to date"


@pytest.mark.parametrize(("value", "kept"), [("1.0000000001", True), ("1.001", False), ("-1.0", False)])
def test_what_agrees_stays_to_the_last_digit(without_kernel, figures, value, kept):
    machine = without_kernel / "machine.txt"
    machine.write_text("1.0", encoding="utf-8")
    code = FIGURE + "keep(float(open('machine.txt').read()))\nprint('so much')"
    code += "\n(figures / 'figure.png').write_bytes(open('machine.txt', 'rb').read() + b'IEND\\xaeB`\\x82')"
    write_notebook(without_kernel, "good", code)
    rebuild(["good"])
    paths = [without_kernel / "good.ipynb", figures / "good.json", figures / "figure.png"]
    before = [path.read_bytes() for path in paths]
    machine.write_text(value, encoding="utf-8")
    result = CliRunner().invoke(main, ["rebuild", "--force", "good"])
    assert ("as before" in result.output) == kept
    assert ([path.read_bytes() for path in paths] == before) == kept
    last = result.output.splitlines()[-1]
    assert "1 numbers compared with those before: 0 equal" in last
    assert ("all within their tolerance" in last) == kept
    assert ("beyond their tolerance: good: alpha" in last) != kept
    assert is_up_to_date("good")


def test_other_code_or_other_words_replace(without_kernel):
    rebuild(["good"])
    edit(without_kernel / "good.ipynb", "print(rate)", "print(rate)  # new")
    assert not rebuild(["good"])[0].kept
    assert rebuild(["good"], force=True)[0].kept
    notebook = nbformat.read(without_kernel / "good.ipynb", 4)
    notebook.cells[-1].outputs[0].text = "other words\n"
    nbformat.write(notebook, without_kernel / "good.ipynb")
    assert not rebuild(["good"], force=True)[0].kept


@pytest.mark.parametrize("foreign", [b"another figure IEND\xaeB`\x82", b""])
def test_a_foreign_figure_is_replaced(without_kernel, figures, foreign):
    rebuild(["good"])
    mine = (figures / "figure.png").read_bytes()
    (figures / "figure.png").write_bytes(foreign)
    assert not rebuild(["good"])[0].kept
    assert (figures / "figure.png").read_bytes() == mine
    assert rebuild(["good"], force=True)[0].kept


def test_what_another_package_drew_is_replaced(without_kernel, figures, tmp_path, monkeypatch):
    """Figures may show what no record holds, so only the libraries may differ between the files that stay."""
    (tmp_path / "package" / "paper").mkdir(parents=True)
    (tmp_path / "package" / "paper" / "plotting.py").write_text("", encoding="utf-8")
    monkeypatch.setattr(stamps, "PACKAGE", tmp_path / "package")
    rebuild(["good"])
    monkeypatch.setattr(stamps, "versions", lambda: {"torch": "another build"})
    assert rebuild(["good"])[0].kept
    (tmp_path / "package" / "theory.py").write_text("changed = True", encoding="utf-8")
    assert not rebuild(["good"])[0].kept
    assert rebuild(["good"], force=True)[0].kept


def test_a_summary_is_made_anew_when_what_it_shows_is(without_kernel, figures):
    write_notebook(without_kernel, "00_summary", "print('summary')")
    rebuild(["good", "00_summary"])
    assert [outcome.status for outcome in rebuild(["good", "00_summary"])] == ["up to date"] * 2
    (figures / "figure.png").write_bytes(PNG)
    summary = rebuild(["00_summary"])[0]
    assert (summary.status, summary.kept) == ("rebuilt", False)


def test_unfinished_notebooks_are_skipped(without_kernel):
    (without_kernel / "bad.ipynb").unlink()
    nbformat.write(new_notebook(cells=[new_code_cell("1")]), without_kernel / "Untitled.ipynb")
    (without_kernel / "empty.ipynb").write_bytes(b"")
    write_notebook(without_kernel, "broken", "1", parameters="rate: float = f(1)")
    for command in ("list", "rebuild"):
        result = CliRunner().invoke(main, [command])
        assert result.exit_code == 0, result.output
        assert "Untitled: skipped, as notebook 'Untitled' has no cell tagged 'parameters'" in result.output
        assert "empty: skipped" in result.output
        assert "empty.ipynb is no notebook" in result.output
        assert "broken: skipped" in result.output
    with pytest.raises(ValueError, match=r"empty.ipynb is no notebook"):
        rebuild(["empty"])


def test_a_parameter_goes_to_the_notebooks_that_have_it(without_kernel):
    write_notebook(without_kernel, "00_summary", "print('summary')", "columns: int = 3  # columns")
    (without_kernel / "bad.ipynb").unlink()
    assert [outcome.name for outcome in rebuild(parameters={"rate": 0.2})] == ["good"]
    with pytest.raises(ValueError, match="no parameter rte"):
        rebuild(parameters={"rte": 0.2})


@pytest.mark.parametrize("command", ["list", "ledger", "rebuild", "site"])
def test_without_notebooks(project, command):
    for path in project.glob("*.ipynb"):
        path.unlink()
    result = CliRunner().invoke(main, [command])
    assert result.exit_code == 1
    assert "install from a clone" in result.output


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
def test_cuda_without_cuda(without_kernel):
    write_notebook(without_kernel, "good", "1", 'device: str = "cpu"  # device')
    result = CliRunner().invoke(main, ["rebuild", "--device", "cuda"])
    assert result.exit_code == 1
    assert "finds no CUDA device" in result.output


SLOW = FIGURE + "open('begun', 'w').write(str(os.getpid()))\nimport time\ntime.sleep(300)\nopen('ended', 'w').close()"


def wait_until(happens, seconds=60):
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.1)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").split(") ")[1][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_an_interrupted_rebuild_ends_at_once_and_keeps_what_was_made(project, figures):
    write_notebook(project, "slow", SLOW)
    before = (project / "slow.ipynb").read_bytes()

    def interrupt():
        wait_until((project / "begun").exists)
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
    assert not (figures / "figure.png").exists()


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks into /proc")
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_rebuild_that_is_ended_takes_its_kernel_along(project, ending):
    if signal.getsignal(ending) == signal.SIG_IGN:
        pytest.skip("ignored, as under nohup")
    write_notebook(project, "slow", SLOW)
    code = f"""import pathlib
from conslaw.paper import notebooks, commands
notebooks.NOTEBOOKS = pathlib.Path({str(project)!r})
commands.main(["rebuild", "slow"])"""
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    wait_until(lambda: (project / "begun").exists() and (project / "begun").read_text(encoding="utf-8"))
    kernel = int((project / "begun").read_text(encoding="utf-8"))
    assert is_running(kernel)
    process.send_signal(ending)
    assert process.wait(30) == (-ending if ending == signal.SIGKILL else 128 + ending)
    wait_until(lambda: not is_running(kernel), 10)


def test_the_environment_does_not_leak_in(project, figures, monkeypatch, tmp_path):
    other = tmp_path / "other" / "kernels" / "python3"
    other.mkdir(parents=True)
    spec = {"argv": ["/bin/false"], "display_name": "Other", "language": "python"}
    (other / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "first.py").write_text("from_startup = 1", encoding="utf-8")
    for key, value in {
        "JUPYTER_PATH": str(tmp_path / "other"),
        "JUPYTER_PREFER_ENV_PATH": "0",
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "MPLBACKEND": "agg",
        "LC_ALL": "en_US.ISO-8859-1",
        "OMP_NUM_THREADS": "1",
    }.items():
        monkeypatch.setenv(key, value)
    code = """import sys, os, matplotlib
print(sys.executable, matplotlib.get_backend(), "from_startup" in globals(), os.environ["OMP_NUM_THREADS"], "α")
open("text.txt", "w").write("α")"""
    write_notebook(project, "good", code)
    assert rebuild(["good"])[0].error == ""
    executable, backend, leaked, threads, letter = (
        nbformat.read(project / "good.ipynb", 4).cells[2].outputs[0].text.split()
    )
    assert executable == sys.executable
    assert "inline" in backend
    assert (leaked, threads, letter) == ("False", "1", "α")
    assert (project / "text.txt").read_bytes() == "α".encode()


def test_threads_are_those_of_this_process(without_kernel, monkeypatch):
    seen = []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("conslaw.paper.rebuild.cores", lambda: 6)
    run = execution.Processes.run
    monkeypatch.setattr(
        execution.Processes, "run", lambda *args: seen.append((args[1], args[4]["OMP_NUM_THREADS"])) or run(*args)
    )
    write_notebook(without_kernel, "01_minimal", "1")
    rebuild(["good", "01_minimal"])
    rebuild(["good"], force=True)
    assert sorted(seen) == [("01_minimal", "1"), ("good", "3"), ("good", "6")]


def test_a_terminal_shows_what_runs(tmp_path):
    processes, stream = execution.Processes(), io.StringIO()
    processes._running = {"slow": None, "other": None}
    (tmp_path / "progress").write_text("MNIST 40%", encoding="utf-8")
    processes._reports = {"slow": tmp_path / "progress", "other": tmp_path / "nothing yet"}
    with ThreadPoolExecutor(1) as pool, tqdm(total=1, file=stream, disable=False) as bar:
        _follow({pool.submit(time.sleep, 1.2)}, processes, bar)
    shown = stream.getvalue().split("\r")
    assert any("0/1" in line and "other, slow (MNIST 40%)" in line for line in shown)
    assert "1/1" in shown[-1]


def test_a_relative_figures_folder_is_the_callers(without_kernel, monkeypatch):
    monkeypatch.chdir(without_kernel.parent)
    monkeypatch.setenv("CONSLAW_FIGURES", "elsewhere")
    assert rebuild(["good"])[0].status == "rebuilt"
    assert (without_kernel.parent / "elsewhere" / "good.json").exists()


def test_list(project):
    result = CliRunner().invoke(main, ["list"])
    assert "good: About good" in result.output
    assert "rate: float = 0.1  # a rate" in result.output


def test_those_that_take_longest_start_first(without_kernel, monkeypatch):
    monkeypatch.setattr(notebooks, "TIMES", without_kernel / "times.json")
    notebooks.TIMES.write_text('{"seconds_of_each": {"brief": 1, "long": 2}}', encoding="utf-8")
    for name in ("brief", "long"):
        write_notebook(without_kernel, name, f"open('order.txt', 'a').write('{name} ')")
    assert [outcome.name for outcome in rebuild(["brief", "long"], jobs=1)] == ["brief", "long"]
    assert (without_kernel / "order.txt").read_text(encoding="utf-8") == "long brief "
    assert records.figures_folder().exists()


def test_provenance_names_the_machine():
    result = CliRunner().invoke(main, ["provenance"])
    found = json.loads(result.output)
    assert {"python", "torch", "numba", "llvmlite", "processor", "threads", "blas", "cores"} <= found.keys()
    assert found["torch"] == torch.__version__
