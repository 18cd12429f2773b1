"""One chunk of networks, trained block by block.

On a CPU the networks are cut into chunks whose activations stay in the caches; on a GPU they are one batch. A diverged
network is flagged with its step and stops costing time.
"""

import math
from collections.abc import Callable, Mapping
from itertools import chain, pairwise

import torch
from torch import Tensor

from conslaw.problems import Problem, is_shared
from conslaw.training import _compiled as compiled
from conslaw.training._batched import take_steps
from conslaw.training.optimizers import Optimizer

__all__ = ["Observable", "chunks", "descend"]

Observable = Callable[[Problem], Tensor]
"""A function of J networks in training, whose values (J, …) are recorded."""
CACHE_BYTES = 2**21
"""Hidden activations of the networks that one thread works at, so that they stay in its core's cache."""
BLOCK = 64
"""Most steps between two looks at whether a network has diverged. A look synchronises with a GPU, and so does an
observation; nothing else does."""


def chunks(problem: Problem, runs: int) -> tuple[Tensor, ...]:
    """Cut the runs into chunks that fit the caches of a CPU, with the same work for each thread; a GPU takes all.

    Args:
        problem: Networks of the shape of all.
        runs: Their number.

    Returns:
        Numbers of the runs in each chunk.
    """
    if problem.inputs.device.type != "cpu":
        return (torch.arange(runs),)
    hidden = sum(weight.shape[1] for weight in problem.weights[:-1])
    bytes_of_one = hidden * problem.inputs.shape[2] * problem.inputs.element_size()
    # Where inputs are shared, their product with many networks' weights at once is worth more than the cache.
    size = CACHE_BYTES * torch.get_num_threads() * (4 if is_shared(problem.inputs) else 1)
    rounds = max(1, math.ceil(runs * bytes_of_one / size))
    for_each_thread = math.ceil(runs / (rounds * torch.get_num_threads()))
    return torch.arange(runs).split(for_each_thread * torch.get_num_threads())


def descend(
    problem: Problem,
    rates: Tensor,
    times: Tensor,
    loss: str | float,
    activation: str | float,
    optimizer: Optimizer | None,
    watched: Mapping[str, tuple[Observable, list[int]]],
    advance: Callable[[int], object],
) -> tuple[list[Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Train J networks in place.

    Args:
        problem: The networks and their data.
        rates: η, shape (J,).
        times: Recorded times, ascending; the last is the number of updates.
        loss: As in `gradient_descent`.
        activation: As in `gradient_descent`.
        optimizer: None for gradient descent.
        watched: Observables by name, and the times of each.
        advance: Function to call with the number of steps that networks have taken since its last call.

    Returns:
        Final parameters, each (J, …); the recorded fields of `Trajectory`, each (J, …); the observables, likewise.
    """
    runs, steps, recorded = len(rates), int(times[-1]), set(times.tolist())
    losses = _missing(steps + 1, runs)
    squared_gradient_norms = _missing(steps + 1, runs, len(problem.parameters))
    squared_norms = _missing(len(times), runs, len(problem.parameters))
    of_steps = steps if optimizer else 0
    squared_step_norms, alignments = (_missing(of_steps, runs, len(problem.parameters)) for _ in range(2))
    observed: dict[str, Tensor] = {}
    alive = torch.arange(runs)
    taken, memory, state = 0, {}, []
    in_torch = bool(optimizer) or not compiled.applies(problem, activation)

    entries = {name: {time: entry for entry, time in enumerate(own)} for name, (_, own) in watched.items()}
    for start, stop in pairwise(sorted({*range(0, steps + 1, BLOCK), *chain(*entries.values()), steps + 1})):
        for name, (observable, own) in watched.items():
            if start in entries[name]:
                values = observable(problem).double().cpu()
                history = observed.setdefault(name, _missing(len(own), runs, *values.shape[1:]))
                history[entries[name][start], alive] = values
        updates = min(stop, steps) - start
        if in_torch:
            options = (loss, activation, optimizer, memory, state)
            block = take_steps(problem, rates[alive], range(start, stop), updates, recorded, *options)
        else:
            block = compiled.take_steps(problem, rates[alive], range(start, stop), updates, recorded, loss, activation)
        losses[start:stop, alive] = block.losses
        squared_gradient_norms[start:stop, alive] = block.squared_gradient_norms
        following = slice(taken, taken + len(block.squared_norms))
        squared_norms[following, alive] = block.squared_norms
        taken = following.stop
        if optimizer and updates:
            squared_step_norms[start : start + updates, alive] = block.squared_step_norms
            alignments[start : start + updates, alive] = block.alignments
        advance((stop - start) * runs)

        finite = losses[start:stop, alive].isfinite().all(0)
        if not finite.all():
            survivors = finite.nonzero().flatten()
            alive, problem = alive[finite], problem.select(survivors)
            state = [tensor[survivors] for tensor in state]
            memory.clear()
        if len(alive) == 0:
            advance((steps + 1 - stop) * runs)
            break

    broken = ~losses.isfinite()
    dead = broken.cumsum(0) > 0
    losses[dead] = squared_gradient_norms[dead] = math.nan
    diverged = dead[-1].unsqueeze(1)
    squared_gradient_sums, squared_step_sums, alignment_sums = (
        history.sum(0).masked_fill(diverged, math.nan)
        for history in (squared_gradient_norms[:-1], squared_step_norms, alignments)
    )
    squared_norms[dead[times]] = math.nan
    for name, history in observed.items():
        history[dead[torch.tensor(watched[name][1])]] = math.nan
    final = [_missing(runs, *parameter.shape[1:], dtype=parameter.dtype) for parameter in problem.parameters]
    for end, parameter in zip(final, problem.parameters, strict=True):
        end[alive] = parameter.cpu()
    records = {
        "loss": losses[times].mT,
        "squared_norms": squared_norms.movedim(0, 1),
        "squared_gradient_norms": squared_gradient_norms[times].movedim(0, 1),
        "squared_gradient_sums": squared_gradient_sums,
        "squared_step_sums": squared_step_sums if optimizer else squared_gradient_sums,
        "alignment_sums": alignment_sums if optimizer else torch.full_like(alignment_sums, math.nan),
        "loss_before_last_update": losses[-2],
        "diverged_at": torch.where(broken.any(0), broken.int().argmax(0), -1),
    }
    return final, records, {name: history.movedim(0, 1) for name, history in observed.items()}


def _missing(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return a tensor to be filled in; what is not, is NaN."""
    return torch.full(shape, math.nan, dtype=dtype)
