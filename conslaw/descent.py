"""Full-batch gradient descent of many networks at once.

R learning rates × M networks are trained by batched matrix products of torch (`steps`), or small ones on a CPU one by
one and compiled (`compiled`). On a CPU they are cut into chunks whose activations stay in the caches; on a GPU they are
one batch. A diverged network is flagged with its step and stops costing time.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from conslaw import compiled
from conslaw.losses import cross_entropy_weight
from conslaw.network import IDENTITY, activation_function
from conslaw.optimizers import Optimizer, optimizer_function
from conslaw.problems import Problem, is_shared
from conslaw.steps import take_steps
from conslaw.trajectory import Trajectory

__all__ = ["gradient_descent", "networks_at"]

CACHE_BYTES = 2**21
"""Hidden activations of the networks that one thread works at, so that they stay in its core's cache."""
BLOCK = 64
"""Steps between two looks at whether a network has diverged; a look is the only synchronisation with a GPU."""


def gradient_descent(
    problem: Problem,
    learning_rates: float | list | np.ndarray | Tensor,
    steps: int,
    *,
    loss: str | float = "cross_entropy",
    activation: str | float = "relu",
    optimizer: str | Optimizer = "gd",
    record_every: int = 1,
    record_at: Sequence[int] = (),
    observe: Mapping[str, Callable[[Problem], Tensor]] | None = None,
    progress: str | None = None,
) -> Trajectory:
    """Train every network of a problem with every learning rate: T updates W_l ← W_l − η ∂L/∂W_l, or another step.

    Args:
        problem: M networks and their data, which stay as they are. Their dtype and device are those of the computation.
        learning_rates: η > 0: a number, R numbers, or one for each run, shape (R, M).
        steps: T.
        loss: "mse", "cross_entropy", or the weight of cross-entropy in their mixture.
        activation: "relu", "linear", "leaky_relu", "tanh", "gelu", "sigmoid", or the weight of ReLU in a mixture with
            the identity.
        optimizer: "gd", "momentum", "adam", or an `Optimizer`.
        record_every: k: the trajectory holds the times 0, k, 2k, …, and T.
        record_at: More times it holds.
        observe: More to record, by name: functions from a `Problem` of J networks in training to a tensor (J, …).
        progress: Title of a progress bar, which shows on a terminal only.

    Returns:
        The trajectory of the R × M networks.

    Raises:
        ValueError: If an argument is out of its range; the message names it.

    >>> from conslaw.problems import draw
    >>> run = gradient_descent(draw([42, 137]), 0.1, steps=10)
    >>> bool(torch.allclose(run.drift, 0.1**2 * run.imbalance_sum, rtol=1e-10))
    True
    """
    networks = len(problem.inputs)
    given = learning_rates if isinstance(learning_rates, Tensor) else torch.tensor(np.asarray(learning_rates, float))
    rates = given.double().cpu()
    if rates.dim() < 2:
        rates = rates.reshape(-1, 1).expand(-1, networks)
    if rates.dim() > 2 or rates.numel() == 0 or rates.shape[1] != networks:
        raise ValueError(f"learning_rates must have shape (), (R,) or (R, {networks}), got {tuple(rates.shape)}")
    if not bool((rates.isfinite() & (rates > 0)).all()):
        raise ValueError(f"learning_rates must be positive and finite, got {learning_rates}")
    if steps < 1 or record_every < 1:
        raise ValueError(f"steps and record_every must be at least 1, got {steps} and {record_every}")
    if any(time not in range(steps + 1) for time in record_at):
        raise ValueError(f"record_at must be times from 0 to {steps}, got {list(record_at)}")
    times = torch.tensor(sorted({*range(0, steps, record_every), *record_at, steps}))
    step = optimizer_function(optimizer)
    seeds = torch.arange(networks).repeat(len(rates))
    observe = dict(observe or {})
    trained = problem
    if (
        activation_function(activation) is IDENTITY
        and cross_entropy_weight(loss) == 0
        and not (problem.biases or observe)
    ):
        trained = problem.reduced()  # a linear network under squared error: fewer columns, the same training

    with tqdm(
        total=(steps + 1) * len(seeds), desc=progress, unit_scale=True, disable=None if progress else True
    ) as bar:
        results = []
        for runs in _chunks(trained, len(seeds)):
            chunk = trained.select(seeds[runs])
            results.append(_descend(chunk, rates.flatten()[runs], times, loss, activation, step, observe, bar.update))

    def join(parts: Iterable[Tensor]) -> Tensor:
        return torch.cat(list(parts)).unflatten(0, rates.shape)

    parameters, records, observed = zip(*results, strict=True)
    return Trajectory(
        problem=problem,
        learning_rates=rates,
        times=times,
        parameters=tuple(join(parts) for parts in zip(*parameters, strict=True)),
        observed={name: join(part[name] for part in observed) for name in observe},
        **{name: join(part[name] for part in records) for name in records[0]},
    )


