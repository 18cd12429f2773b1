"""What a notebook prints, compared with what it printed before: the same words, and numbers but for the last digit."""

import re
from collections.abc import Iterator, Mapping, Sequence

__all__ = ["ROUGH", "differences", "print_differences", "same_number"]

NUMBER = re.compile(r"(?<![\w.])[-−+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
MAGNITUDE = re.compile(r"[-−+]?\de[-+]?\d+")  # 7e-10: so are rounding errors printed, which differ between machines
ROUNDING = 1e-8  # of numbers of order 1 in float64, after thousands of steps; what is smaller has no digits to compare
ROUGH = "rough-numbers"
"""Tag of cells with numbers that differ between machines in other ways: of chaotic runs."""


def print_differences(new: Sequence[Mapping], old: Sequence[Mapping]) -> list[str]:
    """List how two runs of a notebook differ in what its cells print; of images, that there is one.

    Args:
        new: Cells of the one, with their outputs.
        old: Cells of the other.

    Returns:
        The differences; none where the notebook says the same.
    """
    if len(new) != len(old):
        return [f"{len(old)} cells before, now {len(new)}"]
    found = []
    for number, (now, before) in enumerate(zip(new, old, strict=True), 1):
        fresh, former = (list(_texts(cell.get("outputs", []))) for cell in (now, before))
        if [kind for kind, _ in fresh] != [kind for kind, _ in former]:
            found.append(f"cell {number}: outputs of other kinds")
            continue
        rough = ROUGH in now["metadata"].get("tags", [])
        pairs = zip(fresh, former, strict=True)
        found += [f"cell {number}: {line}" for (_, a), (_, b) in pairs for line in differences(a, b, rough)]
    return found


def differences(new: str, old: str, rough: bool = False) -> list[str]:
    """List the differences of two printed texts: of their words, or else of their numbers."""
    words = [re.sub(r"[\s-]+", " ", NUMBER.sub("#", text)).strip() for text in (new, old)]
    if words[0] != words[1]:
        return [f"before:\n{old}\nnow:\n{new}"]
    pairs = zip(NUMBER.findall(new), NUMBER.findall(old), strict=True)
    return [f"{b} before, now {a}" for a, b in pairs if not same_number(a, b, rough)]


def same_number(new: str, old: str, rough: bool = False) -> bool:
    """Compare two printed numbers: to one unit of the last digit or a thousandth.

    Numbers with one digit and an exponent are compared within a factor of ten, rough ones within a factor of three.
    """
    (a, unit), (b, other_unit) = _value_and_unit(new), _value_and_unit(old)
    if max(abs(a), abs(b)) < ROUNDING:
        return True
    if MAGNITUDE.fullmatch(new) and MAGNITUDE.fullmatch(old):
        return a * b > 0 and 0.1 <= a / b <= 10
    if abs(a - b) <= max(1.01 * max(unit, other_unit), 1e-3 * abs(b)):
        return True
    return rough and a * b > 0 and 1 / 3 <= a / b <= 3


def _value_and_unit(number: str) -> tuple[float, float]:
    """Read a printed number, and the unit of its last digit."""
    number = number.replace("−", "-")
    digits, _, exponent = number.partition("e")
    return float(number), 10.0 ** (int(exponent or 0) - len(digits.partition(".")[2]))


def _texts(outputs: Sequence[Mapping]) -> Iterator[tuple[str, str]]:
    """Yield kind and text of all that a cell prints."""
    for output in outputs:
        if "text" in output:
            yield output["name"], "".join(output["text"])
        for kind, content in sorted(output.get("data", {}).items()):
            yield kind, "" if kind.startswith("image/") else str("".join(content))
