"""Making problems: the paper's networks and data of many seeds, drawn in the published order, and one's own arrays.

This is the only place where random numbers of the experiments are drawn.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from numbers import Integral

import numpy as np
import torch
from torch import Tensor

from conslaw.activations import Activation
from conslaw.data import DATASETS
from conslaw.problems import Origin, Problem
from conslaw.tensors import as_dtype

__all__ = ["TEST_SAMPLES", "as_problem", "draw"]

TEST_SAMPLES = 50
"""Size of the test set the published scripts draw and never use. It matters only where data are drawn before
weights."""
SEEDS = 2**32
"""Number of different seeds: torch's generator on a CPU uses the last 32 bits."""


def draw(
    seeds: Sequence[int],
    widths: Sequence[int] = (20, 64, 5),
    *,
    loss: str | float = "cross_entropy",
    activation: str | float | Activation = "relu",
    dataset: str = "gaussian",
    samples: int = 200,
    bias: bool = False,
    order: str = "weights_first",
    data_seed: int | None = None,
    dtype: str | torch.dtype = "float64",
    device: torch.device | str = "cpu",
) -> Problem:
    """Draw the networks and data of many seeds.

    One generator per seed draws, layer by layer, the weights and then the biases of the layer, both uniform in
    ±1/√fan_in (the default of `torch.nn.Linear`), and the data: after the weights, or before them as in some of the
    published scripts, which then also draw a test set of 50 samples. Numbers are drawn in float32 on the CPU, whatever
    torch's defaults are, and then converted.

    Args:
        seeds: M different integers from 0 to 2³² − 1.
        widths: d, the hidden widths, K.
        loss: "mse", "cross_entropy", or the weight of cross-entropy in their mixture.
        activation: "relu", "linear", "leaky_relu", "tanh", "gelu", "sigmoid", or the weight of ReLU in a mixture with
            the identity.
        dataset: "gaussian", "xor", "spheres" or "mnist".
        samples: Number n of training samples.
        bias: Whether layers have biases.
        order: "weights_first" or "data_first".
        data_seed: Seed whose data all networks share; by default each network's seed draws its own.
        dtype: "float64" or "float32", or torch's type.
        device: Device of the returned tensors.

    Returns:
        Problem with M networks, one for each seed.

    Raises:
        ValueError: If an argument is out of its range; the message names it.

    >>> problem = draw([42])
    >>> round(problem.weights[0].square().sum().item(), 6), round(problem.inputs[0, 0, 0].item(), 6)
    (21.602316, -1.19489)
    >>> problem
    Problem(1 × 20 → 64 → 5, relu, cross_entropy, 200 samples of gaussian, seeds 42, float64, cpu)
    """
    seeds = _seeds(seeds)
    widths = _integers("widths", widths, "two or more positive integers (inputs, hidden layers, classes)", 2)
    dtype = as_dtype(dtype)
    if not isinstance(dataset, str) or dataset not in DATASETS:
        raise ValueError(f"dataset must be one of {', '.join(DATASETS)}, got {dataset!r}")
    if not _is_integer(samples) or samples < 1:
        raise ValueError(f"samples must be an integer of at least 1, got {samples!r}")
    samples = int(samples)
    if order not in ("weights_first", "data_first"):
        raise ValueError(f"order must be 'weights_first' or 'data_first', got {order!r}")

    def draw_data(generator: torch.Generator, count: int) -> tuple[Tensor, Tensor]:
        inputs, labels = DATASETS[dataset](generator, count, widths[0], widths[-1])
        return inputs.T, torch.nn.functional.one_hot(labels, widths[-1]).T

    def draw_both(seed: int) -> tuple[list[Tensor], tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(seed)
        if order == "weights_first":
            return _layers(generator, widths, bias), draw_data(generator, samples)
        data = draw_data(generator, samples)
        if dataset != "mnist":  # of which nothing is drawn
            draw_data(generator, TEST_SAMPLES)
        return _layers(generator, widths, bias), data

    parameters, data = zip(*map(draw_both, seeds), strict=True)
    if data_seed is not None:
        [data_seed] = _seeds([data_seed], "data_seed")
        data = [draw_both(data_seed)[1]] * len(seeds)
    inputs, targets = (torch.stack(tensors).to(torch.float32) for tensors in zip(*data, strict=True))
    if dataset == "mnist" or data_seed is not None:
        inputs = inputs[:1].expand_as(inputs)
    weights, biases = _stacked(parameters, len(widths) - 1)
    origin = Origin(dataset, tuple(seeds), order, data_seed)
    return Problem(weights, biases, inputs, targets, loss, activation, origin).to(dtype, device)


def as_problem(
    inputs,
    targets,
    *,
    weights: Sequence | None = None,
    biases: Sequence = (),
    hidden: Sequence[int] | None = None,
    seeds: Sequence[int] | None = None,
    bias: bool = False,
    loss: str | float = "cross_entropy",
    activation: str | float | Activation = "relu",
    dtype: str | torch.dtype = "float64",
    device: torch.device | str = "cpu",
) -> Problem:
    """Make a problem of one's own data, and of one's own weights or of drawn ones.

    Args:
        inputs: X as people have it, shape (n, d), or (M, n, d) for other data in each network; numpy, torch or lists.
        targets: Integer labels 0 … K − 1, shape (n,) or (M, n), or numbers, shape (n, K) or (M, n, K).
        weights: W_1 … W_L, each (out, in) as in `torch.nn.Linear`, or (M, out, in); by default drawn from the seeds.
        biases: b_1 … b_L, each (out,) or (M, out), of networks whose weights are given.
        hidden: Widths of the hidden layers of drawn networks; by default one of 64 units.
        seeds: One for each drawn network; by default 0.
        bias: Whether drawn networks have biases.
        loss: As in `draw`.
        activation: As in `draw`.
        dtype: As in `draw`.
        device: As in `draw`.

    Returns:
        The problem. It holds copies; weights that require grad are detached.

    Raises:
        ValueError: If the shapes do not fit, or an argument is out of its range; the message names it.

    >>> import numpy as np
    >>> as_problem(np.eye(4, 3), [0, 1, 1, 0], hidden=[8], seeds=[1, 2])
    Problem(2 × 3 → 8 → 2, relu, cross_entropy, 4 samples of own, seeds 1, 2, float64, cpu)
    """
    dtype = as_dtype(dtype)
    x = _array("inputs", inputs, dtype)
    if x.dim() not in (2, 3) or 0 in x.shape:
        raise ValueError(f"inputs must have shape (n, d) or (M, n, d), none of them 0, got {tuple(x.shape)}")
    y = _array("targets", targets, None)
    given = None if weights is None else [_array(f"weights[{i}]", w, dtype) for i, w in enumerate(weights)]
    offsets = [_array(f"biases[{i}]", b, dtype) for i, b in enumerate(biases)]
    if given is None and offsets:
        raise ValueError("biases must come with weights; for drawn networks with biases pass bias=True")
    if given is not None and (hidden is not None or seeds is not None or bias):
        raise ValueError("hidden, seeds and bias are of drawn networks, and must not come with weights")
    hidden, seeds = (64,) if hidden is None else hidden, (0,) if seeds is None else seeds
    if given is not None and not all(weight.dim() in (2, 3) for weight in given):
        raise ValueError(f"weights must be (out, in) or (M, out, in) each, got {[tuple(w.shape) for w in given]}")

    if not y.dtype.is_floating_point and y.dim() == x.dim() - 1:
        classes = given[-1].shape[-2] if given else max(2, int(y.max()) + 1 if y.numel() else 0)
        if y.numel() and (int(y.min()) < 0 or int(y.max()) >= classes):
            raise ValueError(f"targets must be labels from 0 to {classes - 1}, got {int(y.min())} to {int(y.max())}")
        y = torch.nn.functional.one_hot(y.long(), classes)
    if y.dim() != x.dim() or y.shape[:-1] != x.shape[:-1]:
        rows, kind = ", ".join(map(str, x.shape[:-1])), str(y.dtype).removeprefix("torch.")
        raise ValueError(
            f"targets must have shape ({rows},) as integer labels or ({rows}, K), got {tuple(y.shape)} of {kind}"
        )

    if given is None:
        hidden = _integers("hidden", hidden, "positive integers, the widths of the hidden layers", 0)
        seeds, widths = _seeds(seeds), [x.shape[-1], *hidden, y.shape[-1]]
        drawn = [_layers(torch.Generator().manual_seed(seed), widths, bias) for seed in seeds]
        given, offsets = _stacked(drawn, len(widths) - 1)
    sizes = {len(t) for t in [x, *given] if t.dim() == 3} | {len(t) for t in offsets if t.dim() == 2}
    if len(sizes - {1}) > 1:
        raise ValueError(f"inputs, weights and biases must agree in the number M of networks, got {sorted(sizes)}")
    networks = max(sizes, default=1)
    if weights is None and len(seeds) != networks:
        raise ValueError(f"seeds must be {networks} for inputs of {networks} networks, got {len(seeds)}")

    def batch(tensor: Tensor, dimensions: int) -> Tensor:
        return tensor.to(dtype).expand(networks, *tensor.shape[-dimensions:])

    return Problem(
        tuple(batch(weight, 2).contiguous() for weight in given),
        tuple(batch(offset, 1).contiguous() for offset in offsets),
        batch(x.mT, 2),
        batch(y.mT, 2).contiguous(),
        loss,
        activation,
        Origin(seeds=tuple(seeds) if weights is None else None),
    ).to(dtype, device)


def _layers(generator: torch.Generator, widths: Sequence[int], bias: bool) -> list[Tensor]:
    """Draw the weights and biases of one network in the order of `torch.nn.Linear`; weights come first in the list."""
    weights, biases = [], []
    for fan_in, width in pairwise(widths):
        weight = torch.empty(width, fan_in, dtype=torch.float32, device="cpu")
        weights.append(torch.nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator))
        if bias:
            bound = 1 / math.sqrt(fan_in)
            offset = torch.empty(width, dtype=torch.float32, device="cpu")
            biases.append(offset.uniform_(-bound, bound, generator=generator))
    return weights + biases


