"""Tables: one row per trained network, and our numbers beside the published ones."""

import numpy as np
import pandas as pd

from conslaw.record import NOTEBOOKS
from conslaw.trajectory import Trajectory

__all__ = ["beside_published", "run_table"]


def run_table(
    trajectory: Trajectory,
    seeds: list[int],
    *,
    loss: str | float,
    activation: str | float = "relu",
    dataset: str = "gaussian",
    optimizer: str = "gd",
    **columns,
) -> pd.DataFrame:
    """List the runs of a trajectory, one row each.

    Args:
        trajectory: R × M networks after training.
        seeds: Their M seeds.
        loss: Name or weight of the loss.
        activation: Name or weight of the activation.
        dataset: Name of the data set.
        optimizer: Name of the optimizer.
        **columns: What was measured besides: numbers, or arrays that broadcast to (R, M).

    Returns:
        R·M rows with the columns dataset, n, dim, width, depth, activation, loss, optimizer, seed, eta, steps, dtype,
        drift, imbalance_sum, loss_final, diverged_at, and the given ones. Drift is signed. With more than two layers,
        drift_1, drift_2, … and imbalance_sum_1, … stand for each pair of layers. loss_final is the loss before the
        last update.
    """
    problem = trajectory.problem
    rates = trajectory.learning_rates.numpy()
    width = problem.weights[0].shape[1]
    common = {
        "dataset": dataset,
        "n": problem.samples,
        "dim": problem.inputs.shape[1],
        "width": width,
        "depth": trajectory.depth,
        "activation": activation,
        "loss": loss,
        "optimizer": optimizer,
        "seed": np.array(seeds),
        "eta": rates,
        "steps": int(trajectory.times[-1]),
        "dtype": str(problem.inputs.dtype).removeprefix("torch."),
    }
    pairs = range(trajectory.depth - 1)
    for name, values in (("drift", trajectory.drift), ("imbalance_sum", trajectory.imbalance_sum)):
        for pair in pairs:
            common[name if len(pairs) == 1 else f"{name}_{pair + 1}"] = values[..., pair].numpy()
    common["loss_final"] = trajectory.loss_before_last_update.numpy()
    common["diverged_at"] = trajectory.diverged_at.numpy()
    return pd.DataFrame(
        {key: np.broadcast_to(value, rates.shape).ravel() for key, value in {**common, **columns}.items()}
    )


def beside_published(runs: pd.DataFrame, name: str, column: str = "drift") -> pd.DataFrame:
    """Put the published per-seed values of a notebook beside ours.

    Args:
        runs: Our runs, one row each.
        name: Name of the notebook; its published values are in notebooks/published/<name>.csv.
        column: The quantity; published drifts are absolute values.

    Returns:
        The runs that were published, with the key columns, `published`, `here` and `relative_error`.
    """
    published = pd.read_csv(NOTEBOOKS / "published" / f"{name}.csv")
    keys = [key for key in published if key != column]
    both = published.rename(columns={column: "published"}).merge(runs[[*keys, column]], on=keys)
    both = both.rename(columns={column: "here"})
    both["here"] = both["here"].abs()
    both["relative_error"] = both["here"] / both["published"] - 1
    return both
