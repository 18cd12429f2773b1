"""The site: a page for each notebook, which needs nothing from elsewhere, with every link leading somewhere."""

import json
import re
from html.parser import HTMLParser

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from conslaw.paper import notebooks, site
from conslaw.paper.claims import read_claims
from conslaw.paper.notebooks import notebook_names

LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}


class Page(HTMLParser):
    """What a page loads, where it leads to, and its formulas."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.links, self.described, self.places, self.formulas = [], [], [], set(), 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        """Note a tag."""
        attributes = dict(attributes)
        if tag in LOADED and attributes.get(LOADED[tag]):
            self.loads.append(attributes[LOADED[tag]])
        self.places.add(attributes.get("id"))
        if tag == "img":
            self.described.append(attributes.get("alt", ""))
        if tag == "a":
            self.links.append(attributes.get("href", ""))
        if tag == "math":
            self.formulas += 1


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    site.build(folder)
    assert (folder / "plotly.min.js").exists()
    return {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.html")}


def test_there_is_a_page_for_each_notebook(pages):
    names = {*notebook_names(), *site.EXTRA, "index"}
    assert set(pages) == {f"{name}.html" for name in names}
    assert pages["index.html"] == pages[f"{site.FIRST}.html"]


def test_pages_need_nothing_from_elsewhere_and_links_lead_somewhere(pages):
    for name, text in pages.items():
        page = Page(text)
        assert all(source.startswith("data:") or source == "plotly.min.js" for source in page.loads), name
        assert "@import" not in text
        for link in page.links:
            file, _, place = link.partition("#")
            assert link.startswith("https://") or file in ("", *pages), (name, link)
            assert not place or place in Page(pages[file or name]).places, (name, link)


def test_figures_are_described(pages):
    for name, text in pages.items():
        for described in Page(text).described:
            assert len(described) > 10, name
            assert "No description" not in described, name
            assert "\\" not in described, name


def test_notebooks_have_contents_and_coloured_verdicts(pages):
    text = pages["fig1b_drift_scaling.html"]
    assert re.findall(r'<nav class="contents".*?</nav>', text)[0].count("<li>") == text.count("<h2 id=")
    assert '<strong class="verdict number-only">number only</strong>' in text


def test_the_ledger_has_every_claim(pages):
    text = pages["ledger.html"]
    for claim in read_claims():
        assert f'<article id="{claim.id}"' in text
    assert text.count("data-verdict=") == len(read_claims())


def test_the_runs_to_explore_are_those_recorded(pages):
    data = json.loads(re.search(r'id="data">(.*?)</script>', pages["explore.html"])[1])
    table = pd.read_csv(notebooks.PROJECT / "figures" / "02_explore.csv")
    for _, of_run in table[table.predicted.notna()].groupby(["loss", "width", "eta"]):
        assert of_run.predicted.iloc[0] == of_run.drift.iloc[0]  # where the prediction starts
        table.loc[of_run.index, "measured"] = of_run.drift - of_run.drift.iloc[0]
        table.loc[of_run.index, "predicted"] = of_run.predicted - of_run.drift.iloc[0]
    for run in data["runs"]:
        rows = table[(table.loss == run["loss"]) & (table.width == run["width"])]
        for name in ("drift", "imbalance", "sharpness", "measured", "predicted"):
            values = [value for row in run[name] for value in row]
            assert len(values) == len(data["rates"]) * len(data["times"]) == len(rows)
            assert all((ours is None) == (theirs != theirs) for ours, theirs in zip(values, rows[name], strict=True))
            assert values == [pytest.approx(theirs, rel=6e-4) if theirs == theirs else None for theirs in rows[name]]


def test_formulas_are_set(pages):
    formulas = 0
    for text in pages.values():
        prose = re.sub(r"<(pre|style|annotation).*?</\1>", "", text, flags=re.DOTALL)
        assert not re.search(r"\$[^<$]*\\[a-z]+", prose)
        formulas += Page(text).formulas
        for formula in re.findall(r"<math.*?</math>", text, flags=re.DOTALL):
            assert "\\" not in re.sub(r"<[^>]+>", "", formula)
    assert formulas > 200


def write(folder, *cells):
    folder.mkdir()
    parameters = new_code_cell("width: int = 64  # m", metadata={"tags": ["parameters"]}, execution_count=1)
    nbformat.write(new_notebook(cells=[parameters, *cells]), folder / "00_overview.ipynb")


def test_what_cannot_be_shown_is_an_error(tmp_path, monkeypatch):
    output = new_output("stream", text="1\n")
    error = new_output("error", ename="KeyError", evalue="x", traceback=[])
    ran = new_code_cell("1", outputs=[output], execution_count=1)
    write(tmp_path / "formula", new_markdown_cell("$x_a_b$"), ran)
    write(tmp_path / "empty", new_markdown_cell("# Nothing"), ran, new_code_cell("1"))
    write(tmp_path / "failed", ran, new_code_cell("1", outputs=[output, error], execution_count=2))
    for folder, message in (
        ("formula", "cannot be set"),
        ("empty", r"cell 4 of notebook 00_overview was not run; .* --force 00_overview"),
        ("failed", "cell 3 of notebook 00_overview shows an error, KeyError"),
    ):
        monkeypatch.setattr(notebooks, "NOTEBOOKS", tmp_path / folder)
        with pytest.raises(ValueError, match=message):
            site.build(tmp_path / "site")