def _stacked(parameters: Sequence[list[Tensor]], depth: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Stack the parameters of M networks: the weights of each layer, and the biases."""
    stacked = tuple(torch.stack(tensors) for tensors in zip(*parameters, strict=True))
    return stacked[:depth], stacked[depth:]


def _array(name: str, values, dtype: torch.dtype | None) -> Tensor:
    """Return a copy of an array as a tensor on the CPU, of the given type."""
    try:
        if isinstance(values, Tensor):
            numbers = values.detach().to("cpu", copy=True)
        else:
            array = np.asarray(values)
            if np.ma.isMaskedArray(values) and np.ma.getmaskarray(values).any():
                raise ValueError("some of it is masked")
            kind = np.int64 if array.dtype.kind in "iub" else complex if array.dtype.kind == "c" else np.float64
            numbers = torch.tensor(np.ascontiguousarray(array, dtype=kind), device="cpu")
        if numbers.is_complex() or numbers.layout != torch.strided:
            raise ValueError("it must be real and dense")
        if dtype is None:
            return numbers if numbers.is_floating_point() else numbers.long()
        return numbers.to(dtype)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} must be an array of numbers, got {type(values).__name__}: {error}") from error


def _is_integer(number: object) -> bool:
    """Tell integers, also numpy's and floats without a fraction, from all else."""
    if isinstance(number, float | np.floating):
        return float(number).is_integer()
    return isinstance(number, Integral) and not isinstance(number, bool | np.bool_)


def _integers(name: str, numbers: Sequence[int], wanted: str, least: int) -> list[int]:
    """Check a list of at least so many positive integers."""
    listed = list(numbers) if isinstance(numbers, Sequence | np.ndarray) and not isinstance(numbers, str) else None
    if listed is None or len(listed) < least or not all(_is_integer(n) and n >= 1 for n in listed):
        raise ValueError(f"{name} must be {wanted}, got {numbers!r}")
    return [int(number) for number in listed]


def _seeds(seeds: Sequence[int], name: str = "seeds") -> list[int]:
    """Check that seeds are different integers, each of which draws other numbers."""
    try:
        listed = seeds.tolist() if isinstance(seeds, Tensor | np.ndarray) else list(seeds)
    except TypeError:
        listed = []
    if not listed or not all(_is_integer(seed) and 0 <= seed < SEEDS for seed in listed):
        raise ValueError(f"{name} must be a list of at least one integer from 0 to 2**32 - 1, got {seeds!r}")
    if len(set(listed)) < len(listed):
        raise ValueError(f"{name} must be integers, each once, got {listed}")
    return [int(seed) for seed in listed]
