"""Time per network and step against the number of networks trained together, and the bound set by this machine.

20 → 64 → 5 ReLU networks under cross-entropy, n = 200, float64. The bound is the time that the machine's own product of
large matrices takes for the floating-point operations of a step: 6 n per weight, less the product back to the inputs.
"""

import json
from pathlib import Path

import click
import matplotlib.pyplot as plt
import numpy as np
import torch
from speed import environment, published_way, seconds

from conslaw import draw, gradient_descent
from conslaw.paper.plotting import BLACK, BLUE, GREEN, RED, use_style

OPERATIONS = 200 * (4 * 20 * 64 + 6 * 64 * 5)


def vmapped(problem, rate: float, steps: int) -> None:
    """Train all networks of a problem with `torch.func.vmap` over `torch.func.grad`."""
    inputs, labels = problem.inputs.mT.contiguous(), problem.targets.argmax(1)

    def loss(weights, x, y):
        return torch.nn.functional.cross_entropy(torch.relu(x @ weights[0].T) @ weights[1].T, y)

    gradient = torch.func.vmap(torch.func.grad(loss))
    weights = tuple(weight.clone() for weight in problem.weights)
    for _ in range(steps):
        for weight, g in zip(weights, gradient(weights, inputs, labels), strict=True):
            weight.sub_(g, alpha=rate)


def bound(device: str) -> float:
    """Microseconds that a large product takes for the operations of one step; mean over as long as the rest runs."""
    size, times = 1024 if device == "cpu" else 4096, 20
    matrix = torch.randn(size, size, dtype=torch.float64, device=device)
    total, _ = seconds(lambda: [matrix @ matrix for _ in range(times)], device)
    return total / times / (2 * size**3) * OPERATIONS * 1e6


def measure(device: str, repeats: int) -> dict:
    """Measure everything, in microseconds per network and step."""
    counts = [1, 2, 4, 8, 16, 32, 64, 128, 256] + ([1024, 4096] if device == "cuda" else [])
    result = {"networks": counts, "core": [], "vmap": [], "published_way": [], "bound": []}
    single = draw([0], device=device)
    for count in counts:
        problem = draw(range(count), device=device)

        def per_step(function, work, count=count):
            steps = max(20, work // count)
            function(3)
            return seconds(lambda: function(steps), device)[0] / steps / count * 1e6

        # With the steps of all networks together: seconds, as virtual machines wake a second core for long work only.
        ways = {
            "core": (lambda n, p=problem: gradient_descent(p, 0.01, n, record_every=n), 50000),
            "vmap": (lambda n, p=problem: vmapped(p, 0.01, n), 8000),
        }
        times = {name: [] for name in [*ways, "published_way", "bound"]}
        for _ in range(repeats):
            for name, (way, work) in ways.items():
                times[name].append(per_step(way, work))
            # One network after another: what it takes does not depend on how many there are.
            published_way(single, 0.01, 3)
            one, _ = seconds(lambda: published_way(single, 0.01, 1000), device)
            times["published_way"].append(one / 1000 * 1e6)
            times["bound"].append(bound(device))
        for name, values in times.items():
            result[name].append(round(min(values), 2))
        click.echo({name: values[-1] for name, values in result.items()})
    return result


def plot(result: dict, path: Path) -> None:
    """Draw the four curves."""
    use_style()
    figure, ax = plt.subplots(figsize=(6.5, 4.2))
    names = {
        "published_way": ("published way, one after another", RED, "o", "-"),
        "vmap": ("torch.func.vmap", GREEN, "s", "-"),
        "core": ("conslaw", BLUE, "^", "-"),
        "bound": ("bound: large matrix product", BLACK, "", "--"),
    }
    for name, (label, colour, marker, line) in names.items():
        ax.plot(result["networks"], result[name], color=colour, marker=marker, linestyle=line, label=label)
    ax.set(xscale="log", yscale="log", xlabel="networks trained together", ylabel="µs per network and step")
    ax.set_title(f"{result['environment']['device']}, {result['environment']['threads']} threads, float64")
    ax.set_ylim(0.5 * min(result["bound"]), 10 * max(result["published_way"]))
    ax.legend(loc="upper right")
    figure.savefig(path, metadata={"Software": None})


@click.command()
@click.option("--device", default="cpu", type=click.Choice(["cpu", "cuda"]))
@click.option("--repeats", default=3)
def main(device: str, repeats: int) -> None:
    """Measure, and write results/scaling_<device>.json and .png."""
    result = measure(device, repeats) | {"environment": environment(device)}
    best = int(np.argmin(result["core"]))
    result["core_over_bound"] = round(result["core"][best] / result["bound"][best], 2)
    result["published_over_core"] = round(result["published_way"][best] / result["core"][best], 2)
    results = Path(__file__).parent / "results"
    (results / f"scaling_{device}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    plot(result, results / f"scaling_{device}.png")


if __name__ == "__main__":
    main()
