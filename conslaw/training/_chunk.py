"""One chunk of networks, trained block by block.

On a CPU the networks are cut into chunks whose activations stay in the caches; on a GPU they are one batch. A diverged
network is flagged with its step and stops costing time.
"""

import math
from collections.abc import Callable, Mapping
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from conslaw.conserved import add_left_out
from conslaw.problems import Problem
from conslaw.tensors import is_shared
from conslaw.training._batched import BatchedSteps
from conslaw.training._compiled import CompiledSteps
from conslaw.training._steps import Stepper, Steps
from conslaw.training.optimizers import Optimizer

__all__ = ["LARGEST", "Observable", "Recorded", "chunks", "descend"]

Observable = Callable[[Problem], Tensor]
"""A function of J networks in training, whose values (J, …) are recorded. `runs` of these networks tells which of the
R·M runs they are: networks that have diverged are no longer among them. `step` tells the time. Their weights are those
in training, which the next step overwrites: they are to be read, and copied to be kept."""
CACHE_BYTES = 2**21
"""Hidden activations of the networks that one thread works at, so that they stay in its core's cache."""
BLOCK = 64
"""Most steps between two looks at whether a network has diverged. A look synchronises with a GPU, and so does an
observation; nothing else does."""
LARGEST = torch.finfo(torch.float32).max
"""Largest loss and squared gradient norm of a network that has not diverged, in any precision: what is larger, the
published runs, in float32, could not hold."""


class Recorded(NamedTuple):
    """What is recorded of J runs, as the fields of `Trajectory` of the same names, each (J, …)."""

    parameters: tuple[Tensor, ...]
    loss: Tensor
    squared_norms: Tensor
    squared_gradient_norms: Tensor
    squared_gradient_sums: Tensor
    squared_step_sums: Tensor
    alignment_sums: Tensor
    loss_before_last_update: Tensor
    diverged_at: Tensor
    observed: dict[str, Tensor]


def chunks(problem: Problem, runs: int) -> tuple[Tensor, ...]:
    """Cut the runs into chunks that fit the caches of a CPU, with the same work for each thread; a GPU takes all.

    Args:
        problem: Networks of the shape of all.
        runs: Their number.

    Returns:
        Numbers of the runs in each chunk.
    """
    numbers = torch.arange(runs, device="cpu")
    if problem.inputs.device.type != "cpu":
        return (numbers,)
    hidden = sum(weight.shape[1] for weight in problem.weights[:-1])
    bytes_of_one = hidden * problem.inputs.shape[2] * problem.inputs.element_size()
    # Where inputs are shared, their product with many networks' weights at once is worth more than the cache.
    size = CACHE_BYTES * torch.get_num_threads() * (4 if is_shared(problem.inputs) else 1)
    rounds = max(1, math.ceil(runs * bytes_of_one / size))
    for_each_thread = math.ceil(runs / (rounds * torch.get_num_threads()))
    return numbers.split(for_each_thread * torch.get_num_threads())


def stepper(networks: Problem, rates: Tensor, optimizer: Optimizer | None) -> Stepper:
    """Choose what trains these networks."""
    if optimizer is None and CompiledSteps.takes(networks):
        return CompiledSteps(networks, rates)
    return BatchedSteps(networks, rates, optimizer)


