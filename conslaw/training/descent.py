"""Full-batch gradient descent of many networks at once.

R learning rates × M networks are trained chunk by chunk (`_chunk`): by batched matrix products of torch (`_batched`),
or small ones on a CPU one by one and compiled (`_compiled`).
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral

import numpy as np
import torch
from torch import Tensor

from conslaw.problems import Problem
from conslaw.progress import progress_bar
from conslaw.training._chunk import Observable, chunks, descend
from conslaw.training.optimizers import Optimizer, optimizer_function
from conslaw.training.trajectory import Trajectory

__all__ = ["gradient_descent", "networks_at"]


@torch.no_grad()
def gradient_descent(
    problem: Problem,
    learning_rates: float | list | np.ndarray | Tensor,
    steps: int,
    *,
    optimizer: str | Optimizer = "gd",
    record_every: int = 1,
    record_at: Sequence[int] = (),
    observe: Mapping[str, Observable | tuple[Observable, Sequence[int]]] | None = None,
    progress: str | None = None,
) -> Trajectory:
    """Train every network of a problem with every learning rate: T updates W_l ← W_l − η ∂L/∂W_l, or another step.

    Args:
        problem: M networks, their data and loss, which stay as they are. Their dtype and device are those of the
            computation.
        learning_rates: η > 0: a number, R numbers, or one for each run, shape (R, M).
        steps: T.
        optimizer: "gd", "momentum", "adam", or an `Optimizer`.
        record_every: k: the trajectory holds the times 0, k, 2k, …, and T.
        record_at: More times it holds.
        observe: More to record, by name: functions from a `Problem` of J networks in training, whose `runs` tells which
            they are, to a tensor (J, …). A pair of one and of times, ascending from 0, is called at these instead of
            the recorded ones.
        progress: Title of a progress bar, which shows on a terminal and in a live notebook only.

    Returns:
        The trajectory of the R × M networks.

    Raises:
        ValueError: If an argument is out of its range; the message names it.

    >>> from conslaw import draw
    >>> run = gradient_descent(draw([42, 137]), 0.1, steps=10)
    >>> bool(torch.allclose(run.drift, 0.1**2 * run.imbalance_sum, rtol=1e-10))
    True
    """
    networks = len(problem)
    rates = _rates(learning_rates, networks)
    for name, number in (("steps", steps), ("record_every", record_every)):
        if not isinstance(number, Integral) or isinstance(number, bool) or number < 1:
            raise ValueError(f"{name} must be an integer of at least 1, got {number!r}")
    times = sorted({*range(0, steps, record_every), *_times("record_at", record_at, steps), steps})
    step = optimizer_function(optimizer)
    watched = {}
    for name, what in (observe or {}).items():
        observable, own = what if isinstance(what, tuple) and len(what) == 2 else (what, times)
        if not callable(observable):
            raise ValueError(f"observe[{name!r}] must be a function, or a pair of one and of times, got {what!r}")
        own = _times(f"times in observe[{name!r}]", own, steps)
        if own != sorted({0, *own}):
            raise ValueError(f"times in observe[{name!r}] must ascend from 0 to at most {steps}, got {own}")
        watched[name] = (observable, own)
    trained = problem
    if problem.is_linear_regression and not (problem.biases or watched):
        trained = problem.reduced()  # a linear network under squared error: fewer columns, the same training

    copies = torch.arange(networks, device="cpu").repeat(len(rates))
    with progress_bar((steps + 1) * len(copies), progress) as bar:
        results = []
        for runs in chunks(trained, len(copies)):
            chunk = trained.select(copies[runs]).in_training(runs, 0)
            results.append(descend(chunk, rates.flatten()[runs], np.array(times), step, watched, bar.update))

    def join(parts: Iterable[Tensor]) -> Tensor:
        return torch.cat(list(parts)).unflatten(0, rates.shape)

    tensors = [name for name in results[0]._fields if isinstance(getattr(results[0], name), Tensor)]
    return Trajectory(
        problem=problem,
        learning_rates=rates,
        times=torch.tensor(times, device="cpu"),
        parameters=tuple(join(parts) for parts in zip(*(result.parameters for result in results), strict=True)),
        observed={name: join(result.observed[name] for result in results) for name in watched},
        optimizer=optimizer,
        **{name: join(getattr(result, name) for result in results) for name in tensors},
    )


def _rates(learning_rates: float | list | np.ndarray | Tensor, networks: int) -> Tensor:
    """Check learning rates and return one for each run, shape (R, M), float64."""
    try:
        if isinstance(learning_rates, str | bool):
            raise TypeError
        given = learning_rates if isinstance(learning_rates, Tensor) else np.array(learning_rates, float)
        rates = torch.as_tensor(given, dtype=torch.float64, device="cpu").detach()
    except (TypeError, ValueError) as error:
        raise ValueError(f"learning_rates must be numbers, got {learning_rates!r}") from error
    if rates.dim() < 2:
        rates = rates.reshape(-1, 1).expand(-1, networks)
    if rates.dim() > 2 or rates.numel() == 0 or rates.shape[1] != networks:
        raise ValueError(f"learning_rates must have shape (), (R,) or (R, {networks}), got {tuple(rates.shape)}")
    if not bool((rates.isfinite() & (rates > 0)).all()):
        raise ValueError(f"learning_rates must be positive and finite, got {learning_rates}")
    return rates


def _times(name: str, times: Sequence[int] | Tensor, steps: int) -> list[int]:
    """Check numbers of steps, also those of a tensor or an array."""
    try:
        listed = [time.item() if hasattr(time, "item") else time for time in times]
    except TypeError:
        listed = [times]
    whole = (isinstance(time, Integral) and not isinstance(time, bool) and 0 <= time <= steps for time in listed)
    if not hasattr(times, "__len__") or not all(whole):
        raise ValueError(f"{name} must be times from 0 to {steps}, got {times}")
    return listed


def networks_at(problem: Problem, learning_rate: float | np.ndarray | Tensor, times: Sequence[int]) -> list[Problem]:
    """Train and return the networks at several times.

    Args:
        problem: M networks and their data.
        learning_rate: η, one for all networks or M of them.
        times: Numbers of steps, ascending.

    Returns:
        The networks after each of these numbers of steps, with their data.

    Raises:
        ValueError: If the times do not ascend, or a rate is not positive.
    """
    listed = _times("times", times, sys.maxsize)
    if not listed or listed != sorted({*listed}):
        raise ValueError(f"times must be ascending numbers of steps, got {listed}")
    given = learning_rate if isinstance(learning_rate, Tensor) else np.array(learning_rate, float)
    rates = torch.as_tensor(given, device="cpu")
    if rates.dim() > 1 or (rates.dim() == 1 and len(rates) != len(problem)):
        raise ValueError(
            f"learning_rate must be one number, or one for each of {len(problem)} networks, got {learning_rate}"
        )
    rates = _rates(rates.expand(1, len(problem)), len(problem))
    networks, taken, states = problem, 0, []
    for time in listed:
        if time > taken:
            networks = gradient_descent(networks, rates, time - taken, record_every=time - taken).networks()
            taken = time
        states.append(networks)
    return states
