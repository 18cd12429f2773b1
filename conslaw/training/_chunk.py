"""One chunk of networks, trained block by block.

On a CPU the networks are cut into chunks whose activations stay in the caches; on a GPU they are one batch. A diverged
network is flagged with its step and stops costing time.
"""

import math
from collections.abc import Callable, Mapping
from itertools import chain, pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from conslaw.laws import add_left_out
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
    times: Tensor,
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
    runs, steps, recorded, count = len(rates), int(times[-1]), set(times.tolist()), len(networks.parameters)
    before, trained = networks, stepper(networks, rates, optimizer)
    losses = _missing(steps + 1, runs)
    squared_gradient_norms = _missing(steps + 1, runs, count)
    squared_norms = _missing(len(times), runs, count)
    squared_step_norms, alignments = (_missing(steps if optimizer else 0, runs, count) for _ in range(2))
    observed: dict[str, Tensor] = {}
    alive, taken = torch.arange(runs, device="cpu"), 0

    entries = {name: {time: entry for entry, time in enumerate(own)} for name, (_, own) in watched.items()}
    for start, stop in pairwise(sorted({*range(0, steps + 1, BLOCK), *chain(*entries.values()), steps + 1})):
        for name, (observable, own) in watched.items():
            if start in entries[name]:
                networks = trained.networks
                values = observable(networks.in_training(networks.runs, start))
                values = _checked(name, values, len(networks), observed.get(name))
                history = observed.setdefault(name, _missing(len(own), runs, *values.shape[1:]))
                history[entries[name][start], alive] = values
        updates = min(stop, steps) - start
        block = Steps(
            *(part if part is None else part.cpu() for part in trained.advance(range(start, stop), updates, recorded))
        )
        losses[start:stop, alive] = block.losses
        squared_gradient_norms[start:stop, alive] = block.squared_gradient_norms
        following = slice(taken, taken + len(block.squared_norms))
        squared_norms[following, alive] = block.squared_norms
        taken = following.stop
        if optimizer and updates:
            squared_step_norms[start : start + updates, alive] = block.squared_step_norms
            alignments[start : start + updates, alive] = block.alignments
        advance((stop - start) * runs)

        sound = _is_sound(block.losses, block.squared_gradient_norms).all(0)
        alive = alive[sound]
        if len(alive) == 0:
            advance((steps + 1 - stop) * runs)
            break
        if not sound.all():
            trained.keep(sound.nonzero().flatten())

    broken = ~_is_sound(losses, squared_gradient_norms)
    dead = broken.cumsum(0) > 0
    losses[dead] = squared_gradient_norms[dead] = math.nan
    diverged = dead[-1].unsqueeze(1)
    squared_gradient_sums, squared_step_sums, alignment_sums = (
        history.sum(0).masked_fill(diverged, math.nan)
        for history in (squared_gradient_norms[:-1], squared_step_norms, alignments)
    )
    squared_norms[dead[times]] = math.nan
    for name, history in observed.items():
        history[dead[torch.tensor(watched[name][1], device="cpu")]] = math.nan
    final = tuple(_missing(runs, *p.shape[1:], dtype=p.dtype) for p in before.parameters)
    if len(alive):
        for end, parameter in zip(final, trained.networks.parameters, strict=True):
            end[alive] = parameter.cpu()
    return Recorded(
        parameters=final,
        loss=losses[times].mT,
        squared_norms=add_left_out(squared_norms, before).movedim(0, 1),
        squared_gradient_norms=squared_gradient_norms[times].movedim(0, 1),
        squared_gradient_sums=squared_gradient_sums,
        squared_step_sums=squared_step_sums if optimizer else squared_gradient_sums,
        alignment_sums=alignment_sums if optimizer else torch.full_like(alignment_sums, math.nan),
        loss_before_last_update=losses[-2],
        diverged_at=torch.where(broken.any(0), broken.int().argmax(0), -1),
        observed={name: history.movedim(0, 1) for name, history in observed.items()},
    )


def _checked(name: str, values: object, networks: int, history: Tensor | None) -> Tensor:
    """Check what an observable returns of J networks, and return it in float64 on the CPU."""
    shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
    rest = None if history is None else tuple(history.shape[2:])
    if not isinstance(values, Tensor) or values.is_complex() or values.dim() < 1 or len(values) != networks:
        raise ValueError(
            f"observe[{name!r}] must return a real tensor ({networks}, …) of {networks} networks, got {shape}"
        )
    if rest not in (None, shape[1:]):
        raise ValueError(f"observe[{name!r}] must return the same shape at all times, got {shape[1:]} after {rest}")
    return values.double().cpu()


def _is_sound(losses: Tensor, squared_gradient_norms: Tensor) -> Tensor:
    """Tell where loss (…,) and squared gradient norms (…, P) are numbers that float32 could hold."""
    return (losses <= LARGEST) & (squared_gradient_norms.sum(-1) <= LARGEST)


def _missing(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return a tensor to be filled in; what is not, is NaN."""
    return torch.full(shape, math.nan, dtype=dtype, device="cpu")
