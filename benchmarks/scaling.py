"""Time of a step per network for the core and its peers, by the number of networks, and the bound set by this machine.

20 → 64 → 5 ReLU networks under cross-entropy, n = 200, float64. All ways are measured in turns: on one core; on two
cores by one process with two threads; and there by two processes with half of the networks each. The weights after some
steps must be those of the core. The bound is the time that the machine's own product of large matrices, by torch or by
numpy, takes for the floating-point operations of a step: 6 n per weight, less the product back to the inputs.
"""

import json
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import click
import matplotlib.pyplot as plt
import torch
from machine import cores, environment, process_on, seconds
from matplotlib.axes import Axes
from peers import TRAINING, difference, missing

from conslaw import draw
from conslaw.paper.plotting import BLACK, BLUE, GREEN, ORANGE, PURPLE, RED, SKY, ticks_at, use_style

RATE = 0.01
OPERATIONS = 200 * (4 * 20 * 64 + 6 * 64 * 5)
CHECKED = 20
"""Steps after which weights are compared."""
WORK = {
    "core": 50000,
    "published_way": 2000,
    "vmap": 8000,
    "torch_compile": 10000,
    "jax_vmap": 25000,
    "jax_one_by_one": 40000,
    "product_torch": 20,
    "product_numpy": 20,
}
"""Steps of all networks together, or products: a second or so, as virtual machines wake a second core for long work."""
MOST_STEPS = {"vmap": 1000, "torch_compile": 2000}
"""Of few networks, where each step waits for Python."""
SPLIT = ("core", "jax_vmap", "jax_one_by_one", "product_torch", "product_numpy")
"""What is also measured in two processes."""
ON = {"one core": ["one core"], "two cores": ["two threads", "two processes"], "GPU": ["GPU"]}
"""Configurations that have the same cores."""
LINES = {
    "published_way": ("published way, one after another", RED, "o"),
    "vmap": ("torch.func.vmap", GREEN, "s"),
    "torch_compile": ("its step by torch.compile", ORANGE, "D"),
    "jax_vmap": ("JAX, vmap of scan", PURPLE, "v"),
    "jax_one_by_one": ("JAX, map of scans", SKY, "P"),
    "core": ("conslaw", BLUE, "^"),
}

prepared: dict[str, Callable] = {}
"""In a process that measures: what is timed."""


