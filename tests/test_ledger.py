"""The ledger: verdicts flip when the numbers do, and its pages hold what the records say."""

import math
import re
from dataclasses import replace
from graphlib import CycleError

import pytest

from conslaw.paper import claims, ledger
from conslaw.paper.claims import VERDICTS, Claim, meets, read_claims
from conslaw.paper.ledger import Verdict, all_verdicts, judge, score
from conslaw.paper.notebooks import PROJECT, notebook_names
from conslaw.paper.records import read_record

CLAIM = Claim(
    id="E99.test",
    kind="statement",
    notebook="x",
    place="nowhere",
    source="paper",
    statement="a claim",
    published="1.0",
    number=[{"quantity": "a", "near": 1.0, "tolerance": 0.1}],
    conclusion=[{"quantity": "b", "below": 2.0, "above": 1.0}],
    measured="{a:.2f}",
    finding="b is {b:.0%}",
    threshold="as printed",
    turned_by="another b",
    for_authors="a is {a:.1f}",
)


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        (1.05, 1.5, "holds"),
        (1.05, 2.5, "number only"),
        (1.05, 0.5, "number only"),
        (1.2, 1.5, "fails"),
        (None, 1.5, "fails"),
    ],
)
def test_verdicts(a, b, verdict):
    judged = judge(CLAIM, {"a": a, "b": b})
    assert judged.verdict == verdict
    speaks = "" if verdict == "holds" else f"\n    For the authors: a is {a or math.nan:.1f}"
    assert str(judged) == f"E99.test: {verdict} (published 1.0; here {a or math.nan:.2f})\n    b is {b:.0%}{speaks}"


@pytest.mark.parametrize(
    ("more", "a", "b", "verdict"),
    [
        ({"slip": [{"quantity": "a", "below": 1.3}]}, 1.2, 1.5, "slip"),
        ({"slip": [{"quantity": "a", "below": 1.3}]}, 1.2, 2.5, "fails"),
        ({"slip": [{"quantity": "a", "below": 1.3}]}, 1.4, 1.5, "fails"),
        ({"slip": [{"quantity": "a", "below": 1.3}]}, 1.0, 1.5, "holds"),
        ({"part": [{"quantity": "b", "below": 3.0}]}, 1.2, 2.5, "holds in part"),
        ({"part": [{"quantity": "b", "below": 3.0}]}, 1.0, 2.5, "holds in part"),
        ({"part": [{"quantity": "b", "below": 3.0}]}, 1.0, 3.5, "number only"),
        ({"part": [{"quantity": "b", "below": 3.0}]}, 1.0, 1.5, "holds"),
        ({"chance": [{"quantity": "b", "above": 1.0}]}, 1.0, 1.5, "not reproducible"),
        ({"chance": [{"quantity": "b", "above": 9.0}]}, 1.0, 1.5, "holds"),
        ({"untested": True, "number": [], "conclusion": []}, 1.0, 1.5, "untested"),
    ],
)
def test_other_verdicts(more, a, b, verdict):
    judged = judge(replace(CLAIM, **more), {"a": a, "b": b})
    assert judged.verdict == verdict
    assert bool(judged.for_authors) == (verdict != "holds")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "theorem"}, "kind must be one of statement, script, sentence, own, got 'theorem'"),
        ({"source": "abstract"}, "source must be one of paper, published results, none, got 'abstract'"),
        ({"number": []}, "has conditions on its number, or is untested"),
        ({"untested": True}, "has conditions on its number, or is untested"),
    ],
)
def test_a_claim_that_could_not_be_judged(wrong, message):
    with pytest.raises(ValueError, match=message):
        replace(CLAIM, **wrong)


ENTRY = """
[[claim]]
id = "{id}"
kind = "own"
notebook = "x"
place = "here"
source = "none"
statement = "a"
published = "—"
measured = ""
finding = ""
threshold = ""
turned_by = ""
untested = true
rests_on = [{rests_on}]
"""


@pytest.mark.parametrize(
    ("rests_on", "error", "message"),
    [
        ({"A": '"B"', "B": '"C"', "C": '"A"'}, CycleError, "cycle"),
        ({"A": '"B"'}, ValueError, "A rests on B, which is no claim"),
    ],
)
def test_claims_rest_on_others_without_a_circle(rests_on, error, message, tmp_path, monkeypatch):
    path = tmp_path / "claims.toml"
    path.write_text("".join(ENTRY.format(id=id_, rests_on=ids) for id_, ids in rests_on.items()), encoding="utf-8")
    monkeypatch.setattr(claims, "CLAIMS", path)
    with pytest.raises(error, match=message):
        read_claims.__wrapped__()
    path.write_text(2 * ENTRY.format(id="A", rests_on=""), encoding="utf-8")
    with pytest.raises(ValueError, match="ids of claims must be unique"):
        read_claims.__wrapped__()


def test_the_score_counts_our_own_apart():
    own = replace(CLAIM, kind="own")
    results = [Verdict(CLAIM, "fails", "", ""), Verdict(CLAIM, "holds", "", ""), Verdict(own, "untested", "", "")]
    assert (
        score(results)
        == "Of the paper's 2 claims 1 holds and 1 fails. Of this project's own 1 statements 1 cannot be decided here."
    )
    assert score(results[:1] * 2 + results[1:2] * 2) == "Of the paper's 4 claims 2 hold and 2 fail."


def test_every_verdict_has_a_reason_and_a_case_for_the_authors(committed):
    for result in all_verdicts():
        claim = result.claim
        assert result.verdict in VERDICTS
        assert result.finding
        assert claim.threshold
        assert claim.turned_by
        assert result.verdict == "holds" or claim.kind == "own" or result.for_authors, claim.id


