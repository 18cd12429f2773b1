"""Time of the whole paper: its eleven panels, all notebooks, the start of a notebook, and figure 1b as published.

The notebooks are run as `make rebuild` runs them, and written. The subset that is also run in the published way, one
network after another, is the sweep of figure 1b: ten learning rates, five seeds, 2000 steps.
"""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import nbformat
from nbformat.v4 import new_code_cell, new_notebook
from speed import CASES, SEEDS, environment, published_way, seconds
from tqdm import tqdm

from conslaw import draw, gradient_descent
from conslaw.paper import ledger
from conslaw.paper.execution import PAPERMILL
from conslaw.paper.notebooks import notebook_names
from conslaw.paper.rebuild import rebuild


def start_of_notebook(source: str) -> float:
    """Seconds that papermill takes for a notebook with one cell."""
    with TemporaryDirectory() as folder:
        path = str(Path(folder) / "notebook.ipynb")
        nbformat.write(
            new_notebook(cells=[new_code_cell(source)], metadata={"language_info": {"name": "python"}}), path
        )
        options = json.dumps({"input_path": path, "output_path": path, "kernel_name": "python3", "progress_bar": False})
        run = [sys.executable, "-c", PAPERMILL]
        return seconds(
            lambda: subprocess.run(run, input=options, encoding="utf-8", check=True, capture_output=True), "cpu"
        )[0]


def figure_1b(steps: int = 2000) -> dict:
    """Train the networks of figure 1b both ways."""
    problem, case = draw(SEEDS), CASES["relu, cross-entropy"]
    alone = [problem.select([index]) for index in range(len(SEEDS))]
    published = sum(
        seconds(lambda n=network, r=rate: published_way(n, r, steps), "cpu")[0]
        for network in tqdm(alone, desc="published way", disable=None)
        for rate in case["rates"]
    )
    core, _ = seconds(lambda: gradient_descent(problem, case["rates"], steps, record_every=steps), "cpu")
    return {"published_way": round(published, 1), "core": round(core, 2), "ratio": round(published / core, 1)}


def timed_rebuild(names: list[str]) -> tuple[float, dict[str, float]]:
    """Run notebooks; return the seconds of all and of each, which share the cores."""
    total, outcomes = seconds(lambda: rebuild(names, force=True), "cpu")
    if failed := [f"{outcome.name}: {outcome.error}" for outcome in outcomes if outcome.status == "failed"]:
        raise click.ClickException("; ".join(failed))
    return total, {outcome.name: round(outcome.seconds, 1) for outcome in outcomes}


@click.command()
def main() -> None:
    """Measure, and write results/paper.json."""
    starts = {"empty": min(start_of_notebook("") for _ in range(3))}
    starts["import conslaw"] = min(start_of_notebook("import conslaw") for _ in range(3))
    subset = figure_1b()
    panels = [name for name in notebook_names() if name.startswith("fig")]
    of_panels, each = timed_rebuild(panels)
    of_rest, others = timed_rebuild([name for name in notebook_names() if name not in panels])
    ledger.write_table()
    result = {
        "seconds": {"panels": round(of_panels, 1), "all": round(of_panels + of_rest, 1)},
        "seconds_of_each": each | others,
        "start_of_a_notebook": {name: round(value, 2) for name, value in starts.items()},
        "figure_1b": subset,
        "environment": environment("cpu"),
    }
    path = Path(__file__).parent / "results" / "paper.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    click.echo(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
