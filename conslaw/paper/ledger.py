"""The ledger: every claim of the paper, judged by the numbers of the notebooks.

A claim in claims.toml has two lists of conditions on quantities of its notebook's record: `number`, that the
published number comes out, and `conclusion`, that what the paper concludes from it follows. The verdict is

- holds: both;
- number only: the number comes out, the conclusion does not follow;
- fails: the number does not come out.
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from conslaw.paper.files import replace_file
from conslaw.paper.notebooks import PROJECT
from conslaw.paper.records import Record, plain, read_record

__all__ = ["Claim", "Verdict", "judge", "read_claims", "table", "verdicts", "write_table"]

CLAIMS = Path(__file__).with_name("claims.toml")
BEGIN, END = "<!-- ledger: begin -->", "<!-- ledger: end -->"


@dataclass(frozen=True)
class Claim:
    """One claim of the paper."""

    id: str
    """Row of the paper's table and a word, such as "E05.alpha"."""
    notebook: str
    """Which notebook computes it."""
    place: str
    """Where it stands in the paper."""
    statement: str
    """What is claimed, in our words."""
    published: str
    """The published number, as printed."""
    number: list[dict]
    """Conditions under which the published number comes out, or the statement is true."""
    measured: str
    """What we get: a template, filled with the record's values."""
    finding: str
    """Why the verdict is what it is, or the corrected statement: a template too."""
    conclusion: list[dict] = field(default_factory=list)
    """Conditions under which the conclusion follows; none where the statement is all there is."""


@dataclass(frozen=True)
class Verdict:
    """What became of a claim."""

    claim: Claim
    verdict: str
    """"holds", "number only" or "fails"."""
    measured: str
    finding: str

    def __str__(self) -> str:
        """Two lines: id, verdict, what was published and measured; and why."""
        numbers = f"(published {self.claim.published}; here {self.measured})"
        return f"{self.claim.id}: {self.verdict} {numbers}\n    {self.finding}"


def read_claims() -> list[Claim]:
    """Read claims.toml, sorted by id: the rows of the paper's table, then the theorems."""
    with CLAIMS.open("rb") as file:
        return sorted((Claim(**entry) for entry in tomllib.load(file)["claim"]), key=lambda claim: claim.id)


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


def judge(claim: Claim, values: Mapping) -> Verdict:
    """Judge one claim.

    Args:
        claim: The claim.
        values: The values of its notebook's record.

    Returns:
        The verdict.
    """
    if not all(meets(condition, values) for condition in claim.number):
        verdict = "fails"
    elif not all(meets(condition, values) for condition in claim.conclusion):
        verdict = "number only"
    else:
        verdict = "holds"
    shown = {key: math.nan if value is None else value for key, value in values.items()}
    return Verdict(claim, verdict, claim.measured.format(**shown), claim.finding.format(**shown))


def verdicts(record: Record) -> list[Verdict] | list[str]:
    """Judge all claims of one notebook by its present record.

    Args:
        record: Record of a notebook.

    Returns:
        The verdicts; of a run with other parameters than the paper's a line that says so instead, as it judges nothing.
    """
    if not record.is_default:
        values = ", ".join(f"{name} = {plain(value)}" for name, value in record.changed.items())
        return [f"A variant, with {values}: no verdict on the paper, whose run has other parameters."]
    return [judge(claim, record.values) for claim in read_claims() if claim.notebook == record.name]


def table() -> str:
    """Write all verdicts as a Markdown table, from the records of the default runs in figures/.

    Returns:
        The table.

    Raises:
        ValueError: If a record is missing or damaged, or lacks a quantity.
    """
    lines = [
        "| claim | in the paper | published | here | verdict | why | rebuild |",
        "|---|---|---|---|---|---|---|",
    ]
    for claim in read_claims():
        try:
            verdict = judge(claim, read_record(claim.notebook)["values"])
        except KeyError as error:
            raise ValueError(
                f"the record of {claim.notebook} has no quantity {error}, which claim {claim.id} asks for; "
                f"make it anew with `conslaw rebuild --force {claim.notebook}`"
            ) from error
        notebook = f"[`conslaw rebuild {claim.notebook}`](notebooks/{claim.notebook}.ipynb)"
        cells = [
            f"{claim.id}: {claim.statement}",
            claim.place,
            claim.published,
            verdict.measured,
            f"**{verdict.verdict}**",
            verdict.finding,
            notebook,
        ]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def write_table(readme: Path = PROJECT / "README.md") -> None:
    """Bring the README's table of claims up to date.

    Args:
        readme: File with the two marker lines between which the table stands.

    Raises:
        ValueError: If there is no such file, or the markers are missing.
    """
    if not readme.exists():
        raise ValueError(f"there is no {readme}; install from a clone with `pip install -e .`")
    text = readme.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise ValueError(f"{readme.name} has no lines {BEGIN} and {END}, between which the table belongs")
    before, rest = text.split(BEGIN)
    new = f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"
    if new != text:
        replace_file(readme, new)