def networks_at(
    problem: Problem,
    learning_rate: float | np.ndarray | Tensor,
    times: Sequence[int],
    loss: str | float = "cross_entropy",
    activation: str | float = "relu",
) -> list[Problem]:
    """Train and return the networks at several times.

    Args:
        problem: M networks and their data.
        learning_rate: η, one for all networks or M of them.
        times: Numbers of steps, ascending.
        loss: As in `gradient_descent`.
        activation: As in `gradient_descent`.

    Returns:
        The networks after each of these numbers of steps, with their data.

    Raises:
        ValueError: If the times do not ascend.
    """
    if list(times) != sorted({*times}) or min(times, default=0) < 0:
        raise ValueError(f"times must be ascending numbers of steps, got {list(times)}")
    rates = torch.as_tensor(learning_rate, dtype=torch.float64).expand(1, len(problem.inputs))
    networks, taken, states = problem, 0, []
    for time in times:
        if time > taken:
            run = gradient_descent(
                networks, rates, time - taken, loss=loss, activation=activation, record_every=time - taken
            )
            networks = run.networks()
            taken = time
        states.append(networks)
    return states


def _chunks(problem: Problem, runs: int) -> tuple[Tensor, ...]:
    """Cut the runs into chunks that fit the caches of a CPU, with the same work for each thread; a GPU takes all."""
    if problem.inputs.device.type != "cpu":
        return (torch.arange(runs),)
    hidden = sum(weight.shape[1] for weight in problem.weights[:-1])
    bytes_of_one = hidden * problem.inputs.shape[2] * problem.inputs.element_size()
    # Where inputs are shared, their product with many networks' weights at once is worth more than the cache.
    size = CACHE_BYTES * torch.get_num_threads() * (4 if is_shared(problem.inputs) else 1)
    rounds = max(1, math.ceil(runs * bytes_of_one / size))
    for_each_thread = math.ceil(runs / (rounds * torch.get_num_threads()))
    return torch.arange(runs).split(for_each_thread * torch.get_num_threads())


def _descend(
    problem: Problem,
    rates: Tensor,
    times: Tensor,
    loss: str | float,
    activation: str | float,
    optimizer: Optimizer | None,
    observe: dict[str, Callable[[Problem], Tensor]],
    advance: Callable[[int], object],
) -> tuple[list[Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Train J networks in place, the j-th with learning rate rates[j]; no optimizer means gradient descent.

    Returns:
        Final parameters, each (J, …); the recorded fields of `Trajectory`, each (J, …); the observables, each (J, τ,
        …).
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
    in_torch = bool(optimizer or observe) or not compiled.applies(problem, activation)

    for start in range(0, steps + 1, BLOCK):
        stop = min(start + BLOCK, steps + 1)
        updates = min(stop, steps) - start
        if in_torch:
            options = (loss, activation, optimizer, observe, memory, state)
            block = take_steps(problem, rates[alive], range(start, stop), updates, recorded, *options)
        else:
            block = compiled.take_steps(problem, rates[alive], range(start, stop), updates, recorded, loss, activation)
        losses[start:stop, alive] = block.losses
        squared_gradient_norms[start:stop, alive] = block.squared_gradient_norms
        following = slice(taken, taken + len(block.squared_norms))
        squared_norms[following, alive] = block.squared_norms
        for name, values in block.observed.items():
            observed.setdefault(name, _missing(len(times), runs, *values.shape[2:]))[following, alive] = values
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
    for history in (squared_norms, *observed.values()):
        history[dead[times]] = math.nan
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
