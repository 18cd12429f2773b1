"""The ledger: every claim judged by the numbers of the notebooks, in LEDGER.md and claims.json."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from conslaw.paper.claims import KINDS, VERDICTS, Claim, meets, read_claims
from conslaw.paper.files import replace_file
from conslaw.paper.notebooks import PROJECT
from conslaw.paper.records import Record, plain, read_record
from conslaw.paper.typeset import typeset

__all__ = ["Verdict", "all_verdicts", "as_data", "judge", "score", "table", "together", "verdicts", "write_ledger"]

SCORE = {
    "holds": ("{} holds", "{} hold"),
    "holds in part": ("{} holds in part", "{} hold in part"),
    "number only": ("for {} the number comes out but the conclusion does not follow",) * 2,
    "slip": ("{} is a slip of rounding or typing", "{} are slips of rounding or typing"),
    "fails": ("{} fails", "{} fail"),
    "not reproducible": ("{} is decided by chance", "{} are decided by chance"),
    "untested": ("{} cannot be decided here",) * 2,
}
"""How the score says that one claim, or several, have a verdict."""
BEGIN, END = "<!-- ledger: begin -->", "<!-- ledger: end -->"


@dataclass(frozen=True)
class Verdict:
    """What became of a claim."""

    claim: Claim
    verdict: str
    """One of `VERDICTS`."""
    measured: str
    finding: str
    for_authors: str = ""

    def __str__(self) -> str:
        """Id, verdict, what was published and measured; why; and what speaks for the authors."""
        numbers = f"(published {self.claim.published}; here {self.measured})"
        lines = [f"{self.claim.id}: {self.verdict} {numbers}", f"    {self.finding}"]
        return "\n".join(lines + [f"    For the authors: {self.for_authors}"] * bool(self.for_authors))


def judge(claim: Claim, values: Mapping) -> Verdict:
    """Judge one claim.

    Args:
        claim: The claim.
        values: The values of its notebook's record.

    Returns:
        The verdict.
    """

    def met(conditions: Sequence[Mapping]) -> bool:
        return all(meets(condition, values) for condition in conditions)

    if claim.untested:
        verdict = "untested"
    elif claim.chance and met(claim.chance):
        verdict = "not reproducible"
    elif met(claim.number) and met(claim.conclusion):
        verdict = "holds"
    elif claim.slip and met(claim.slip) and met(claim.conclusion):
        verdict = "slip"
    elif claim.part and met(claim.part):
        verdict = "holds in part"
    else:
        verdict = "number only" if met(claim.number) else "fails"
    shown = {key: math.nan if value is None else value for key, value in values.items()}
    measured, finding, for_authors = (
        template.format(**shown) for template in (claim.measured, claim.finding, claim.for_authors)
    )
    return Verdict(claim, verdict, measured, finding, "" if verdict == "holds" else for_authors)


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


def all_verdicts() -> list[Verdict]:
    """Judge all claims, by the records of the default runs in figures/.

    Raises:
        ValueError: If a record is missing or damaged, or lacks a quantity.
    """
    values = {name: read_record(name)["values"] for name in dict.fromkeys(claim.notebook for claim in read_claims())}
    results = []
    for claim in read_claims():
        try:
            results.append(judge(claim, values[claim.notebook]))
        except KeyError as error:
            raise ValueError(
                f"the record of {claim.notebook} has no quantity {error}, which claim {claim.id} asks for; "
                f"make it anew with `conslaw rebuild --force {claim.notebook}`"
            ) from error
    return results


def score(results: Sequence[Verdict]) -> str:
    """Say in words how many claims have which verdict: those of the paper, and apart from them our own."""

    def counted(verdicts: Sequence[str]) -> str:
        counts = Counter(verdicts)
        parts = [SCORE[v][counts[v] > 1].format(counts[v]) for v in VERDICTS if counts[v]]
        return " and ".join([", ".join(parts[:-1])] * (len(parts) > 1) + parts[-1:])

    papers = [result.verdict for result in results if result.claim.kind != "own"]
    own = [result.verdict for result in results if result.claim.kind == "own"]
    text = f"Of the paper's {len(papers)} claims {counted(papers)}."
    return text + (f" Of this project's own {len(own)} statements {counted(own)}." if own else "")


def together(verdicts: Sequence[str]) -> str:
    """Give the verdict on a sentence that several claims make up.

    Args:
        verdicts: Those of the claims, at least one.

    Returns:
        "holds" if all hold; "holds in part" if one holds or holds in part; else the most frequent, of equally frequent
        ones the last in the order of `VERDICTS`. A slip carries no weight.

    >>> together(["holds", "slip"]), together(["holds", "fails"]), together(["number only", "untested", "untested"])
    ('holds', 'holds in part', 'untested')
    """
    weighty = [verdict for verdict in verdicts if verdict != "slip"] or list(verdicts)
    if set(weighty) == {"holds"}:
        return "holds"
    if {"holds", "holds in part"}.intersection(weighty):
        return "holds in part"
    return max(reversed(VERDICTS), key=weighty.count)


def table(results: Sequence[Verdict]) -> str:
    """Write verdicts as a Markdown table."""
    lines = [
        "| claim | kind | in the paper | published | here | verdict | why | for the authors | notebook |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        claim = result.claim
        cells = [
            f"{claim.id}: {claim.statement}",
            claim.kind,
            claim.place,
            claim.published if claim.source != "published results" else f"{claim.published} (published results)",
            result.measured,
            f"**{result.verdict}**",
            result.finding,
            result.for_authors,
            f"[{claim.notebook}](notebooks/{claim.notebook}.ipynb)",
        ]
        lines.append("| " + " | ".join(typeset(cell).replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def as_page(results: Sequence[Verdict]) -> str:
    """Write the score, what kinds and verdicts mean, and the table as a Markdown page."""
    kinds, meanings = (
        "\n".join(f"- **{word}**: {meaning}" for word, meaning in words.items()) for words in (KINDS, VERDICTS)
    )
    parts = [
        "# The ledger",
        "Made by `conslaw ledger` from the records of the notebooks. [`claims.json`](claims.json) also has the reasons "
        "of the thresholds, what would turn each verdict, and which other claims a claim rests on.",
        score(results),
        f"What is claimed:\n\n{kinds}",
        f"What became of it:\n\n{meanings}",
        table(results),
    ]
    return "\n\n".join(parts) + "\n"


def as_data(results: Sequence[Verdict]) -> dict[str, object]:
    """Return all claims with their verdicts, and on which others they rest, as claims.json holds them."""
    claims = [
        {
            **{
                name: getattr(result.claim, name)
                for name in ("id", "kind", "statement", "place", "source", "published")
            },
            "here": result.measured,
            "verdict": result.verdict,
            "why": result.finding,
            "for_the_authors": result.for_authors,
            "thresholds": result.claim.threshold,
            "turned_by": result.claim.turned_by,
            "rests_on": result.claim.rests_on,
            "notebook": result.claim.notebook,
        }
        for result in results
    ]
    return {"paper": "arXiv:2604.07405", "kinds": KINDS, "verdicts": VERDICTS, "claims": claims}


def write_ledger(readme: Path = PROJECT / "README.md") -> str:
    """Bring the score in the README up to date, and LEDGER.md and claims.json beside it.

    Args:
        readme: File with the two marker lines between which the score stands.

    Returns:
        The score.

    Raises:
        ValueError: If there is no such file, or the markers are missing.
    """
    if not readme.exists():
        raise ValueError(f"there is no {readme}; install from a clone with `pip install -e .`")
    text = readme.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise ValueError(f"{readme.name} has no lines {BEGIN} and {END}, between which the score belongs")
    results, (before, rest) = all_verdicts(), text.split(BEGIN)
    files = {
        readme: f"{before}{BEGIN}\n{score(results)}\n{END}{rest.split(END)[1]}",
        readme.with_name("LEDGER.md"): as_page(results),
        readme.with_name("claims.json"): json.dumps(as_data(results), indent=1, ensure_ascii=False) + "\n",
    }
    for path, content in files.items():
        if not path.exists() or path.read_text(encoding="utf-8") != content:
            replace_file(path, content)
    return score(results)
