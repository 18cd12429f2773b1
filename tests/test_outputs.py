"""What a committed notebook prints is compared, number by number, with what it prints when a test runs it."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from conslaw.paper.prints import differences, same_number


@pytest.mark.parametrize(
    ("fresh", "committed", "same"),
    [
        ("1.1688", "1.1688", True),
        ("1.1688", "1.1689", True),  # one unit of the last digit
        ("1.1688", "1.9999", False),
        ("1.1688", "1.1708", False),
        ("5396", "5399", True),  # a thousandth
        ("5396", "5406", False),
        ("−0.84", "-0.84", True),
        ("0.84", "-0.84", False),
        ("13", "14", True),
        ("13", "15", False),
        ("3.976e-05", "3.977e-05", True),
        ("3.976e-05", "3.996e-05", False),
        ("7e-07", "2e-07", True),  # one digit: a magnitude, within a factor of ten
        ("7e-06", "6e-07", False),
        ("7e-06", "-7e-06", False),
        ("7e-10", "-3.866e-11", True),  # nothing but rounding
    ],
)
def test_numbers(fresh, committed, same):
    assert same_number(fresh, committed) == same
    assert same_number(committed, fresh) == same


@pytest.mark.parametrize(("fresh", "same"), [("1.2", True), ("2.9", True), ("3.2", False), ("-1.1", False)])
def test_rough_numbers(fresh, same):
    assert same_number(fresh, "1.0", rough=True) == same


def test_texts():
    assert not differences("α    1.17\nR² 0.99  all", "α 1.17\nR²    0.99 all\n")
    assert differences("α 1.17, R² 0.99", "α 1.17, R² 0.95") == ["0.95 before, now 0.99"]
    assert differences("α 1.17: holds", "α 1.17: fails")
    assert differences("1.17", "1.17 1.18")
    assert differences("E05: 2", "E06: 2")  # a name is no number
    assert differences("nan", "1.0")


def notebook(path, printed):
    output = new_output("stream", name="stdout", text=printed)
    cell = new_code_cell("print('slope', 1.168)", outputs=[output], execution_count=1)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nbformat.write(new_notebook(cells=[cell], metadata={"kernelspec": kernel}), path)


def test_a_changed_number_fails(tmp_path):
    notebook(tmp_path / "same.ipynb", "slope 1.168\n")
    notebook(tmp_path / "changed.ipynb", "slope 1.999\n")
    (tmp_path / "pytest.ini").touch()  # its own project, with our conftest.py as a plug-in
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "--nbval-lax", "-q", "."]
    path = {"PYTHONPATH": str(Path(__file__).parents[1])}
    run = subprocess.run(
        command, cwd=tmp_path, env=os.environ | path, capture_output=True, encoding="utf-8", check=False
    )
    assert "1.999 before, now 1.168" in run.stdout
    assert "1 failed, 1 passed" in run.stdout
