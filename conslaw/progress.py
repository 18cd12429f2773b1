"""Progress bars: on a terminal and in a live notebook, and never in a log, a batch run or a saved notebook."""

import sys

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
    cell = _LiveCell() if title and _in_live_cell() else None
    hidden = not title or not (cell or sys.stderr.isatty())
    return tqdm(total=total, desc=title, unit_scale=True, disable=hidden, file=cell, leave=False)


def _in_live_cell() -> bool:
    """Tell whether a cell runs because somebody pressed a key: front ends name the cell, papermill and nbval do not."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    kernel = getattr(shell, "kernel", None)
    return bool(kernel) and "cellId" in kernel.get_parent("shell").get("metadata", {})


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
