"""Provenance: the versions and the machine that numbers come from, which is what a report of a difference needs."""

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["LIBRARIES", "cores", "provenance", "versions"]

LIBRARIES = ("torch", "numpy", "scipy", "pandas", "matplotlib", "numba", "llvmlite", "mlxtend")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries on which numbers and figures depend."""
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = "not installed"
    return found


def cores() -> int:
    """Return how many cores this process may use, as `taskset` and the like have it."""
    if hasattr(os, "process_cpu_count"):  # from Python 3.13 on
        return os.process_cpu_count() or 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def provenance() -> dict[str, object]:
    """Return the versions, the processor, the cores and threads in use, and the libraries of linear algebra."""
    import numpy as np
    import torch

    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    of_torch = re.search(r"BLAS_INFO=(\w+)", torch.__config__.show())
    return versions() | {
        "torch": torch.__version__,  # with its build, which the package's metadata may leave out
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "blas": {"torch": of_torch[1] if of_torch else "unknown", "numpy": f"{blas['name']} {blas['version']}"},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def _processor() -> str:
    """Name the model of the processor."""
    file = Path("/proc/cpuinfo")
    text = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return model[1].strip() if model else platform.processor() or "unknown"
