"""The card on top of every notebook: claims, numbers beside the published ones, verdicts, and the time it takes.

It is made of the record and of the claims, and stands in the notebook as a cell of text tagged "card".
"""

import json
import re
from collections.abc import Sequence

from conslaw.paper import notebooks
from conslaw.paper.files import replace_file
from conslaw.paper.ledger import Verdict
from conslaw.paper.notebooks import notebook_names
from conslaw.paper.stamps import code_of
from conslaw.paper.typeset import typeset

__all__ = ["card", "first_sentence", "minutes", "write_cards"]


def first_sentence(text: str) -> str:
    """Return the first sentence of a text: up to a full stop, or the like, that a space and no small letter follow.

    >>> first_sentence("α is 1.03, i.e. nearly one. The rest follows.")
    'α is 1.03, i.e. nearly one.'
    """
    return re.split(r"(?<=[.!?])(?<!i\.e\.)(?<!e\.g\.)\s+(?=[^\sa-z])", text.strip(), maxsplit=1)[0]


def minutes(name: str) -> str:
    """Say how long a notebook takes on one core, where benchmarks/paper.py has measured it with its present code."""
    times = notebooks.measured_times()
    if times.get("code_of_each", {}).get(name) != code_of(name):
        return ""
    seconds = times["core_seconds_of_each"][name]
    if seconds < 60:
        return f"It takes {max(5, 5 * round(seconds / 5))} seconds on one core."
    return f"It takes {seconds / 60:.0f} minute{'s' * (seconds >= 90)} on one core."


def card(name: str, results: Sequence[Verdict]) -> str:
    """Write the card of a notebook as Markdown.

    Args:
        name: Name of the notebook.
        results: Verdicts of all claims.

    Returns:
        The text; empty for a notebook that judges no claim.
    """
    lines = []
    for result in results:
        if result.claim.notebook == name:
            claim = result.claim
            numbers = [text.strip() or "—" for text in (claim.published, result.measured)]
            where = "this project" if claim.kind == "own" else f"{claim.place}; {claim.kind}"
            said = f"{claim.statement} ({where})"
            judged = f"**{result.verdict}**: {first_sentence(result.finding)}"
            cells = [typeset(cell).replace("|", "\\|") for cell in (claim.id, said, *numbers, judged)]
            lines.append("| " + " | ".join(cells) + " |")
    if not lines:
        return ""
    head = ["| claim | what is said | published | here | verdict and reason |", "|---|---|---|---|---|"]
    foot = (
        f"{minutes(name)} Kinds of claims, verdicts and thresholds are explained in the "
        "[overview](00_overview.ipynb); the paper is [arXiv:2604.07405](https://arxiv.org/abs/2604.07405)."
    )
    return "\n".join([*head, *lines, "", foot.strip()])


def write_cards(results: Sequence[Verdict]) -> None:
    """Bring the cards of all notebooks up to date; a card that is missing goes below the first cell.

    Args:
        results: Verdicts of all claims.
    """
    for name in notebook_names():
        path, text = notebooks.NOTEBOOKS / f"{name}.ipynb", card(name, results)
        notebook = json.loads(path.read_text(encoding="utf-8"))
        cells = [cell for cell in notebook["cells"] if "card" not in cell["metadata"].get("tags", [])]
        if text:
            source = text.splitlines(keepends=True)
            cells.insert(1, {"cell_type": "markdown", "id": "card", "metadata": {"tags": ["card"]}, "source": source})
        if cells != notebook["cells"]:
            content = json.dumps(notebook | {"cells": cells}, indent=1, sort_keys=True, ensure_ascii=False)
            replace_file(path, content + "\n")