def descend(
    networks: Problem,
    rates: Tensor,
    times: np.ndarray,
    optimizer: Optimizer | None,
    watched: Mapping[str, tuple[Observable, list[int]]],
    advance: Callable[[int], object],
) -> Recorded:
    """Train J networks in place.

    Args:
        networks: The networks and their data.
        rates: η, shape (J,).
        times: Recorded times, ascending; the last is the number of updates.
        optimizer: None for gradient descent.
        watched: Observables by name, and the times of each.
        advance: Function to call with the number of steps that networks have taken since its last call.

    Returns:
        What is recorded.
    """
    runs, steps, count, before = len(rates), int(times[-1]), len(networks.parameters), networks
    trained = stepper(networks, rates, optimizer)
    loss, squared_norms = _missing(len(times), runs), _missing(len(times), runs, count)
    squared_gradient_norms, loss_before_last_update = _missing(len(times), runs, count), _missing(runs)
    squared_gradient_sums, squared_step_sums, alignment_sums = np.zeros((3, runs, count))
    alive, diverged_at, observed = np.arange(runs), np.full(runs, -1), {}

    entries = {name: {time: entry for entry, time in enumerate(own)} for name, (_, own) in watched.items()}
    for start, stop in pairwise(sorted({*range(0, steps + 1, BLOCK), *chain(*entries.values()), steps + 1})):
        for name, (observable, own) in watched.items():
            if start in entries[name]:
                networks = trained.networks
                values = observable(networks.in_training(networks.runs, start))
                values = _checked(name, values, len(networks), observed.get(name))
                history = observed.setdefault(name, _missing(len(own), runs, *values.shape[1:]))
                history[entries[name][start], alive] = values
        updates, entry, after = min(stop, steps) - start, *np.searchsorted(times, (start, stop))
        parts = trained.advance(range(start, stop), updates, {*times[entry:after].tolist()})
        block = Steps(*(part if part is None else part.cpu().numpy() for part in parts))
        advance((stop - start) * runs)

        broken = ~_is_sound(block.losses, block.squared_gradient_norms)
        dead, recorded = np.logical_or.accumulate(broken), times[entry:after] - start
        for history, values in (
            (loss, block.losses[recorded]),
            (squared_gradient_norms, block.squared_gradient_norms[recorded]),
            (squared_norms, block.squared_norms),
        ):
            history[entry:after, alive] = np.where(_like(dead[recorded], values), math.nan, values)
        _add(squared_gradient_sums, alive, block.squared_gradient_norms[:updates])
        if optimizer and updates:
            _add(squared_step_sums, alive, block.squared_step_norms)
            _add(alignment_sums, alive, block.alignments)
        if start < steps <= stop:
            loss_before_last_update[alive] = np.where(
                dead[steps - 1 - start], math.nan, block.losses[steps - 1 - start]
            )
        for name, history in observed.items():
            history[entries[name].get(start, []), alive[dead[0]]] = math.nan

        sound = ~dead[-1]
        diverged_at[alive[~sound]] = start + broken.argmax(0)[~sound]
        alive = alive[sound]
        if len(alive) == 0:
            advance((steps + 1 - stop) * runs)
            break
        if not sound.all():
            trained.keep(torch.from_numpy(sound.nonzero()[0]))

    for sums in (squared_gradient_sums, squared_step_sums, alignment_sums):
        sums[diverged_at >= 0] = math.nan
    if not optimizer:
        squared_step_sums, alignment_sums = squared_gradient_sums, np.full_like(alignment_sums, math.nan)
    final = tuple(torch.full((runs, *p.shape[1:]), math.nan, dtype=p.dtype, device="cpu") for p in before.parameters)
    if len(alive):
        for end, parameter in zip(final, trained.networks.parameters, strict=True):
            end[torch.from_numpy(alive)] = parameter.cpu()
    return Recorded(
        parameters=final,
        loss=_by_runs(loss),
        squared_norms=add_left_out(torch.from_numpy(squared_norms), before).movedim(0, 1),
        squared_gradient_norms=_by_runs(squared_gradient_norms),
        squared_gradient_sums=torch.from_numpy(squared_gradient_sums),
        squared_step_sums=torch.from_numpy(squared_step_sums),
        alignment_sums=torch.from_numpy(alignment_sums),
        loss_before_last_update=torch.from_numpy(loss_before_last_update),
        diverged_at=torch.from_numpy(diverged_at),
        observed={name: _by_runs(history) for name, history in observed.items()},
    )


def _checked(name: str, values: object, networks: int, history: np.ndarray | None) -> np.ndarray:
    """Check what an observable returns of J networks, and return it in float64."""
    shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
    rest = None if history is None else tuple(history.shape[2:])
    if not isinstance(values, Tensor) or values.is_complex() or values.dim() < 1 or len(values) != networks:
        raise ValueError(
            f"observe[{name!r}] must return a real tensor ({networks}, …) of {networks} networks, got {shape}"
        )
    if rest not in (None, shape[1:]):
        raise ValueError(f"observe[{name!r}] must return the same shape at all times, got {shape[1:]} after {rest}")
    return values.double().cpu().numpy()


def _is_sound(losses: np.ndarray, squared_gradient_norms: np.ndarray) -> np.ndarray:
    """Tell where loss (…,) and squared gradient norms (…, P) are numbers that float32 could hold."""
    with np.errstate(over="ignore"):  # what overflows is larger than float32 can hold
        return (losses <= LARGEST) & (squared_gradient_norms.sum(-1) <= LARGEST)


def _missing(*shape: int) -> np.ndarray:
    """Return an array to be filled in; what is not, is NaN.

    Assignments to tensors would start torch's threads, which then wait, at full speed, where compiled steps work.
    """
    return np.full(shape, math.nan)


def _like(flags: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Give flags (t, J) as many dimensions as values (t, J, …)."""
    return flags.reshape(*flags.shape, *[1] * (values.ndim - 2))


def _add(sums: np.ndarray, runs: np.ndarray, values: np.ndarray) -> None:
    """Add values (t, J, P) of some steps to the sums of these runs, in an order that is the same in all blocks."""
    sums[runs] = np.add.accumulate([sums[runs], *values])[-1]


def _by_runs(history: np.ndarray) -> Tensor:
    """Return a history (τ, J, …) as a tensor (J, τ, …)."""
    return torch.from_numpy(history).movedim(0, 1)
