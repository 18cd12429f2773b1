"""Speed of the core beside the published way: one network, nn.Module, autograd, torch.optim.SGD, double backward.

Both run in one process on the same machine, in turns, and the best of several repeats counts. Only ratios mean anything
on another machine.
"""

import json
import platform
import time
from pathlib import Path

import click
import torch

from conslaw import (
    Problem,
    Trajectory,
    dense_hessian,
    draw,
    gradient_descent,
    sharpness,
)

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


def published_way(problem: Problem, rate: float, steps: int) -> float:
    """Train the first network of a problem as the published scripts do; return its drift."""
    inner = [torch.nn.ReLU()] if problem.activation == "relu" else []
    device, dtype = problem.inputs.device, problem.inputs.dtype
    layers = [torch.nn.Linear(w.shape[2], w.shape[1], bias=False) for w in problem.weights]
    network = torch.nn.Sequential(layers[0], *inner, layers[1]).to(device, dtype)
    with torch.no_grad():
        for layer, weight in zip(layers, problem.weights, strict=True):
            layer.weight.copy_(weight[0])
    inputs, targets = problem.inputs[0].T.contiguous(), problem.targets[0].T.contiguous()
    criterion = torch.nn.MSELoss() if problem.loss == "mse" else torch.nn.CrossEntropyLoss()
    targets = targets if problem.loss == "mse" else targets.argmax(1)
    optimizer = torch.optim.SGD(network.parameters(), lr=rate)

    def conserved() -> float:
        first, second = (layer.weight.detach().square().sum() for layer in layers)
        return (second - first).item()

    start = conserved()
    for _ in range(steps):
        optimizer.zero_grad()
        criterion(network(inputs), targets).backward()
        optimizer.step()
    return conserved() - start


def seconds(function, device: str) -> tuple[float, object]:
    """Time one call."""
    if device == "cuda":
        torch.cuda.synchronize()  # what is still running is not this call's
    start = time.perf_counter()
    result = function()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def compare(case: dict, device: str, steps: int, repeats: int) -> dict:
    """Measure one case both ways, in microseconds per network and step."""
    problem = draw(SEEDS, loss=case["loss"], activation=case["activation"], device=device)

    def both(steps: int) -> tuple[float, float, float, Trajectory]:
        time_one, drift = seconds(lambda: published_way(problem, case["rates"][4], steps), device)
        time_many, run = seconds(lambda: gradient_descent(problem, case["rates"], steps, record_every=steps), device)
        return time_one / steps * 1e6, time_many / steps / run.drift.numel() * 1e6, drift, run

    both(steps=20)  # a first run warms up
    *times, drifts, runs = zip(*(both(steps) for _ in range(repeats)), strict=True)
    one, many = (sorted(times) for times in times)
    drift, run = drifts[-1], runs[-1]
    error = abs(run.drift[4, 0, 0].item() - drift) / run.squared_norms[4, 0, 0].sum().item()
    if not error <= 1e-9:
        raise click.ClickException(f"the two ways disagree: relative difference {error:.1e}")
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


def hessians(device: str, repeats: int) -> dict:
    """Measure Hessians of one network with 1600 parameters, in milliseconds, beside double backward as published."""
    problem = draw(SEEDS[:1], device=device)
    inputs, labels = problem.inputs[0].T.contiguous(), problem.targets[0].argmax(0)
    sizes = [p.numel() for p in problem.parameters]
    linear = torch.nn.functional.linear

    def double_backward(vector: torch.Tensor) -> torch.Tensor:
        first, second = parameters = [p[0].detach().requires_grad_() for p in problem.parameters]
        loss = torch.nn.functional.cross_entropy(linear(torch.relu(linear(inputs, first)), second), labels)
        gradients = torch.autograd.grad(loss, parameters, create_graph=True)
        product = sum((g.flatten() * v).sum() for g, v in zip(gradients, vector.split(sizes), strict=True))
        return torch.cat([g.flatten() for g in torch.autograd.grad(product, parameters)])

    def power_iteration() -> float:
        vector = torch.randn(sum(sizes), generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(device)
        for _ in range(50):
            vector = double_backward(vector / vector.norm())
        vector = vector / vector.norm()
        return (vector @ double_backward(vector)).item()

    identity = torch.eye(sum(sizes), dtype=torch.float64, device=device)
    exact = torch.linalg.eigvalsh(dense_hessian(problem).matrix)[0, -1].item()
    error = abs(power_iteration() / exact - 1)
    tolerance = max(error, 1e-14) ** 0.5  # an eigenvalue's error is of the order of its residual squared
    batch = draw(SEEDS, device=device)
    methods = {
        "products_in_a_loop_ms": lambda: torch.stack([double_backward(row) for row in identity]),
        "dense_hessian_ms": lambda: dense_hessian(problem).matrix,
        "dense_hessian_and_eigenvalues_ms": lambda: torch.linalg.eigvalsh(dense_hessian(problem).matrix),
        "power_iteration_ms": power_iteration,
        "lanczos_of_five_networks_ms": lambda: sharpness(batch, tolerance=tolerance),
    }
    times = {name: [] for name in methods}
    for _ in range(repeats):
        for name, method in methods.items():
            times[name].append(seconds(method, device)[0] * 1e3)
    best = {name: round(min(values), 2) for name, values in times.items()}
    whole = best["products_in_a_loop_ms"]
    return best | {
        "ratio_dense": round(whole / best["dense_hessian_ms"], 1),
        "ratio_dense_and_eigenvalues": round(whole / best["dense_hessian_and_eigenvalues_ms"], 1),
        "ratio_top_eigenvalue": round(len(SEEDS) * best["power_iteration_ms"] / best["lanczos_of_five_networks_ms"], 1),
        "relative_error_of_power_iteration": float(f"{error:.0e}"),
        "relative_error_of_lanczos": float(
            f"{abs(sharpness(batch, tolerance=tolerance).value[0].item() / exact - 1):.0e}"
        ),
    }


def processor() -> str:
    """Name the processor."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def environment(device: str) -> dict:
    """Say on what was measured."""
    blas = [line.strip("- ") for line in torch.__config__.show().splitlines() if "MKL" in line or "BLAS" in line]
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "blas": blas[0] if blas else "unknown",
        "device": torch.cuda.get_device_name() if device == "cuda" else processor(),
        "threads": torch.get_num_threads(),
        "dtype": "float64",
    }


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
    result["Hessian, 1600 parameters"] = hessians(device, repeats)
    result["environment"] = environment(device)
    output = output or Path(__file__).parent / "results" / f"{device}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    click.echo(output.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
