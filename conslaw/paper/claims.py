"""The claims: what the paper says, where, and the conditions that decide; and what verdicts there are.

A claim in claims.toml has two lists of conditions on quantities of its notebook's record: `number`, that the
published number comes out or the statement is true, and `conclusion`, that what is concluded from it follows.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

__all__ = ["KINDS", "VERDICTS", "Claim", "meets", "read_claims"]

CLAIMS = Path(__file__).with_name("claims.toml")
KINDS = {
    "statement": "a theorem, proposition or row of the paper as it is written, with its conditions",
    "script": "what the public scripts evaluate",
    "sentence": "how the abstract, a caption or the discussion puts it",
    "own": "a statement of this project, which counts in no score of the paper",
}
VERDICTS = {
    "holds": "it is true, or the number comes out and what is concluded from it follows",
    "holds in part": "part of it is true, and the reason says which",
    "number only": "the number comes out, and what is concluded from it does not follow",
    "slip": "wrong by rounding or typing only, which carries no weight",
    "fails": "it is not true, or the number does not come out",
    "not reproducible": "chance, such as rounding, decides what comes out",
    "untested": "it cannot be decided here, and the reason says why",
}


@dataclass(frozen=True)
class Claim:
    """One claim."""

    id: str
    """Row of the paper's table and a word, such as "E05.alpha"."""
    kind: str
    """One of `KINDS`."""
    notebook: str
    """Which notebook computes it."""
    place: str
    """Where it stands."""
    source: str
    """Where its published number stands: "paper", "published results" or, if it has none, "none"."""
    statement: str
    """What is claimed, in our words."""
    published: str
    """The published number, as printed."""
    measured: str
    """What we get: a template, filled with the record's values."""
    finding: str
    """Why the verdict is what it is, or the corrected statement: a template too."""
    threshold: str
    """Where the thresholds of the conditions come from."""
    turned_by: str
    """What observation would turn the verdict."""
    number: list[dict] = field(default_factory=list)
    """Conditions under which the published number comes out, or the statement is true."""
    conclusion: list[dict] = field(default_factory=list)
    """Conditions under which the conclusion follows; none where the statement is all there is."""
    part: list[dict] = field(default_factory=list)
    """Conditions under which a part of it is true, which `finding` names."""
    slip: list[dict] = field(default_factory=list)
    """Conditions under which a number that does not come out is wrong by rounding or typing only."""
    chance: list[dict] = field(default_factory=list)
    """Conditions under which chance decides."""
    untested: bool = False
    """Whether it cannot be decided here; `finding` says why."""
    for_authors: str = ""
    """The strongest case for the authors, where the verdict is another than "holds": a template too."""
    rests_on: list[str] = field(default_factory=list)
    """Ids of the claims that it takes for granted."""

    def __post_init__(self) -> None:
        """Check what can be checked without the record.

        Raises:
            ValueError: If the claim could not be judged, or its kind or source is unknown.
        """
        if self.kind not in KINDS:
            raise ValueError(f"{self.id}: kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        if self.source not in (sources := ("paper", "published results", "none")):
            raise ValueError(f"{self.id}: source must be one of {', '.join(sources)}, got {self.source!r}")
        if bool(self.number) == self.untested:
            raise ValueError(f"{self.id}: a claim has conditions on its number, or is untested")


@cache
def read_claims() -> tuple[Claim, ...]:
    """Read claims.toml, sorted by id: the rows of the paper's table, then the theorems.

    Raises:
        ValueError: If an id is there twice, or a claim rests on one that is not there.
        graphlib.CycleError: If claims rest on each other in a circle.
    """
    with CLAIMS.open("rb") as file:
        claims = sorted((Claim(**entry) for entry in tomllib.load(file)["claim"]), key=lambda claim: claim.id)
    known = {claim.id: claim.rests_on for claim in claims}
    if len(known) < len(claims):
        raise ValueError(
            f"ids of claims must be unique, got {[i for i in known if [c.id for c in claims].count(i) > 1]}"
        )
    for id_, foundations in known.items():
        if missing := set(foundations) - set(known):
            raise ValueError(f"{id_} rests on {', '.join(sorted(missing))}, which is no claim")
    TopologicalSorter(known).prepare()
    return tuple(claims)


def meets(condition: Mapping, values: Mapping) -> bool:
    """Tell whether a quantity is where a condition wants it; a missing value (NaN) meets none.

    Args:
        condition: `quantity` and any of `above`, `below`, or `near` with a relative `tolerance`.
        values: A record's values.

    Raises:
        KeyError: If the record has no such quantity.
        ValueError: If the condition says nothing, or something else.
    """
    value = values[condition["quantity"]]
    tests = set(condition) - {"quantity", "tolerance"}
    if not tests or tests - {"above", "below", "near"} or ("near" in tests) != ("tolerance" in condition):
        raise ValueError(f"a condition takes above, below, or near with tolerance, got {dict(condition)}")
    if value is None:
        return False
    return (
        ("above" not in tests or value > condition["above"])
        and ("below" not in tests or value < condition["below"])
        and ("near" not in tests or abs(value - condition["near"]) <= condition["tolerance"] * abs(condition["near"]))
    )