def prepare(way: str, seeds: range, device: str) -> tuple[float, float]:
    """Prepare to train networks, or to multiply matrices.

    Returns:
        How many steps of a network a call takes, and the difference of its weights from those of the core.
    """
    if way.startswith("product"):
        size = 1024 if device == "cpu" else 4096
        matrix = torch.randn(size, size, dtype=torch.float64, device=device)
        matrix = matrix if way == "product_torch" else matrix.numpy()
        prepared[way] = lambda: [matrix @ matrix for _ in range(WORK[way])]
        return WORK[way] * 2 * size**3 / OPERATIONS, 0.0
    # One network after another: what it takes does not depend on how many there are.
    problem = draw(seeds[:1] if way == "published_way" else seeds, device=device)
    weights, expected = (TRAINING[name](problem, RATE, CHECKED)() for name in (way, "core"))
    steps = min(MOST_STEPS.get(way, WORK[way]), max(20, WORK[way] // len(problem)))
    prepared[way] = TRAINING[way](problem, RATE, steps)
    return steps * len(problem), difference(weights, expected)


def measure(way: str, device: str) -> tuple[float, float]:
    """Return the seconds that a call takes, and the seconds that cores work on it."""
    start = time.process_time()
    total, _ = seconds(prepared[way], device)
    return total, time.process_time() - start


class Configuration:
    """Processes that share the networks, and what training takes there, in microseconds per step and network."""

    def __init__(self, processes: list[ProcessPoolExecutor], ways: list[str], device: str):
        self.processes, self.device = processes, device
        self.times = {way: {"us": [], "core_us": []} for way in ways}
        self._units, self._repeats = {}, {}

    def prepare(self, count: int) -> None:
        """Prepare all ways to train so many networks, and check that they give the weights of the core."""
        parts = [range(count)[i :: len(self.processes)] for i in range(len(self.processes))]
        self._repeats = {way: [] for way in self.times if parts[-1]}
        for way in self._repeats:
            units, differences = zip(*self._call(prepare, [(way, part, self.device) for part in parts]), strict=True)
            if not max(differences) <= 1e-10:
                raise click.ClickException(f"{way} trains otherwise than the core: difference {max(differences):.0e}")
            self._units[way] = sum(units)

    def measure(self) -> None:
        """Measure all ways once, one after another."""
        for way, repeats in self._repeats.items():
            walls, works = zip(*self._call(measure, [(way, self.device)] * len(self.processes)), strict=True)
            repeats.append([time / self._units[way] * 1e6 for time in (max(walls), sum(works))])

    def keep(self) -> dict[str, float | None]:
        """Keep the best of the repeats; return the times."""
        for way, columns in self.times.items():
            best = map(min, zip(*self._repeats[way], strict=True)) if way in self._repeats else (None, None)
            for column, value in zip(columns.values(), best, strict=True):
                column.append(value and round(value, 2))
        return {way: columns["us"][-1] for way, columns in self.times.items()}

    def _call(self, function: Callable, arguments: list[tuple]) -> list:
        """Call a function in all processes at once."""
        calls = [process.submit(function, *own) for process, own in zip(self.processes, arguments, strict=True)]
        return [call.result() for call in calls]


def configurations(device: str, stack: ExitStack) -> dict[str, Configuration]:
    """Start the processes, and leave out what they cannot run."""
    if device == "cuda":
        cores_of = {"GPU": [()]}
    elif not cores():
        raise click.ClickException("processes cannot be bound to cores here; Linux can")
    else:
        first, *second = cores()[:2]
        both = {"two threads": [(first, *second)], "two processes": [(first,), tuple(second)]}
        cores_of = {"one core": [(first,)]} | (both if second else {})
    started = {
        own: stack.enter_context(process_on(own)) for own in {part for parts in cores_of.values() for part in parts}
    }
    ways = [way for way in WORK if (way, device) != ("product_numpy", "cuda")]
    for way in TRAINING:
        if message := next(iter(started.values())).submit(missing, way, device).result():
            click.echo(f"without {way}: {message}")
            ways.remove(way)
    return {
        name: Configuration(
            [started[part] for part in parts], [way for way in ways if len(parts) == 1 or way in SPLIT], device
        )
        for name, parts in cores_of.items()
    }


def run(device: str, counts: list[int], repeats: int) -> dict[str, dict]:
    """Measure everything."""
    with ExitStack() as stack:
        chosen = configurations(device, stack)
        for count in counts:
            for configuration in chosen.values():
                configuration.prepare(count)
            for _ in range(repeats):
                for configuration in chosen.values():
                    configuration.measure()
            for name, configuration in chosen.items():
                click.echo(f"{count} networks, {name}: {configuration.keep()}")
        return {name: configuration.times for name, configuration in chosen.items()}


def best(times: dict, names: list[str], start: str, at: int) -> float | None:
    """Return the shortest time, in some configurations, of the ways whose names start so."""
    found = [row["us"][at] for name in names for way, row in times[name].items() if way.startswith(start)]
    return min(filter(None, found), default=None)


def ratios(times: dict, at: int) -> dict[str, dict]:
    """Compare the core in each configuration with the best that others do with the same cores."""
    found = {}
    for together in ON.values():
        names = [name for name in together if name in times and times[name]["core"]["us"][at]]
        for name in names:
            ours = times[name]["core"]["us"][at]
            others = {way: best(times, names, way, at) for way in ("published_way", "vmap", "torch_compile", "jax")}
            found[name] = {f"{way}_over_core": round(time / ours, 2) for way, time in others.items() if time}
            found[name]["core_over_bound"] = round(ours / best(times, names, "product", at), 2)
    return found


def draw_panel(ax: Axes, counts: list[int], times: dict, names: list[str]) -> None:
    """Draw the curves of configurations with the same cores; those of two processes are dotted."""
    for name in names:
        for way, (label, colour, marker) in LINES.items():
            if way in times[name]:
                values = [value or float("nan") for value in times[name][way]["us"]]
                split = name == "two processes"
                style = {"linestyle": ":", "markerfacecolor": "white"} if split else {"label": label}
                ax.plot(counts, values, color=colour, marker=marker, zorder=3 if way == "core" else 2, **style)
    bound = [best(times, names, "product", at) for at in range(len(counts))]
    ax.plot(counts, bound, color=BLACK, linestyle="--", marker="", label="bound: large matrix product")
    ax.set(xscale="log", yscale="log", xlabel="networks trained together")
    ticks_at(ax, counts)


def plot(result: dict, path: Path) -> None:
    """Draw a panel for each number of cores."""
    use_style()
    panels = {title: [name for name in names if name in result["times"]] for title, names in ON.items()}
    panels = {title: names for title, names in panels.items() if names}
    figure, axes = plt.subplots(1, len(panels), figsize=(1.6 + 3.6 * len(panels), 4.6), sharey=True, squeeze=False)
    for ax, (title, names) in zip(axes[0], panels.items(), strict=True):
        draw_panel(ax, result["networks"], result["times"], names)
        ax.set_title(f"{title}; dotted: two processes" if "two processes" in names else title)
    axes[0, 0].set_ylabel("µs per network and step")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=1 + len(panels))
    figure.suptitle(f"{result['environment']['device']}, float64")
    figure.savefig(path, metadata={"Software": None})


@click.command()
@click.option("--device", default="cpu", type=click.Choice(["cpu", "cuda"]))
@click.option("--networks", multiple=True, type=int, help="Numbers of networks. Default: 1, 2, 4, …, 256.")
@click.option("--repeats", default=3)
@click.option("--output", type=click.Path(path_type=Path), help="Default: results/scaling_<device>.json.")
def main(device: str, networks: tuple[int, ...], repeats: int, output: Path | None) -> None:
    """Measure, and write the numbers and a plot of them beside."""
    counts = sorted(networks) or [2**k for k in range(9)] + ([1024, 4096] if device == "cuda" else [])
    times = run(device, counts, repeats)
    at = counts.index(64) if 64 in counts else len(counts) - 1
    result = {
        "networks": counts,
        "times": times,
        f"ratios at {counts[at]} networks": ratios(times, at),
        "environment": environment(device),
    }
    output = output or Path(__file__).parent / "results" / f"scaling_{device}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    plot(result, output.with_suffix(".png"))
    click.echo(json.dumps(result[f"ratios at {counts[at]} networks"], indent=1))


if __name__ == "__main__":
    main()
