"""A worked example of a sweep: figure 1b with up to 1000 seeds, its intervals, and how its cost grows.

Run it as it is for the cores of this machine, or with --scheduler ADDRESS for a cluster of dask.distributed.
"""

import json
import os
import time
from pathlib import Path

import click
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from conslaw import fit_power_law
from conslaw.paper.plotting import BLUE, GREY, RED, use_style
from conslaw.paper.provenance import provenance
from conslaw.paper.sweep import cluster, sweep
from conslaw.theory.power_laws import bootstrap_exponent

RATES = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 0.5, 1.0]
WINDOW = (1e-3, 0.1)  # where training converges stably


def measure(seeds: int, steps: int, scheduler: str | None) -> list[dict]:
    """Train ever more seeds; after each batch fit all of them."""
    counts = [count for count in (10, 30, 100, 300, 1000) if count < seeds] + [seeds]
    rows, runs, taken, spent = [], [], 0, 0.0
    with cluster(scheduler) as client:
        executor = client.get_executor() if client else None
        for count in counts:
            start = time.perf_counter()
            runs.append(sweep(range(taken, count), RATES, steps, executor=executor, progress=f"{count} seeds"))
            spent += time.perf_counter() - start
            taken = count
            drift = pd.concat(runs).pivot(index="eta", columns="seed", values="drift").abs()
            row = {"seeds": count, "seconds": round(spent, 1)}
            for name, window in (("all", (0, np.inf)), ("stable", WINDOW)):
                fit = fit_power_law(drift.index, drift.to_numpy().mean(1), window)
                low, high = bootstrap_exponent(drift.index, drift.to_numpy(), window=window)
                row |= {f"alpha_{name}": fit.exponent, f"low_{name}": low, f"high_{name}": high}
            rows.append(row)
            click.echo(row)
    return rows


def draw(rows: list[dict], path: Path) -> None:
    """Plot cost and intervals against the number of seeds."""
    use_style()
    table = pd.DataFrame(rows)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8))
    left.plot(table.seeds, table.seconds, color=BLUE, marker="o", label="measured, in total")
    proportional = table.seeds * table.seconds.iloc[-1] / table.seeds.iloc[-1]
    left.plot(table.seeds, proportional, color=GREY, linestyle=":", marker="", label="∝ seeds")
    left.set(xscale="log", yscale="log", xlabel="seeds", ylabel="seconds", title="(a) cost")
    left.legend()
    for name, colour, marker in (("all", RED, "o"), ("stable", BLUE, "s")):
        alpha = table[f"alpha_{name}"]
        bars = [alpha - table[f"low_{name}"], table[f"high_{name}"] - alpha]
        label = {"all": "all ten η", "stable": f"η from {WINDOW[0]:g} to {WINDOW[1]:g}"}[name]
        right.errorbar(table.seeds, alpha, bars, color=colour, marker=marker, capsize=3, label=label)
    right.set(xscale="log", xlabel="seeds", ylabel=r"drift exponent $\alpha$", title="(b) 95 % interval over seeds")
    right.legend()
    figure.savefig(path, metadata={"Software": None})


@click.command()
@click.option("--seeds", default=1000)
@click.option("--steps", default=2000)
@click.option("--scheduler", metavar="ADDRESS", help="Of a dask.distributed cluster.")
def main(seeds: int, steps: int, scheduler: str | None) -> None:
    """Measure, and write results/seeds.json and .png."""
    rows = measure(seeds, steps, scheduler)
    result = {
        "sweep": rows,
        "environment": {
            "torch": torch.__version__,
            "device": provenance()["processor"],
            "cores": os.cpu_count(),
            "steps": steps,
        },
    }
    results = Path(__file__).parent / "results"
    (results / "seeds.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    draw(rows, results / "seeds.png")


if __name__ == "__main__":
    main()
