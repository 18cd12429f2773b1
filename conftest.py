"""Notebooks that are run by a test write to a temporary folder, never to the committed figures."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

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
