"""Progress bars: on a terminal, in a live cell, and nowhere else."""

import io
import sys
from types import SimpleNamespace

import pytest

from conslaw.progress import progress_bar


class Terminal(io.StringIO):
    """A stream that says it is a terminal, or not."""

    def __init__(self, is_terminal):
        super().__init__()
        self.isatty = lambda: is_terminal


@pytest.mark.parametrize(
    ("is_terminal", "title", "shows"), [(True, "E4", True), (True, None, False), (False, "E4", False)]
)
def test_a_bar_shows_on_a_terminal_only(is_terminal, title, shows, monkeypatch):
    stream = Terminal(is_terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar(10, title) as bar:
        bar.update(10)
    assert ("E4" in stream.getvalue()) is shows


@pytest.mark.parametrize(("metadata", "shows"), [({"cellId": "a"}, True), ({}, False)])
def test_a_bar_shows_in_a_live_cell_and_leaves_nothing(metadata, shows, monkeypatch):
    """Front ends name the cell that they run; papermill and nbval do not."""
    shown = []

    def display(data, raw, display_id):
        shown.append(data["text/plain"])
        return SimpleNamespace(update=lambda data, raw: shown.append(data["text/plain"]))

    kernel = SimpleNamespace(get_parent=lambda channel: {"metadata": metadata})
    live = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=kernel))
    monkeypatch.setitem(sys.modules, "IPython", live)
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    stream = Terminal(False)
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar(10, "MNIST") as bar:
        bar.update(4)
        bar.refresh()
    assert any("MNIST" in text and "4" in text for text in shown) is shows
    assert not shown or not shown[-1].strip()
    assert not stream.getvalue()


def test_a_batch_run_reports_to_a_file(tmp_path, monkeypatch):
    stream = Terminal(False)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("CONSLAW_PROGRESS", str(tmp_path / "progress"))
    with progress_bar(10, "MNIST") as bar:
        bar.update(4)
        bar.refresh()
        assert (tmp_path / "progress").read_text(encoding="utf-8") == "MNIST 40%"
    with progress_bar(10, None) as bar:
        bar.update(10)
    assert (tmp_path / "progress").read_text(encoding="utf-8") == ""
    monkeypatch.setenv("CONSLAW_PROGRESS", str(tmp_path / "no folder" / "progress"))
    with progress_bar(10, "MNIST") as bar:
        bar.update(10)
    assert not stream.getvalue()
