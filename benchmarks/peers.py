"""Ways to train the networks of a problem by gradient descent: the core, and what people would use instead of it.

Each is a function of a problem, a rate and a number of steps. It prepares all that is needed once, such as compilation,
and returns the function that trains, which is timed; that one returns the weights, each (M, out, in). Those with vmap
and JAX train two-layer ReLU networks under cross-entropy. The core records losses and norms at every step, all others
nothing.
"""

import os
import shutil
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import torch

from conslaw import Problem, gradient_descent

Train = Callable[[], tuple]


def core(problem: Problem, rate: float, steps: int) -> Train:
    """Train with this package."""
    gradient_descent(problem.select([0]), rate, 3)  # compiles
    return lambda: gradient_descent(problem, rate, steps, record_every=steps).networks().weights


def published_way(problem: Problem, rate: float, steps: int) -> Train:
    """Train as the published scripts do: one `nn.Module` after another, autograd, `torch.optim.SGD`."""

    def train() -> tuple:
        return tuple(torch.stack(layer) for layer in zip(*map(one, range(len(problem))), strict=True))

    def one(number: int) -> list[torch.Tensor]:
        network, inputs, labels = as_module(problem, number)
        squared = problem.loss == "mse"
        criterion = torch.nn.MSELoss() if squared else torch.nn.CrossEntropyLoss()
        targets = problem.targets[number].T.contiguous() if squared else labels
        optimizer = torch.optim.SGD(network.parameters(), lr=rate)
        for _ in range(steps):
            optimizer.zero_grad()
            criterion(network(inputs), targets).backward()
            optimizer.step()
        return [parameter.detach() for parameter in network.parameters()]

    return train


def as_module(problem: Problem, number: int = 0) -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    """Return one network of a problem as an `nn.Module`, its inputs (n, d) and its labels (n,)."""
    modules = []
    for weight in problem.weights:
        if modules and problem.activation == "relu":
            modules.append(torch.nn.ReLU())
        layer = torch.nn.Linear(weight.shape[2], weight.shape[1], bias=False, device=weight.device, dtype=weight.dtype)
        with torch.no_grad():
            layer.weight.copy_(weight[number])
        modules.append(layer)
    network = torch.nn.Sequential(*modules)
    return network, problem.inputs[number].T.contiguous(), problem.targets[number].argmax(0)


def vmap(problem: Problem, rate: float, steps: int, compiled: bool = False) -> Train:
    """Train all networks together with `torch.func.vmap` over `torch.func.grad`."""

    def loss(weights, x, y):
        outputs = weights[1] @ torch.relu(weights[0] @ x)
        return -(torch.log_softmax(outputs, 0) * y).sum() / x.shape[1]

    def step(weights, x, y):
        return tuple(w - rate * g for w, g in zip(weights, gradient(weights, x, y), strict=True))

    gradient = torch.func.vmap(torch.func.grad(loss))
    if compiled:
        torch.compiler.reset()  # of which shapes it has seen before
        step = torch.compile(step, dynamic=False)
    step(problem.weights, problem.inputs, problem.targets)

    def train() -> tuple:
        weights = problem.weights
        for _ in range(steps):
            weights = step(weights, problem.inputs, problem.targets)
        return weights

    return train


def torch_compile(problem: Problem, rate: float, steps: int) -> Train:
    """Train with the step of `vmap`, compiled."""
    return vmap(problem, rate, steps, compiled=True)


def jax_vmap(problem: Problem, rate: float, steps: int, together: bool = True) -> Train:
    """Train all networks together with JAX: `jit(vmap(scan))`."""
    import jax

    jax.config.update("jax_enable_x64", True)

    def loss(weights, x, y):
        outputs = weights[1] @ jax.nn.relu(weights[0] @ x)
        return -(jax.nn.log_softmax(outputs, axis=0) * y).sum() / x.shape[1]

    def train_one(weights, x, y):
        def step(weights, _):
            return tuple(w - rate * g for w, g in zip(weights, jax.grad(loss)(weights, x, y), strict=True)), None

        return jax.lax.scan(step, weights, length=steps)[0]

    def train_all(*networks):
        return jax.vmap(train_one)(*networks) if together else jax.lax.map(lambda one: train_one(*one), networks)

    arrays = (problem.weights, problem.inputs.contiguous(), problem.targets.contiguous())
    arrays = jax.tree.map(lambda tensor: jax.numpy.asarray(tensor.cpu().numpy()), arrays)
    compiled = jax.jit(train_all).lower(*arrays).compile()
    return lambda: jax.block_until_ready(compiled(*arrays))


def jax_one_by_one(problem: Problem, rate: float, steps: int) -> Train:
    """Train one network after another with JAX: `jit` of `lax.map` of scans."""
    return jax_vmap(problem, rate, steps, together=False)


TRAINING = {
    "core": core,
    "published_way": published_way,
    "vmap": vmap,
    "torch_compile": torch_compile,
    "jax_vmap": jax_vmap,
    "jax_one_by_one": jax_one_by_one,
}


def missing(way: str, device: str) -> str:
    """Say what a way of training lacks here, and how to get it; nothing where it runs."""
    if way.startswith("jax"):
        if not find_spec("jax"):
            return "JAX is not installed: pip install 'conslaw[benchmarks]'"
        import jax

        if device == "cuda" and jax.default_backend() == "cpu":
            return "JAX sees no GPU: pip install 'jax[cuda12]'"
    if way == "torch_compile" and not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++"))):
        return "torch.compile needs a C++ compiler, such as Debian's package g++"
    return ""


def difference(weights: tuple, others: tuple) -> float:
    """Return the largest difference of two sets of weights, relative to the largest weight of the layer."""

    def tensor(array) -> torch.Tensor:
        return array.cpu() if isinstance(array, torch.Tensor) else torch.tensor(np.asarray(array))

    pairs = [(tensor(a), tensor(b)) for a, b in zip(weights, others, strict=True)]
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
