"""Speed of the core beside the published way: one network, nn.Module, autograd, torch.optim.SGD.

Both run in one process on the same machine, in turns, and the best of several repeats counts. Only ratios mean anything
on another machine.
"""

import json
from pathlib import Path

import click
from machine import environment, seconds
from peers import difference, published_way

from conslaw import draw, gradient_descent

SEEDS = [42, 137, 256, 512, 1024]
CASES = {
    "relu, cross-entropy": {
        "loss": "cross_entropy",
        "activation": "relu",
        "rates": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 0.5, 1.0],
    },
    "linear, squared error": {
        "loss": "mse",
        "activation": "linear",
        "rates": [1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 3e-2, 5e-2],
    },
}
WIDTHS = [16, 24, 32, 48, 64, 96, 128, 192]


def compare(case: dict, device: str, steps: int, repeats: int) -> dict:
    """Measure one case both ways, in microseconds per network and step."""
    problem = draw(SEEDS, loss=case["loss"], activation=case["activation"], device=device)

    def both(steps: int) -> tuple[float, float, float]:
        time_one, weights = seconds(published_way(problem.select([0]), case["rates"][4], steps), device)
        time_many, run = seconds(lambda: gradient_descent(problem, case["rates"], steps, record_every=steps), device)
        own = tuple(parameter[4, :1] for parameter in run.parameters)
        return time_one / steps * 1e6, time_many / steps / run.drift.numel() * 1e6, difference(weights, own)

    both(steps=20)  # a first run warms up
    *times, differences = zip(*(both(steps) for _ in range(repeats)), strict=True)
    one, many = (sorted(times) for times in times)
    if not max(differences) <= 1e-9:
        raise click.ClickException(f"the two ways disagree: relative difference {max(differences):.1e}")
    return {
        "networks": len(case["rates"]) * len(SEEDS),
        "steps": steps,
        "published_way_us": round(one[0], 2),
        "core_us": round(many[0], 2),
        "ratio": round(one[0] / many[0], 2),
        "ratio_of_medians": round(one[repeats // 2] / many[repeats // 2], 2),
    }


def width_sweep(device: str, steps: int) -> None:
    """Train the 240 networks of row E19."""
    for width in WIDTHS:
        problem = draw(SEEDS, (20, width, 5), loss="mse", activation="linear", device=device)
        rates = [3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1]
        gradient_descent(problem, rates, steps, record_every=steps)


@click.command()
@click.option("--device", default="cpu", type=click.Choice(["cpu", "cuda"]))
@click.option("--steps", default=1000, help="Steps of each comparison.")
@click.option("--repeats", default=5)
@click.option("--output", type=click.Path(path_type=Path), help="Default: results/<device>.json beside this file.")
def main(device: str, steps: int, repeats: int, output: Path | None) -> None:
    """Compare the core with the published way of training and write the numbers."""
    result = {name: compare(case, device, steps, repeats) for name, case in CASES.items()}
    width_sweep(device, 10)
    sweep = [seconds(lambda: width_sweep(device, 2000), device)[0] for _ in range(2)]
    result["E19, 240 networks, 2000 steps"] = {"seconds": round(min(sweep), 2)}
    result["environment"] = environment(device)
    output = output or Path(__file__).parent / "results" / f"{device}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    click.echo(output.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
