"""Full-batch gradient descent of many networks at once.

R learning rates × M networks are trained by batched matrix products. On a CPU they are cut into chunks whose
activations stay in the cache, one thread per chunk; on a GPU they are one batch. A diverged network is flagged with
its step and stops costing time.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from conslaw.conservation import squared_norms
from conslaw.losses import loss_function
from conslaw.network import IDENTITY, activation_function, backward, forward
from conslaw.problems import Problem
from conslaw.trajectory import Trajectory

__all__ = ["gradient_descent", "loss_and_gradients"]

CACHE_BYTES = 2**21
"""Hidden activations of one chunk, so that they stay in a core's cache."""
BLOCK = 64
"""Steps between two looks at whether a network has diverged; a look is the only synchronisation with a GPU."""


def loss_and_gradients(
    problem: Problem, loss: str | float = "cross_entropy", activation: str | float = "relu"
) -> tuple[Tensor, list[Tensor]]:
    """Compute the loss of every network and its gradient.

    Args:
        problem: M networks and their data.
        loss: As in `gradient_descent`.
        activation: As in `gradient_descent`.

    Returns:
        Loss (M,), and ∂L/∂ each of `problem.parameters`, in their order and shapes.
    """
    sigma, inputs = activation_function(activation), problem.inputs
    # In a linear network the order of the products is free: W_L … W_1 first, and the samples once, not in every layer.
    collapsed = sigma is IDENTITY and not problem.biases
    preactivations, activations = forward(problem.weights, problem.biases, None if collapsed else inputs, sigma)
    outputs = torch.bmm(preactivations[-1], inputs) if collapsed else preactivations[-1]
    value, residual = loss_function(loss)(outputs, problem.targets, problem.samples)
    residual = torch.bmm(residual, inputs.mT) if collapsed else residual
    gradients, residuals = backward(problem.weights, preactivations, activations, residual, sigma)
    return value, gradients + [r.sum(2) for r in residuals] if problem.biases else gradients


