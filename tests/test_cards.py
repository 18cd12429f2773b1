"""The card on top of every notebook says what its record and the claims say, and comes back where it is lost."""

import json

import pytest

from conslaw.paper import cards, notebooks
from conslaw.paper.cards import card, first_sentence, minutes, write_cards
from conslaw.paper.claims import read_claims
from conslaw.paper.ledger import all_verdicts
from conslaw.paper.notebooks import notebook_names, read_cells
from conslaw.paper.typeset import typeset


def test_every_notebook_with_claims_has_its_card(committed):
    results, judged = all_verdicts(), {claim.notebook for claim in read_claims()}
    for name in notebook_names():
        texts = [cell["source"] for cell in read_cells(name) if "card" in cell["metadata"].get("tags", [])]
        assert texts == [card(name, results)] * (name in judged), f"run `conslaw ledger` and commit {name}"


def test_a_lost_or_changed_card_comes_back(committed, tmp_path, monkeypatch):
    name, results = "fig1b_drift_scaling", all_verdicts()
    path = tmp_path / f"{name}.ipynb"
    whole = json.loads((notebooks.NOTEBOOKS / path.name).read_text(encoding="utf-8"))
    monkeypatch.setattr(notebooks, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(cards, "notebook_names", lambda: [name])
    bare = [cell for cell in whole["cells"] if cell["id"] != "card"]
    for cells in (bare, [bare[0], {**whole["cells"][1], "source": ["other"]}, *bare[1:]]):
        path.write_text(json.dumps(whole | {"cells": cells}), encoding="utf-8")
        write_cards(results)
        assert json.loads(path.read_text(encoding="utf-8")) == whole
    before = path.stat().st_mtime_ns
    write_cards(results)
    assert path.stat().st_mtime_ns == before


def test_a_card_is_a_table_of_the_notebooks_claims(committed):
    text = card("fig1b_drift_scaling", all_verdicts())
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    ids = [claim.id for claim in read_claims() if claim.notebook == "fig1b_drift_scaling"]
    assert [row.split(" | ")[0].strip("| ") for row in rows] == ["claim", *ids]
    assert "**number only**: One line through all points" in text
    assert card("00_overview", all_verdicts()) == ""


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("One. Two.", "One."),
        ("It is 1.5 of 2. α grows.", "It is 1.5 of 2."),
        ("Small, e.g. 3 % of all. More", "Small, e.g. 3 % of all."),
        ("Is it? No.", "Is it?"),
        ("Only one", "Only one"),
    ],
)
def test_first_sentence(text, first):
    assert first_sentence(text) == first


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (1.2, "5 seconds"),
        (37.9, "40 seconds"),
        (70, "1 minute"),
        (302, "5 minutes"),
    ],
)
def test_minutes(seconds, said, tmp_path, monkeypatch):
    monkeypatch.setattr(notebooks, "TIMES", tmp_path / "paper.json")
    monkeypatch.setattr(cards, "code_of", lambda name: f"code of {name}")
    assert minutes("x") == ""
    times = {"core_seconds_of_each": {"x": seconds, "old": seconds}}
    times["code_of_each"] = {"x": "code of x", "old": "other code"}
    notebooks.TIMES.write_text(json.dumps(times), encoding="utf-8")
    assert minutes("x") == f"It takes {said} on one core."
    assert minutes("old") == minutes("new") == ""


@pytest.mark.parametrize(
    ("text", "set_"),
    [
        ("3e-10", "3 × 10⁻¹⁰"),
        ("1e-4 to 0.1", "10⁻⁴ to 0.1"),
        ("1.2e+03", "1.2 × 10³"),
        ("η^−0.84, -0.8", "η<sup>−0.84</sup>, −0.8"),
        ("(1 − ηλ_k)^(2T) m^-0.5", "(1 − ηλ<sub>k</sub>)<sup>2T</sup> m<sup>−0.5</sup>"),
        (
            "λ_max(H_GN), e_k²λ_x,k², |ΔC_1|",
            "λ<sub>max</sub>(H<sub>GN</sub>), e<sub>k</sub>²λ<sub>x,k</sub>², |ΔC<sub>1</sub>|",
        ),
        (
            "vit_b_16, vit_tiny, mobilenet_v3, fig4a_width_scaling",
            "vit_b_16, vit_tiny, mobilenet_v3, fig4a_width_scaling",
        ),
        ("5%, 5 %", "5\u00a0%, 5\u00a0%"),
        ("m-1, E05-2, 2026-11-26, (n-1)", "m-1, E05-2, 2026-11-26, (n-1)"),
        ("e2e4 x1e5", "e2e4 x1e5"),
    ],
)
def test_typeset(text, set_):
    assert typeset(text) == set_
    assert typeset(set_) == set_
