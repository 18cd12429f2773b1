"""This machine: what it is, how fast it multiplies matrices, and how long something takes on some of its cores."""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context

import numpy as np
import torch

from conslaw.paper.provenance import provenance

PEERS = ("jax", "curvlinops-for-pytorch", "hessian-eigenthings")


def seconds(function: Callable, device: str) -> tuple[float, object]:
    """Time one call."""
    if device == "cuda":
        torch.cuda.synchronize()  # what is still running is not this call's
    start = time.perf_counter()
    result = function()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def environment(device: str) -> dict:
    """Say on what was measured, and with what."""
    known = provenance()
    found = {name: known[name] for name in ("python", "torch", "numpy", "numba", "blas", "instructions")}
    for peer in PEERS:
        try:
            found[peer] = version(peer)
        except PackageNotFoundError:
            found[peer] = "not installed"
    if "OPENBLAS_CORETYPE" in os.environ:  # numpy then uses kernels for another processor
        found["OPENBLAS_CORETYPE"] = os.environ["OPENBLAS_CORETYPE"]
    return found | {
        "device": torch.cuda.get_device_name() if device == "cuda" else known["processor"],
        "threads": known["threads"],
        "dtype": "float64",
    }


def cores() -> list[int]:
    """Return the numbers of the cores that this process may use; none where processes cannot be bound to cores."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


@contextmanager
def process_on(of_cores: list[int]) -> Iterator[ProcessPoolExecutor]:
    """Start a process that is bound to some cores from its start on, so that every library has as many threads.

    Args:
        of_cores: Numbers of cores; none of them for all.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        all_cores = cores()
        try:
            if of_cores:
                os.sched_setaffinity(0, of_cores)  # the process inherits it
            pool.submit(os.getpid).result()
        finally:
            if of_cores:
                os.sched_setaffinity(0, all_cores)
        yield pool


def product_rates(size: int = 1024, repeats: int = 5) -> dict[str, dict[str, float]]:
    """Measure products of large matrices with as many threads as this process has, in 10⁹ operations a second."""
    rates = {}
    for dtype in ("float64", "float32"):
        array = np.random.default_rng(0).standard_normal((size, size)).astype(dtype)
        matrices = {"torch": torch.from_numpy(array), "numpy": array}
        for matrix in matrices.values():
            matrix @ matrix
        rates[dtype] = {
            library: round(2e-9 * size**3 / min(seconds(lambda m=m: m @ m, "cpu")[0] for _ in range(repeats)), 1)
            for library, m in matrices.items()
        }
    return rates


def product_rates_of_one_core() -> dict[str, dict[str, float]]:
    """Measure the same in a process of its own that is bound to one core."""
    with process_on(cores()[:1]) as pool:
        return pool.submit(product_rates).result()
