"""Every notebook runs with one seed and its smallest sensible parameters, and then judges nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conslaw.paper.notebooks import NOTEBOOKS, PROJECT, read_parameters

SMALLEST = json.loads(Path(__file__).with_name("smallest.json").read_text(encoding="utf-8"))
# What papermill does, without a kernel's start: the cell of parameters, other values for them, the other cells.
RUN = """
import json, sys
cells = json.load(open(sys.argv[1], encoding="utf-8"))["cells"]
namespace = {"__name__": "__main__"}
for cell in cells:
    if cell["cell_type"] == "code":
        exec("".join(cell["source"]), namespace)
        if "parameters" in cell["metadata"].get("tags", []):
            namespace.update(json.loads(sys.argv[2]))
"""


def test_every_notebook_has_its_smallest_parameters():
    assert SMALLEST.keys() == {path.stem for path in NOTEBOOKS.glob("*.ipynb")}
    assert all(SMALLEST[name].keys() <= read_parameters(name).keys() for name in SMALLEST)


@pytest.mark.parametrize("name", SMALLEST)
def test_smallest_parameters(name, tmp_path):
    environment = {
        "CONSLAW_FIGURES": str(tmp_path),
        "CONSLAW_RECORDS": str(PROJECT / "figures"),
        "MPLBACKEND": "agg",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error::DeprecationWarning:__main__",
            "-c",
            RUN,
            f"{name}.ipynb",
            json.dumps(SMALLEST[name]),
        ],
        cwd=NOTEBOOKS,
        env=os.environ | environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    if name != "01_minimal":
        assert list((tmp_path / "variants").rglob(f"{name}.json"))
        assert not list(tmp_path.glob(f"{name}.*"))
    if not name.startswith("0"):
        assert "no verdict" in done.stdout
        assert "E0" not in done.stdout.splitlines()[-1]
