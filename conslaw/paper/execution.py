"""One notebook run by papermill, in a process of its own and with this interpreter, whatever the environment says.

papermill changes the folder of the whole process while it runs, which is why each notebook has its own. It ends, and
its kernel with it, when the process that started it does, also when that one is killed.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from conslaw.paper import notebooks

__all__ = ["PAPERMILL", "Processes"]

PAPERMILL = """
import os, threading, time

def end_with(parent):
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)  # the kernel sees by itself that its parent is gone

threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
import json, sys
sys.modules["rfc3987_syntax"] = None  # jsonschema goes without: it takes 0.7 s, for IRIs, which no notebook has
import papermill
papermill.execute_notebook(**json.load(sys.stdin))
"""
PATIENCE = 10
"""Seconds that papermill has to end its kernel."""
ADDED = {"injected-parameters", "papermill-error-cell-tag"}  # tags of cells that papermill inserts


class Processes:
    """Papermill's processes that run at present, which can all be ended."""

    def __init__(self):
        self._running: dict[str, subprocess.Popen] = {}
        self._reports: dict[str, Path] = {}
        self._stopped = False

    def names(self) -> list[str]:
        """Return the names of the notebooks that are running, each with what is in progress there."""
        return [f"{name} ({report})" if (report := self._report(name)) else name for name in sorted(self._running)]

    def _report(self, name: str) -> str:
        """Read what a notebook reports."""
        try:
            return self._reports[name].read_text(encoding="utf-8")
        except (KeyError, OSError):
            return ""

    def run(self, name: str, folder: Path, parameters: Mapping[str, object], environment: Mapping[str, str]) -> str:
        """Run a notebook in the folder of the notebooks.

        Args:
            name: Its name.
            folder: A folder of its own, which holds it as source.ipynb and gets the executed one, executed.ipynb.
            parameters: Values that replace defaults.
            environment: Additions to the environment of the kernel.

        Returns:
            What went wrong, or nothing.
        """
        options = {
            "input_path": str(folder / "source.ipynb"),
            "output_path": str(folder / "executed.ipynb"),
            "parameters": dict(parameters),
            "cwd": str(notebooks.NOTEBOOKS),
            "kernel_name": "python3",
            "progress_bar": False,
            "coalesce_streams": True,  # else the pieces of printed text depend on timing
            "shutdown_kernel": "immediate",  # all is written by then, and torch takes 0.4 s to leave in order
            "extra_arguments": ["--log-level=CRITICAL"],  # of the kernel, which else warns of its connections
        }
        self._reports[name] = folder / "progress"
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", PAPERMILL],
            env={**os.environ, **environment, **_own_kernel(folder), "CONSLAW_PROGRESS": str(folder / "progress")},
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        )
        self._running[name] = process
        if self._stopped:
            process.kill()
        _, log = process.communicate(json.dumps(options))
        del self._running[name]
        return _error(folder / "executed.ipynb", log) if process.returncode else ""

    def stop(self) -> None:
        """End all of them and their kernels; what starts hereafter ends at once."""
        self._stopped = True
        running = list(self._running.values())
        for process in running:
            process.send_signal(signal.SIGINT)  # papermill then ends its kernel
        for process in running:
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()  # and the kernel sees that its parent is gone


def _own_kernel(folder: Path) -> dict[str, str]:
    """Make the kernel python3 this interpreter, without a user's start-up files, and let it draw into the notebook."""
    spec = folder / "jupyter" / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    arguments = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    content = {"argv": arguments, "display_name": "Python 3", "language": "python"}
    spec.write_text(json.dumps(content), encoding="utf-8")
    return {
        "JUPYTER_PATH": str(folder / "jupyter"),  # comes before all other places of kernels
        "IPYTHONDIR": str(folder / "ipython"),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYTHONUTF8": "1",
    }


def _error(output: Path, log: str) -> str:
    """Name the cell that failed, as it is counted in the source, and what it raised; else the end of the log."""
    last = (log.strip().splitlines() or ["papermill ended without a message"])[-1]
    try:
        cells = json.loads(output.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError):  # it was not begun, or the disk was full
        return last
    own = [cell for cell in cells if not ADDED.intersection(cell["metadata"].get("tags", []))]
    for number, cell in enumerate(own, 1):
        for raised in cell.get("outputs", []):
            if raised["output_type"] == "error":
                return f"cell {number}: {raised['ename']}: {raised['evalue']}"
    begun = [number for number, cell in enumerate(own, 1) if cell["metadata"].get("papermill", {}).get("start_time")]
    return (f"cell {begun[-1]}: " if begun else "") + last
