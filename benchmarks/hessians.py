"""Hessians by the core and its peers: the largest eigenvalue to the same residual, and the whole spectrum.

Every way stops as soon as ‖H v − λ v‖ ≤ 1e-8 λ: the core and ARPACK by their own estimate of it, the others after the
fewest steps that give it, which are found beforehand. Residuals are measured with the dense Hessian, and all
eigenvalues must be those of the core to 1e-8. Operators and compiled functions are made beforehand too. All are
measured in turns; peers take one network after another.
"""

import json
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import torch
from machine import environment, seconds
from peers import as_module, missing
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from conslaw import Problem, dense_hessian, draw, sharpness

CASES = {
    "20 → 64 → 5": ([42], (20, 64, 5)),
    "20 → 64 → 5, five networks": ([42, 137, 256, 512, 1024], (20, 64, 5)),
    "20 → 32 → 32 → 5": ([42], (20, 32, 32, 5)),
}
TOLERANCE = 1e-8


class Way(NamedTuple):
    """One way to find eigenvalues of the Hessian of one network with P parameters."""

    top: Callable[..., tuple[float, Tensor]]
    """Returns λ_max and its vector (P,); takes a number of steps where `stride` is not 0."""
    matrix: Callable[[], Tensor]
    """Returns the Hessian (P, P)."""
    stride: int = 0
    """Between the numbers of steps that are tried."""


