"""How notebooks are tested: they write to a temporary folder, and what they print is compared number by number.

nbval runs them and compares verdicts word by word. It knows no tolerance, so numbers are compared here: every text and
table that a cell prints must be the committed one but for the last digit of a number.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from nbval.plugin import IPyNbCell, coalesce_streams

from conslaw.paper.provenance import cores

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
    os.environ.pop("MPLBACKEND", None)  # kernels draw into the notebook
    if workers := len(config.getoption("tx", [])):
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // workers)))


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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Compare what a cell of a notebook prints with what is committed."""
    yield
    if isinstance(item, IPyNbCell) and "raises-exception" not in item.cell.metadata.get("tags", []):
        from conslaw.paper.prints import print_differences  # here, as only notebooks need it

        fresh, committed = (
            {"outputs": coalesce_streams(outputs), "metadata": item.cell.metadata}
            for outputs in (item.test_outputs, item.cell.outputs)
        )
        if found := print_differences([fresh], [committed]):
            item.raise_cell_error("Cell outputs differ", "\n".join(line.removeprefix("cell 1: ") for line in found))


@pytest.fixture(autouse=os.environ.get("NUMBA_DISABLE_JIT") == "1", scope="module")
def torch_steps(request) -> Iterator[None]:
    """Without the compiler, leave the compiled steps to their own tests: as Python they take minutes for all others."""
    with pytest.MonkeyPatch.context() as patch:
        if request.path.name != "test_compiled.py":
            from conslaw.training._compiled import CompiledSteps

            patch.setattr(CompiledSteps, "takes", staticmethod(lambda _: False))
        yield
