"""What the README and the guides show runs, and gives what it says."""

import re

import pytest

from conslaw.paper.notebooks import PROJECT
from conslaw.paper.records import read_record

TEXTS = {name: (PROJECT / name).read_text(encoding="utf-8") for name in ("README.md", "USING.md", "CONTRIBUTING.md")}
BLOCKS = re.findall(r"^```python\n(.*?)^```", "\n".join(TEXTS.values()), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("code", BLOCKS, ids=range(len(BLOCKS)))
def test_examples_run(code, capsys):
    namespace = {}
    exec(code.replace("steps=2000", "steps=20"), namespace)
    printed = re.findall(r"^print\(.*\)  # (.*)$", code, re.MULTILINE)
    assert capsys.readouterr().out.splitlines() == printed
    for expression, shape in re.findall(r"^(\S.*)  # \((\d[\d, ]*)\)[:,]", code, re.MULTILINE):
        value = eval(expression.replace("steps=2000", "steps=20"), namespace)
        assert str(tuple(value.shape)) == f"({shape})"


@pytest.mark.parametrize("name", TEXTS)
def test_files_that_are_linked_exist(name):
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", TEXTS[name])
    assert links
    assert not [link for link in links if not (PROJECT / link).exists()]


def test_readme_is_short():
    assert len(TEXTS["README.md"].splitlines()) <= 120


@pytest.mark.parametrize(
    ("words", "notebook", "quantities"),
    [
        ("right to within {:.1%}", "t04_spectral_formula", ["pairs_relu_mse_inner"]),
        ("drifts {:.0f} to {:.0f} times as far", "edge_held", ["smallest_drift_beyond", "largest_drift_beyond"]),
        ("off by {:.0%} to {:.0%} in the median", "edge_drift", ["rod_central_error", "median_error"]),
        ("off by {:.1%} to {:.1%}.", "edge_drift", ["rod_median_error", "rod_median_error_of_first_seeds"]),
    ],
)
def test_numbers_are_those_of_the_records(words, notebook, quantities):
    values = read_record(notebook)["values"]
    said = words.format(*(values[quantity] for quantity in quantities))
    assert said in TEXTS["README.md"].replace(" %", "%")