def gradient_descent(
    problem: Problem,
    learning_rates: float | list | np.ndarray | Tensor,
    steps: int,
    *,
    loss: str | float = "cross_entropy",
    activation: str | float = "relu",
    record_every: int = 1,
    observe: Mapping[str, Callable[[Problem], Tensor]] | None = None,
    progress: str | None = None,
) -> Trajectory:
    """Train every network of a problem with every learning rate: T updates W_l ← W_l − η ∂L/∂W_l.

    Args:
        problem: M networks and their data, which stay as they are. Their dtype and device are those of the computation.
        learning_rates: η > 0: a number, R numbers, or one for each run, shape (R, M).
        steps: T.
        loss: "mse", "cross_entropy", or the weight of cross-entropy in their mixture.
        activation: "relu", "linear", "leaky_relu", "tanh", "gelu", "sigmoid", or the weight of ReLU in a mixture with
            the identity.
        record_every: k: the trajectory holds the times 0, k, 2k, …, and T.
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
    rates = torch.tensor(np.asarray(learning_rates, dtype=float))
    if rates.dim() < 2:
        rates = rates.reshape(-1, 1).expand(-1, networks)
    if rates.dim() > 2 or rates.numel() == 0 or rates.shape[1] != networks:
        raise ValueError(f"learning_rates must have shape (), (R,) or (R, {networks}), got {np.shape(learning_rates)}")
    if not bool((rates.isfinite() & (rates > 0)).all()):
        raise ValueError(f"learning_rates must be positive and finite, got {learning_rates}")
    if steps < 1 or record_every < 1:
        raise ValueError(f"steps and record_every must be at least 1, got {steps} and {record_every}")
    times = torch.tensor(sorted({*range(0, steps, record_every), steps}))
    seeds = torch.arange(networks).repeat(len(rates))
    observe = dict(observe or {})

    with tqdm(
        total=(steps + 1) * len(seeds), desc=progress, unit_scale=True, disable=None if progress else True
    ) as bar:

        def train(runs: Tensor) -> tuple[list[Tensor], dict[str, Tensor], dict[str, Tensor]]:
            chunk = problem.select(seeds[runs])
            return _descend(chunk, rates.flatten()[runs], times, loss, activation, observe, bar.update)

        if problem.inputs.device.type == "cpu":
            results = _map_in_threads(train, _chunks(problem, len(seeds)))
        else:
            results = [train(torch.arange(len(seeds)))]

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


def _chunks(problem: Problem, runs: int) -> tuple[Tensor, ...]:
    """Cut the runs into equal chunks that fit the cache, the same number for each thread."""
    hidden = sum(weight.shape[1] for weight in problem.weights[:-1]) or 1
    bytes_of_one = hidden * problem.inputs.shape[2] * problem.inputs.element_size()
    threads = torch.get_num_threads()
    rounds = math.ceil(runs * bytes_of_one / (threads * CACHE_BYTES))
    return torch.arange(runs).tensor_split(min(runs, threads * rounds))


def _map_in_threads(function: Callable, items: Iterable) -> list:
    """Apply a function in as many threads as torch may use, each of which then computes alone."""
    with (
        one_thread() as threads,
        ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool,
    ):
        return list(pool.map(function, items))


@contextmanager
def one_thread() -> Iterator[int]:
    """Let torch compute in one thread, which suits small products; yields the number of threads that is restored."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def _descend(
    problem: Problem,
    rates: Tensor,
    times: Tensor,
    loss: str | float,
    activation: str | float,
    observe: dict[str, Callable[[Problem], Tensor]],
    advance: Callable[[int], object],
) -> tuple[list[Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Train J networks in place, the j-th with learning rate rates[j].

    Returns:
        Final parameters, each (J, …); the recorded fields of `Trajectory`, each (J, …); the observables, each (J, τ,
        …).
    """
    runs, steps, recorded = len(rates), int(times[-1]), set(times.tolist())
    observe = {**observe, "squared_norms": lambda networks: squared_norms(networks.parameters)}
    losses = _missing(steps + 1, runs)
    gradient_norms = _missing(steps + 1, runs, len(problem.parameters))
    observed: dict[str, Tensor] = {}
    alive = torch.arange(runs)
    taken = 0

    for start in range(0, steps + 1, BLOCK):
        stop = min(start + BLOCK, steps + 1)
        negative_rates = -rates[alive].to(problem.inputs)
        factors = [negative_rates.view(-1, *[1] * (p.dim() - 1)) for p in problem.parameters]
        values, norms, snapshots = [], [], {name: [] for name in observe}
        for step in range(start, stop):
            value, gradients = loss_and_gradients(problem, loss, activation)
            values.append(value)
            norms.append(squared_norms(gradients))
            if step in recorded:
                for name, observable in observe.items():
                    snapshots[name].append(observable(problem).clone())
            if step < steps:
                for parameter, gradient, factor in zip(problem.parameters, gradients, factors, strict=True):
                    parameter.addcmul_(gradient, factor)

        losses[start:stop, alive] = torch.stack(values).to(losses)
        gradient_norms[start:stop, alive] = torch.stack(norms).to(losses)
        count = len(snapshots["squared_norms"])
        for name, tensors in snapshots.items() if count else ():
            history = observed.setdefault(name, _missing(len(times), runs, *tensors[0].shape[1:]))
            history[taken : taken + count, alive] = torch.stack(tensors).to(losses)
        taken += count
        advance((stop - start) * runs)

        finite = losses[start:stop, alive].isfinite().all(0)
        if not finite.all():
            alive, problem = alive[finite], problem.select(finite.nonzero().flatten())
        if len(alive) == 0:
            advance((steps + 1 - stop) * runs)
            break

    broken = ~losses.isfinite()
    dead = broken.cumsum(0) > 0
    losses[dead] = gradient_norms[dead] = math.nan
    for history in observed.values():
        history[dead[times]] = math.nan
    final = [_missing(runs, *parameter.shape[1:], dtype=parameter.dtype) for parameter in problem.parameters]
    for end, parameter in zip(final, problem.parameters, strict=True):
        end[alive] = parameter.cpu()
    records = {
        "loss": losses[times].mT,
        "squared_norms": observed.pop("squared_norms").movedim(0, 1),
        "squared_gradient_norms": gradient_norms[times].movedim(0, 1),
        "squared_gradient_sums": gradient_norms[:-1].sum(0),
        "loss_before_last_update": losses[-2],
        "diverged_at": torch.where(broken.any(0), broken.int().argmax(0), -1),
    }
    return final, records, {name: history.movedim(0, 1) for name, history in observed.items()}


def _missing(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return a tensor to be filled in; what is not, is NaN."""
    return torch.full(shape, math.nan, dtype=dtype)
