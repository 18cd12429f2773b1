"""What the README and the guides show runs, and gives what it says."""

import re

import pytest

from conslaw.paper.notebooks import PROJECT

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
