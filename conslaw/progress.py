"""Progress bars: on a terminal and in a live notebook, and never in a log, a batch run or a saved notebook."""

import os
import sys
from contextlib import suppress
from pathlib import Path

from tqdm import tqdm

__all__ = ["progress_bar"]


def progress_bar(total: int, title: str | None) -> tqdm:
    """Start a progress bar.

    Args:
        total: Number of steps.
        title: What is in progress; without a title no bar shows.

    Returns:
        A bar of tqdm, to be used in a `with` statement.
    """
    place, form = None, None
    if title and _in_live_cell():
        place = _LiveCell()
    elif title and os.environ.get("CONSLAW_PROGRESS"):
        place, form = _Report(Path(os.environ["CONSLAW_PROGRESS"])), "{desc} {percentage:.0f}%"
    hidden = not title or not (place or sys.stderr.isatty())
    options = {"unit_scale": True, "disable": hidden, "file": place, "leave": False, "bar_format": form}
    return tqdm(total=total, desc=title, **options)


def _in_live_cell() -> bool:
    """Tell whether a cell runs because somebody pressed a key: front ends name the cell, papermill and nbval do not."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    kernel = getattr(shell, "kernel", None)
    return bool(kernel) and "cellId" in kernel.get_parent("shell").get("metadata", {})


class _Report:
    """A file that holds the present text, for who runs this in a batch and shows it: $CONSLAW_PROGRESS."""

    def __init__(self, path: Path):
        """Take a path, whose folder exists."""
        self._path = path

    def write(self, text: str) -> None:
        """Replace the text; who cannot be told is not told."""
        with suppress(OSError):
            self._path.write_text(text.strip(), encoding="utf-8")

    def flush(self) -> None:
        """Do nothing: every text is written at once."""


class _LiveCell:
    """A place below a cell whose text is replaced, and empty in the end, so that a saved notebook holds no bar."""

    def __init__(self):
        """Show an empty line."""
        from IPython.display import display  # which is loaded where there is a cell

        self._handle = display({"text/plain": ""}, raw=True, display_id=True)

    def write(self, text: str) -> None:
        """Replace the text."""
        self._handle.update({"text/plain": text.strip("\r\n")}, raw=True)

    def flush(self) -> None:
        """Do nothing: every text is shown at once."""
