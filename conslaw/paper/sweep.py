"""Sweeps over many seeds, cut into independent pieces that run on any `concurrent.futures.Executor`.

A piece is a handful of seeds: its process draws the networks, trains them and returns a table, so that next to nothing
travels. Pieces whose process dies are run again; the numbers do not depend on where they run, nor on how seeds are cut.
Scripts need `if __name__ == "__main__":` around a sweep that makes its own processes.
"""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, ProcessPoolExecutor, as_completed
from contextlib import closing, contextmanager, nullcontext

import pandas as pd
import torch
from tqdm import tqdm

from conslaw.drawing import draw
from conslaw.paper.provenance import cores
from conslaw.paper.tables import run_table
from conslaw.training.descent import gradient_descent

__all__ = ["cluster", "sweep", "train_piece"]

DEATHS = 3
"""Deaths of processes in a row, with no piece finished between them, after which a sweep gives up."""


def train_piece(
    seeds: Sequence[int],
    learning_rates: Sequence[float],
    steps: int,
    networks: Mapping[str, object],
    options: Mapping[str, object],
    threads: int = 1,
) -> pd.DataFrame:
    """Draw and train the networks of a few seeds.

    Args:
        seeds: M seeds.
        learning_rates: η, R of them.
        steps: T.
        networks: Arguments of `draw`: widths, loss, activation, ….
        options: Arguments of `gradient_descent`: optimizer.
        threads: Threads of torch in this process.

    Returns:
        One row for each of the R·M runs, as `run_table` makes them.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        run = gradient_descent(draw(seeds, **networks), learning_rates, steps, record_every=steps, **options)
    finally:
        torch.set_num_threads(before)
    return run_table(run)


def sweep(
    seeds: Sequence[int],
    learning_rates: Sequence[float],
    steps: int,
    *,
    networks: Mapping[str, object] | None = None,
    options: Mapping[str, object] | None = None,
    executor: Executor | None = None,
    piece: int = 2,
    progress: str | None = None,
) -> pd.DataFrame:
    """Train the networks of many seeds with many learning rates, in pieces.

    Args:
        seeds: Different integers.
        learning_rates: η.
        steps: T.
        networks: Arguments of `draw`.
        options: Arguments of `gradient_descent`.
        executor: Where pieces run: any executor whose processes can import this package, and that runs lost pieces
            again by itself if it can. By default a pool of processes, one for each core, that is replaced if one of
            them dies, and ended whenever the sweep is.
        piece: Seeds in a piece.
        progress: Title of a progress bar, which shows on a terminal only.

    Returns:
        One row for each run, by seed and then by learning rate.

    Raises:
        ValueError: If an argument is out of its range; the message names it.
        concurrent.futures.BrokenExecutor: If processes die three times in a row, or the given executor breaks.
    """
    seeds = list(seeds)
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds must be at least one integer, each once, got {seeds}")
    if piece < 1:
        raise ValueError(f"piece must be at least 1, got {piece}")
    waiting = [tuple(seeds[start : start + piece]) for start in range(0, len(seeds), piece)]
    arguments = (list(learning_rates), steps, dict(networks or {}), dict(options or {}))
    tables, deaths = [], 0
    with tqdm(total=len(seeds), unit="seed", desc=progress, disable=None if progress else True) as bar:
        while waiting:
            with nullcontext(executor) if executor else _own_processes() as pool:
                futures = {}
                try:
                    futures = {pool.submit(train_piece, part, *arguments): part for part in waiting}
                    for future in as_completed(futures):
                        tables.append(future.result())
                        waiting.remove(futures[future])
                        bar.update(len(futures[future]))
                        deaths = 0
                except CancelledError as error:
                    raise BrokenExecutor(f"{len(waiting)} pieces were given up: the scheduler is gone") from error
                except BaseException as error:
                    for future in futures:
                        future.cancel()
                    deaths += 1
                    if executor or not isinstance(error, BrokenExecutor) or deaths == DEATHS:
                        raise
    return pd.concat(tables).sort_values(["seed", "eta"], ignore_index=True)


@contextmanager
def _own_processes() -> Iterator[Executor]:
    """A pool of processes, one for each core, that end at once if the work on them is left by an exception."""
    others = set(multiprocessing.active_children())
    # Fresh processes, as forked ones inherit the state of torch's threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(cores(), mp_context=context, initializer=_end_with_parent) as pool:
        try:
            yield pool
        except BaseException:
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise


def _end_with_parent() -> None:
    """Leave Ctrl-C to the process that started this one, and end when it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def end() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()


def cluster(address: str | None) -> closing | nullcontext:
    """Connect to a scheduler of dask.distributed, whose `get_executor` gives an executor for `sweep`.

    Args:
        address: Of the scheduler, such as "tcp://host:8786"; none for no cluster.

    Returns:
        A context that gives the client, closed at the end, or None.

    Raises:
        ModuleNotFoundError: If dask.distributed is not installed.
        OSError: If nothing answers at the address.
    """
    if address is None:
        return nullcontext(None)
    from distributed import Client  # only who has a cluster needs it

    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # a dead scheduler is reported once, by us
    return closing(Client(address, timeout=10))
