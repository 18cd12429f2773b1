"""How notebooks are tested: they write to a temporary folder, and what they print is compared number by number.

nbval runs them and compares verdicts word by word. It knows no tolerance, so numbers are compared here: every text and
table that a cell prints must be the committed one but for the last digit of a number.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from nbval.plugin import IPyNbCell, coalesce_streams

settings.register_profile("untimed", deadline=None)  # machines are slow at times
settings.load_profile("untimed")
FRESH = tempfile.TemporaryDirectory(prefix="conslaw-figures-")


def pytest_configure(config: pytest.Config) -> None:
    """Point notebooks to the temporary folder, and those that read records to the committed ones.

    The folder is CONSLAW_FRESH where that is set: `make test` runs notebooks and tests in two sessions.
    """
    if hasattr(config, "workerinput"):
        return  # a worker of pytest-xdist, which has all this from its parent
    os.environ["CONSLAW_FIGURES"] = os.environ.get("CONSLAW_FRESH", FRESH.name)
    os.environ["CONSLAW_RECORDS"] = str(Path(__file__).parent / "figures")
    if workers := len(config.getoption("tx", [])):
        os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // workers))


def pytest_unconfigure() -> None:
    """Remove it."""
    FRESH.cleanup()


@pytest.fixture
def fresh() -> Path:
    """Folder in which this session's notebook runs left their records."""
    return Path(os.environ["CONSLAW_FIGURES"])


@pytest.fixture
def committed(monkeypatch) -> Path:
    """Folder of the committed records, which is then the one in use."""
    monkeypatch.delenv("CONSLAW_FIGURES")
    monkeypatch.delenv("CONSLAW_RECORDS")
    return Path(__file__).parent / "figures"


NUMBER = re.compile(r"(?<![\w.])[-−+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
MAGNITUDE = re.compile(r"[-−+]?\de[-+]?\d+")  # 7e-10: so are rounding errors printed, which differ between machines
ROUNDING = 1e-8  # of numbers of order 1 in float64, after thousands of steps; what is smaller has no digits to compare
ROUGH = "rough-numbers"  # tag of cells with numbers that differ between machines in other ways: of chaotic runs


def value_and_unit(number: str) -> tuple[float, float]:
    """Read a printed number, and the unit of its last digit."""
    digits, _, exponent = number.replace("−", "-").partition("e")
    return float(number.replace("−", "-")), 10.0 ** (int(exponent or 0) - len(digits.partition(".")[2]))


def same_number(fresh: str, committed: str, rough: bool = False) -> bool:
    """Compare two printed numbers: to one unit of the last digit or a thousandth.

    Numbers with one digit and an exponent are compared within a factor of ten, rough ones within a factor of three.
    """
    (a, unit), (b, other_unit) = value_and_unit(fresh), value_and_unit(committed)
    if max(abs(a), abs(b)) < ROUNDING:
        return True
    if MAGNITUDE.fullmatch(fresh) and MAGNITUDE.fullmatch(committed):
        return a * b > 0 and 0.1 <= a / b <= 10
    if abs(a - b) <= max(1.01 * max(unit, other_unit), 1e-3 * abs(b)):
        return True
    return rough and a * b > 0 and 1 / 3 <= a / b <= 3


def differences(fresh: str, committed: str, rough: bool = False) -> list[str]:
    """List the differences of two printed texts: of their words, or else of their numbers."""
    words = [re.sub(r"[\s-]+", " ", NUMBER.sub("#", text)).strip() for text in (fresh, committed)]
    if words[0] != words[1]:
        return [f"committed:\n{committed}\nnow:\n{fresh}"]
    pairs = zip(NUMBER.findall(fresh), NUMBER.findall(committed), strict=True)
    return [f"{old} was committed, now it is {new}" for new, old in pairs if not same_number(new, old, rough)]


def texts(outputs: list) -> Iterator[tuple[str, str]]:
    """Yield kind and text of what a cell prints; of an image, that there is one."""
    for output in coalesce_streams(outputs):
        if output.output_type == "stream":
            yield output.name, output.text
        for kind, content in sorted(output.get("data", {}).items()):
            yield kind, "" if kind.startswith("image/") else "".join(content)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Compare what a cell of a notebook prints with what is committed."""
    yield
    if isinstance(item, IPyNbCell) and "raises-exception" not in item.cell.metadata.get("tags", []):
        fresh, committed = list(texts(item.test_outputs)), list(texts(item.cell.outputs))
        if [kind for kind, _ in fresh] != [kind for kind, _ in committed]:
            item.raise_cell_error("The kinds of outputs differ", f"committed: {committed}\nnow: {fresh}")
        rough = ROUGH in item.cell.metadata.get("tags", [])
        pairs = zip(fresh, committed, strict=True)
        if found := [line for (_, new), (_, old) in pairs for line in differences(new, old, rough)]:
            item.raise_cell_error("Cell outputs differ", "\n".join(found))
