"""Notebooks that are run by a test write to a temporary folder, never to the committed figures."""

import os
import tempfile
from pathlib import Path

import pytest

FRESH = tempfile.TemporaryDirectory(prefix="conslaw-figures-")


def pytest_configure() -> None:
    """Point notebooks to the temporary folder, and those that read records to the committed ones."""
    os.environ["CONSLAW_FIGURES"] = FRESH.name
    os.environ["CONSLAW_RECORDS"] = str(Path(__file__).parent / "figures")


def pytest_unconfigure() -> None:
    """Remove it."""
    FRESH.cleanup()


@pytest.fixture
def fresh() -> Path:
    """Folder in which this session's notebook runs left their records."""
    return Path(FRESH.name)


@pytest.fixture
def committed(monkeypatch) -> Path:
    """Folder of the committed records, which is then the one in use."""
    monkeypatch.delenv("CONSLAW_FIGURES")
    monkeypatch.delenv("CONSLAW_RECORDS")
    return Path(__file__).parent / "figures"