@pytest.mark.parametrize(
    "condition", [{}, {"near": 1.0}, {"tolerance": 0.1}, {"abov": 1.0}, {"above": 1.0, "tolerance": 1}]
)
def test_a_condition_that_says_nothing_is_an_error(condition):
    with pytest.raises(ValueError, match="a condition takes"):
        meets({"quantity": "a", **condition}, {"a": 1.0})


@pytest.mark.parametrize(
    ("value", "condition", "met"),
    [
        (1.1, {"near": 1.0, "tolerance": 0.1000001}, True),
        (0.9, {"near": 1.0, "tolerance": 0.1000001}, True),
        (1.11, {"near": 1.0, "tolerance": 0.1}, False),
        (-2.1, {"near": -2.0, "tolerance": 0.06}, True),
        (-2.2, {"near": -2.0, "tolerance": 0.06}, False),
        (1.0, {"above": 1.0}, False),
        (1.1, {"above": 1.0}, True),
        (1.0, {"below": 1.0}, False),
        (0.9, {"below": 1.0}, True),
        (1.5, {"above": 1.0, "below": 2.0}, True),
        (2.5, {"above": 1.0, "below": 2.0}, False),
        (0.5, {"above": 1.0, "below": 2.0}, False),
        (None, {"below": 1.0}, False),
        (math.nan, {"below": 1.0}, False),
    ],
)
def test_conditions(value, condition, met):
    assert meets({"quantity": "a", **condition}, {"a": value, "b": 0.0}) is met


def test_a_quantity_that_is_not_there():
    with pytest.raises(KeyError, match="c"):
        meets({"quantity": "c", "above": 1}, {"a": 1.0})


def perturbed(values, condition):
    """Values that meet a condition exactly if the given ones do not."""
    quantity = condition["quantity"]
    if meets(condition, values):
        moved = [values[quantity] + sign * 10.0 * (abs(values[quantity]) + 1) for sign in (1, -1)]
        if "near" not in condition and "below" in condition:
            return {**values, quantity: moved[0]}
        return {**values, quantity: moved[1]}
    bound = condition.get("near", condition.get("below", condition.get("above")))
    inside = {"near": bound, "below": bound - 0.01 * abs(bound) - 1e-9, "above": bound + 0.01 * abs(bound) + 1e-9}
    return {**values, quantity: next(inside[key] for key in inside if key in condition)}


@pytest.mark.parametrize("claim", read_claims(), ids=lambda claim: claim.id)
def test_every_criterion_can_come_out_either_way(claim, committed):
    values = read_record(claim.notebook)["values"]
    for condition in claim.number + claim.conclusion + claim.part + claim.slip + claim.chance:
        assert meets(condition, perturbed(values, condition)) != meets(condition, values)
    good = values
    for condition in claim.number + claim.conclusion:
        if not meets(condition, good):
            good = perturbed(good, condition)
    for condition in claim.chance[:1]:
        good = perturbed(good, condition) if meets(condition, good) else good
    if not claim.untested:
        assert judge(claim, good).verdict == "holds"
        assert judge(claim, perturbed(good, claim.number[0])).verdict != "holds"


def test_every_row_theorem_and_panel_has_a_claim():
    places = " ".join(claim.place for claim in read_claims())
    rows = {int(number) for number in re.findall(r"\bE(\d+)", places)}
    assert rows == set(range(1, 24))
    for theorem in ("1", "2", "3", "4", "5", "6", "8", "2′"):
        assert f"Theorem {theorem}" in places
    assert "Proposition 7" in places
    for panel in ("1a", "1b", "2a", "2b", "2c", "3a", "3b", "3c", "4a", "4b", "4c"):
        assert f"Fig. {panel}" in places


def test_every_notebook_with_a_record_has_a_claim_and_the_other_way_round():
    notebooks = {name for name in notebook_names() if not name.startswith("0")}
    assert {claim.notebook for claim in read_claims()} == notebooks


def test_a_record_that_lacks_a_quantity(monkeypatch):
    monkeypatch.setattr(ledger, "read_record", lambda name: {"values": {}})
    with pytest.raises(ValueError, match=r"has no quantity .* --force"):
        all_verdicts()


def test_readme_is_current(committed, tmp_path):
    copy = tmp_path / "README.md"
    copy.write_text((PROJECT / "README.md").read_text(encoding="utf-8"), encoding="utf-8")
    ledger.write_ledger(copy)
    for name in ("README.md", "LEDGER.md", "claims.json"):
        fresh, present = (tmp_path / name).read_bytes(), (PROJECT / name).read_bytes()
        assert fresh == present, f"run `conslaw ledger` and commit {name}"
    rows = [line for line in ledger.table(all_verdicts()).splitlines() if line.startswith("|")]
    assert len(rows) == len(read_claims()) + 2
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 10 for row in rows)


def test_readme_without_markers(committed, tmp_path):
    (tmp_path / "README.md").write_text("nothing", encoding="utf-8")
    with pytest.raises(ValueError, match="no lines"):
        ledger.write_ledger(tmp_path / "README.md")
    with pytest.raises(ValueError, match="install from a clone"):
        ledger.write_ledger(tmp_path / "no.md")


def test_damaged_record(monkeypatch, tmp_path):
    monkeypatch.setenv("CONSLAW_RECORDS", str(tmp_path))
    with pytest.raises(ValueError, match=r"cannot read the record .*fig1b.* --force"):
        read_record("fig1b_drift_scaling")
    (tmp_path / "fig1b_drift_scaling.json").write_text('{"values": ', encoding="utf-8")
    with pytest.raises(ValueError, match="cannot read the record"):
        read_record("fig1b_drift_scaling")
