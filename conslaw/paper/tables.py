"""Tables: one row per trained network, and our numbers beside the published ones."""

from numbers import Real

import numpy as np
import pandas as pd

from conslaw.paper import notebooks
from conslaw.paper.agreement import FLOAT32_UNIT
from conslaw.paper.records import Record
from conslaw.training.optimizers import optimizer_name
from conslaw.training.trajectory import Trajectory

__all__ = ["beside_published", "run_table"]


def run_table(trajectory: Trajectory, **columns) -> pd.DataFrame:
    """List the runs of a trajectory, one row each; what they are, the trajectory knows.

    Args:
        trajectory: R × M networks after training.
        **columns: What was measured besides: numbers, or arrays that broadcast to (R, M).

    Returns:
        R·M rows with the columns dataset, n, dim, width, depth, activation, loss, optimizer, seed, eta, steps, dtype,
        drift, imbalance_sum, squared_weights, loss_final, energy_ratio, diverged_at, and the given ones. Drift is
        signed. With more than two layers, drift_1, drift_2, … and imbalance_sum_1, … stand for each pair of layers.
        squared_weights is Σ‖W_l‖² at the start, loss_final the loss before the last update. The seed is missing where
        weights were not drawn.
    """
    problem, activation = trajectory.problem, trajectory.problem.activation
    rates = trajectory.learning_rates.numpy()
    seeds = problem.origin.seeds or [None] * len(problem)
    common = {
        "dataset": problem.origin.dataset,
        "n": problem.samples,
        "dim": problem.widths[0],
        "width": problem.widths[1],
        "depth": problem.depth,
        "activation": activation if isinstance(activation, str | Real) else "own",
        "loss": problem.loss,
        "optimizer": optimizer_name(trajectory.optimizer),
        "seed": np.array(seeds),
        "eta": rates,
        "steps": int(trajectory.times[-1]) if trajectory.optimizer != "flow" else None,
        "dtype": str(problem.inputs.dtype).removeprefix("torch."),
    }
    pairs = range(problem.depth - 1)
    for name, values in (("drift", trajectory.drift), ("imbalance_sum", trajectory.imbalance_sum)):
        for pair in pairs:
            common[name if len(pairs) == 1 else f"{name}_{pair + 1}"] = values[..., pair].numpy()
    common["squared_weights"] = trajectory.squared_norms[:, :, 0, : problem.depth].sum(2).numpy()
    common["loss_final"] = trajectory.loss_before_last_update.numpy()
    common["energy_ratio"] = trajectory.energy_ratio.numpy()
    common["diverged_at"] = trajectory.diverged_at.numpy()
    return pd.DataFrame(
        {key: np.broadcast_to(value, rates.shape).ravel() for key, value in {**common, **columns}.items()}
    )


def beside_published(
    record: Record, runs: pd.DataFrame, column: str = "drift", suffix: str = "", rounded: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Put the published per-seed values of a notebook beside ours; the record keeps the comparison for `agreement`.

    Only the published run is compared. In a variant our numbers stand alone: published values are nan, and nothing is
    kept.

    Args:
        record: Record of the notebook. Its published values are in notebooks/published/<name>[_<suffix>].csv.
        runs: Our runs, one row each. The rounding of float32 that `agreement` expects is taken from the column
            rounding_unit, if there is one, and for drifts from squared_weights.
        column: The quantity; published drifts are absolute values.
        suffix: For further files of published values.
        rounded: The same runs, or some of them, in float32, to see how far rounding alone carries.

    Returns:
        The runs that were published, in a variant all, with the key columns, `published`, `here` and `relative_error`;
        if there are rounded ones, also `rounding`, the relative difference between our float32 and float64, the largest
        over seeds.

    Raises:
        ValueError: If a published value has no run, or more than one.
    """
    name = f"{record.name}_{suffix}" if suffix else record.name
    published = pd.read_csv(notebooks.NOTEBOOKS / "published" / f"{name}.csv", encoding="utf-8")
    keys = [key for key in published if key != column]
    ours = runs[[*keys, column]].rename(columns={column: "here"})
    if record.is_default:
        both = published.rename(columns={column: "published"}).merge(ours, on=keys)
        if len(both) != len(published) or both.duplicated(keys).any():
            raise ValueError(f"runs must have each of the {len(published)} rows of {name}.csv once, got {len(both)}")
    else:
        both = ours.drop_duplicates(keys, ignore_index=True)
        both.insert(len(keys), "published", np.nan)
    both["here"] = both["here"].abs()
    both["relative_error"] = both["here"] / both["published"] - 1
    if rounded is not None:
        both = both.merge(rounded[[*keys, column]].rename(columns={column: "rounding"}), on=keys, how="left")
        both["rounding"] = (both["rounding"].abs() / both["here"] - 1).abs()
        both["rounding"] = both.groupby([key for key in keys if key != "seed"])["rounding"].transform("max")
    if record.is_default:
        record.compare(_kept(both, keys, column, runs))
    return both


def _kept(both: pd.DataFrame, keys: list[str], column: str, runs: pd.DataFrame) -> pd.DataFrame:
    """Name quantity and key of each comparison, and add the unit of its rounding."""
    kept = both.assign(
        quantity=both.get("quantity", column),
        key=both[[key for key in keys if key != "quantity"]].apply(
            lambda row: ", ".join(f"{key} = {value}" for key, value in row.items()), axis=1
        ),
    )
    if column == "drift" and "squared_weights" in runs:
        runs = runs.assign(rounding_unit=FLOAT32_UNIT * runs["squared_weights"])
    return kept.merge(runs[[*keys, "rounding_unit"]], on=keys) if "rounding_unit" in runs else kept
