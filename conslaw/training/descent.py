"""Full-batch gradient descent of many networks at once.

R learning rates × M networks are trained chunk by chunk (`chunk`): by batched matrix products of torch (`steps`), or
small ones on a CPU one by one and compiled (`compiled`).
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from conslaw.losses import cross_entropy_weight
from conslaw.networks import IDENTITY, activation_function
from conslaw.problems import Problem
from conslaw.training._chunk import Observable, chunks, descend
from conslaw.training.optimizers import Optimizer, optimizer_function
from conslaw.training.trajectory import Trajectory

__all__ = ["gradient_descent", "networks_at"]


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
    observe: Mapping[str, Observable | tuple[Observable, Sequence[int]]] | None = None,
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
        observe: More to record, by name: functions from a `Problem` of J networks in training to a tensor (J, …). A
            pair of one and of times, ascending from 0, is called at these instead of the recorded ones.
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
    watched = {}
    for name, what in (observe or {}).items():
        observable, own = what if isinstance(what, tuple) else (what, times.tolist())
        if list(own) != sorted({0, *own}) or own[-1] > steps:
            raise ValueError(f"times in observe[{name!r}] must ascend from 0 to at most {steps}, got {list(own)}")
        watched[name] = (observable, list(own))
    trained = problem
    if (
        activation_function(activation) is IDENTITY
        and cross_entropy_weight(loss) == 0
        and not (problem.biases or watched)
    ):
        trained = problem.reduced()  # a linear network under squared error: fewer columns, the same training

    with tqdm(
        total=(steps + 1) * len(seeds), desc=progress, unit_scale=True, disable=None if progress else True
    ) as bar:
        results = []
        for runs in chunks(trained, len(seeds)):
            chunk = trained.select(seeds[runs])
            results.append(descend(chunk, rates.flatten()[runs], times, loss, activation, step, watched, bar.update))

    def join(parts: Iterable[Tensor]) -> Tensor:
        return torch.cat(list(parts)).unflatten(0, rates.shape)

    parameters, records, observed = zip(*results, strict=True)
    return Trajectory(
        problem=problem,
        learning_rates=rates,
        times=times,
        parameters=tuple(join(parts) for parts in zip(*parameters, strict=True)),
        observed={name: join(part[name] for part in observed) for name in watched},
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