def double_backward(network: torch.nn.Module, inputs: Tensor, labels: Tensor) -> Way:
    """As published: power iteration, and a product with each unit vector, with both backward passes in each product."""
    parameters = list(network.parameters())
    sizes = [p.numel() for p in parameters]

    def product(vector: Tensor) -> Tensor:
        loss = torch.nn.functional.cross_entropy(network(inputs), labels)
        gradients = torch.autograd.grad(loss, parameters, create_graph=True)
        along = sum((g.flatten() * v).sum() for g, v in zip(gradients, vector.split(sizes), strict=True))
        return torch.cat([g.flatten() for g in torch.autograd.grad(along, parameters)])

    def top(steps: int) -> tuple[float, Tensor]:
        vector = torch.randn(sum(sizes), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        vector = vector.to(inputs.device)
        for _ in range(steps - 1):
            vector = product(vector / vector.norm())
        vector = vector / vector.norm()
        return (vector @ product(vector)).item(), vector

    return Way(top, lambda: torch.stack([product(row) for row in identity(sum(sizes), inputs)]), stride=5)


def torch_compile(network: torch.nn.Module, inputs: Tensor, labels: Tensor) -> Way:
    """Forward over reverse differentiation, `torch.func.jvp` of `grad`, by torch.compile; eigenvalues by ARPACK."""
    weights = {name: parameter.detach() for name, parameter in network.named_parameters()}
    sizes = [weight.numel() for weight in weights.values()]

    def loss(weights: dict[str, Tensor]) -> Tensor:
        outputs = torch.func.functional_call(network, weights, (inputs,))
        return torch.nn.functional.cross_entropy(outputs, labels)

    def product(vector: Tensor) -> Tensor:
        parts = zip(weights.items(), vector.split(sizes), strict=True)
        direction = {name: part.view_as(weight) for (name, weight), part in parts}
        moved = torch.func.jvp(torch.func.grad(loss), (weights,), (direction,))[1]
        return torch.cat([moved[name].flatten() for name in weights])

    compiled = torch.compile(product, dynamic=False)
    matrix = torch.compile(torch.func.vmap(product), dynamic=False)
    unit = identity(sum(sizes), inputs)
    return Way(lambda: by_arpack(compiled, unit), lambda: matrix(unit))


def curvlinops(network: torch.nn.Module, inputs: Tensor, labels: Tensor) -> Way:
    """As its documentation has it: an operator, ARPACK, and a product with the identity.

    Of curvlinops 3.0.1 torch.compile can compile no whole product, so it is as fast without.
    """
    from curvlinops import HessianLinearOperator

    operator = HessianLinearOperator(
        network, torch.nn.CrossEntropyLoss(), list(network.parameters()), [(inputs, labels)], check_deterministic=False
    )
    unit = identity(operator.shape[0], inputs)
    return Way(lambda: by_arpack(operator.__matmul__, unit), lambda: operator @ unit)


def hessian_eigenthings(network: torch.nn.Module, inputs: Tensor, labels: Tensor) -> Way:
    """As its documentation has it: an operator and Lanczos; it makes no matrix, so a product with each unit vector."""
    from hessian_eigenthings import HessianOperator, lanczos, supervised_loss

    loss = supervised_loss(torch.nn.CrossEntropyLoss())
    operator = HessianOperator(network, [(inputs, labels)], loss)

    def top(steps: int) -> tuple[float, Tensor]:
        found = lanczos(operator, k=1, max_iter=steps, which="LA", reorthogonalize=True, seed=0)
        return found.eigenvalues[0].item(), found.eigenvectors[0]

    rows = identity(operator.size, inputs)
    return Way(top, lambda: torch.stack([operator.matvec(row) for row in rows]), stride=1)


PEERS = {
    "double_backward": double_backward,
    "torch_compile": torch_compile,
    "curvlinops": curvlinops,
    "hessian_eigenthings": hessian_eigenthings,
}


def identity(size: int, like: Tensor) -> Tensor:
    """Return the identity matrix."""
    return torch.eye(size, dtype=like.dtype, device=like.device)


def by_arpack(product: Callable[[Tensor], Tensor], like: Tensor) -> tuple[float, Tensor]:
    """Find the largest eigenvalue with `scipy.sparse.linalg.eigsh`."""
    operator = LinearOperator(
        like.shape, lambda vector: product(torch.as_tensor(vector).to(like)).cpu().numpy(), dtype=np.float64
    )
    start = np.random.default_rng(0).standard_normal(len(like))
    values, vectors = eigsh(operator, 1, which="LA", tol=TOLERANCE, v0=start)
    return values[0], torch.as_tensor(vectors[:, 0]).to(like)


def prepared(way: Way, hessian: Tensor) -> Way:
    """Find the fewest steps that give the residual."""
    if not way.stride:
        return way
    for steps in count(way.stride, way.stride):
        if residual(hessian, *way.top(steps)) <= TOLERANCE:
            return way._replace(top=partial(way.top, steps))


def residual(hessian: Tensor, value: float, vector: Tensor) -> float:
    """Return ‖H v − λ v‖ / |λ|."""
    return float((hessian @ vector - value * vector).norm() / abs(value))


def available(device: str) -> Iterator[str]:
    """Yield the names of the peers that run here, and say what the others lack."""
    for name in PEERS:
        message = missing(name, device)
        if name in ("curvlinops", "hessian_eigenthings") and not find_spec(name):
            message = f"{name} is not installed: pip install 'conslaw[benchmarks]'"
        if message:
            click.echo(f"without {name}: {message}")
        else:
            yield name


def compare(problem: Problem, names: list[str], device: str, repeats: int) -> dict:
    """Measure one case, in milliseconds for all its networks."""
    exact = dense_hessian(problem).matrix
    spectrum = torch.linalg.eigvalsh(exact)
    torch.compiler.reset()
    peers = {
        name: [prepared(PEERS[name](*as_module(problem, m)), hessian) for m, hessian in enumerate(exact)]
        for name in names
    }

    def top_of_core() -> list[tuple[float, Tensor]]:
        found = sharpness(problem, tolerance=TOLERANCE)
        return list(zip(found.value, found.vector, strict=True))

    tops = {"core": top_of_core} | {name: lambda ways=ways: [w.top() for w in ways] for name, ways in peers.items()}
    matrices = {"core": lambda: dense_hessian(problem).matrix} | {
        name: lambda ways=ways: torch.stack([w.matrix() for w in ways]) for name, ways in peers.items()
    }
    result = {name: {"residual": check(name, tops[name], matrices[name], exact, spectrum)} for name in tops}
    times = {name: {"top_ms": [], "matrix_ms": [], "spectrum_ms": []} for name in tops}
    for _ in range(repeats):
        for name, columns in times.items():
            top = min(seconds(tops[name], device)[0] for _ in range(5))  # short, and soon disturbed
            dense, matrix = seconds(matrices[name], device)
            eigenvalues, _ = seconds(lambda m=matrix: torch.linalg.eigvalsh(m), device)
            for column, time in zip(columns.values(), (top, dense, dense + eigenvalues), strict=True):
                column.append(round(time * 1e3, 2))
    for name, columns in times.items():
        result[name] |= {column: min(values) for column, values in columns.items()}
    for column in ("top_ms", "matrix_ms", "spectrum_ms") if names else ():
        best = min(result[name][column] for name in names)
        result[f"best_peer_over_core_{column.removesuffix('_ms')}"] = round(best / result["core"][column], 2)
    return {"networks": len(problem), "parameters": exact.shape[1]} | result


def check(name: str, top: Callable, matrix: Callable, exact: Tensor, spectrum: Tensor) -> float:
    """Check the eigenvalues, and return the largest residual; what is called first is compiled."""
    found = top()
    wrong = max(abs(float(value / own[-1]) - 1) for (value, _), own in zip(found, spectrum, strict=True))
    wrong = max(wrong, float((torch.linalg.eigvalsh(matrix()) - spectrum).abs().max() / spectrum.abs().max()))
    if not wrong <= 1e-8:
        raise click.ClickException(f"{name} finds other eigenvalues than the core: relative difference {wrong:.0e}")
    return float(f"{max(residual(hessian, *pair) for hessian, pair in zip(exact, found, strict=True)):.0e}")


@click.command()
@click.option("--device", default="cpu", type=click.Choice(["cpu", "cuda"]))
@click.option("--repeats", default=3)
@click.option("--output", type=click.Path(path_type=Path), help="Default: results/hessians_<device>.json.")
def main(device: str, repeats: int, output: Path | None) -> None:
    """Measure, and write the numbers."""
    names = list(available(device))
    result = {}
    for case, (seeds, widths) in CASES.items():
        result[case] = compare(draw(seeds, widths, device=device), names, device, repeats)
        click.echo(f"{case}: {json.dumps(result[case], indent=1)}")
    result["environment"] = environment(device)
    output = output or Path(__file__).parent / "results" / f"hessians_{device}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
