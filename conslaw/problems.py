"""Problems: the initial weights and the data of many seeds, drawn in the published order.

This is the only place where random numbers of the experiments are drawn.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from conslaw.data import DATASETS

__all__ = ["TEST_SAMPLES", "Problem", "draw", "is_shared"]

TEST_SAMPLES = 50
"""Size of the test set the published scripts draw and never use. It matters only where data are drawn before
weights."""


def is_shared(inputs: Tensor) -> bool:
    """Tell whether all networks see one and the same tensor, expanded.

    Args:
        inputs: Shape (M, d, n).

    Returns:
        Whether M > 1 networks share one entry.
    """
    return len(inputs) > 1 and inputs.stride(0) == 0


@dataclass(frozen=True, eq=False)
class Problem:
    """M networks of one architecture, each with its own data.

    Tensors share one dtype and device. Samples are stored last.
    """

    weights: tuple[Tensor, ...]
    """W_1 … W_L, each (M, out, in)."""
    biases: tuple[Tensor, ...]
    """b_1 … b_L, each (M, out); empty for networks without biases."""
    inputs: Tensor
    """x, shape (M, d, n); a view with stride 0 of one network's where all have the same, such as MNIST."""
    targets: Tensor
    """y, shape (M, K, n); one-hot as drawn."""
    samples: int
    """n, the number of samples the loss is a mean over."""

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """Weights, then biases."""
        return self.weights + self.biases

    def two_layers(self) -> tuple[Tensor, Tensor]:
        """Return W_1 and W_2, where these are all parameters.

        Raises:
            ValueError: If the networks are deeper or have biases.
        """
        if len(self.weights) != 2 or self.biases:
            raise ValueError(f"problem must have two weight matrices and no biases, got {len(self.parameters)} tensors")
        return self.weights

    def with_parameters(self, parameters: Sequence[Tensor]) -> "Problem":
        """Return the same data with other weights and biases, in the order of `parameters`."""
        depth = len(self.weights)
        return replace(self, weights=tuple(parameters[:depth]), biases=tuple(parameters[depth:]))

    def select(self, networks: Tensor) -> "Problem":
        """Return copies of the networks and data at the given indices (J,) of the M networks."""
        shared = len(self.inputs) == 1 or is_shared(self.inputs)
        return replace(
            self.with_parameters([p[networks] for p in self.parameters]),
            inputs=self.inputs[:1].expand(len(networks), -1, -1) if shared else self.inputs[networks],
            targets=self.targets[networks],
        )

    def to(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> "Problem":
        """Return the problem in another dtype or on another device.

        Raises:
            ValueError: If CUDA is asked for where there is none.
        """
        if device is not None and torch.device(device).type == "cuda" and not torch.cuda.is_available():
            raise ValueError(f"device {str(device)!r} was asked for, but torch finds no CUDA device here; use 'cpu'")
        shared = is_shared(self.inputs)
        return replace(
            self.with_parameters([p.to(device, dtype) for p in self.parameters]),
            inputs=(self.inputs[:1] if shared else self.inputs).to(device, dtype).expand_as(self.inputs),
            targets=self.targets.to(device, dtype),
        )

    def reduced(self) -> "Problem":
        """Return the problem with d + K sufficient statistics for data: exact for linear networks and squared error.

        There the data enter through [X; Y] [X; Y]ᵀ alone. With the decomposition [X; Y]ᵀ = Q R the columns of Rᵀ give
        the same Gram matrix as the n samples, hence the same loss, gradients and Hessian. Wrong for anything but
        linear networks under squared error. `gradient_descent` uses it by itself.

        Returns:
            The problem with min(n, d + K) columns in `inputs` and `targets`, and `samples` unchanged.
        """
        dim = self.inputs.shape[1]
        data = torch.cat([self.inputs, self.targets], 1).double()
        triangle = torch.linalg.qr(data.mT, mode="r").R.mT.to(self.inputs)
        return replace(self, inputs=triangle[:, :dim].contiguous(), targets=triangle[:, dim:].contiguous())

    def in_span_of_inputs(self) -> "Problem":
        """Return the problem with inputs in coordinates Qᵀx of their span, and W_1 Q for W_1: exact for any network.

        Training moves W_1 only within the span, so what is left out of ‖W_1‖² is a constant: outputs, gradient norms,
        drifts and the eigenvalues λ ≠ 0 of the Hessian stay the same; C_1 itself is larger by that constant. It pays
        where inputs have more dimensions than their rank, as images do.

        Returns:
            The problem with as many inputs as their rank, the same for all networks.

        Raises:
            ValueError: If the networks do not share their inputs.
        """
        if len(self.inputs) > 1 and not is_shared(self.inputs):
            raise ValueError("the networks must share their inputs, as those that see MNIST do")
        vectors, values, _ = torch.linalg.svd(self.inputs[0].double(), full_matrices=False)
        basis = vectors[:, values > values[0] * len(vectors) * torch.finfo(values.dtype).eps].to(self.inputs)
        inputs = (basis.mT @ self.inputs[0]).expand(len(self.inputs), -1, -1)
        return replace(self, weights=(self.weights[0] @ basis, *self.weights[1:]), inputs=inputs)


def draw(
    seeds: Sequence[int],
    widths: Sequence[int] = (20, 64, 5),
    *,
    dataset: str = "gaussian",
    samples: int = 200,
    bias: bool = False,
    order: str = "weights_first",
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> Problem:
    """Draw the networks and data of many seeds.

    One generator per seed draws, layer by layer, the weights and then the biases of the layer, both uniform in
    ±1/√fan_in (the default of `torch.nn.Linear`), and the data: after the weights, or before them as in some of the
    published scripts, which then also draw a test set of 50 samples. Numbers are drawn in float32 on the CPU and then
    converted.

    Args:
        seeds: M different integers.
        widths: d, the hidden widths, K.
        dataset: "gaussian", "xor", "spheres" or "mnist".
        samples: Number n of training samples.
        bias: Whether layers have biases.
        order: "weights_first" or "data_first".
        dtype: Type of the returned tensors.
        device: Device of the returned tensors.

    Returns:
        Problem with M networks, one for each seed.

    Raises:
        ValueError: If an argument is out of its range; the message names it.

    >>> problem = draw([42])
    >>> round(problem.weights[0].square().sum().item(), 6), round(problem.inputs[0, 0, 0].item(), 6)
    (21.602316, -1.19489)
    """
    numbers = list(seeds) if isinstance(seeds, Iterable) else []
    if not numbers or len(set(numbers)) < len(numbers) or any(seed != int(seed) for seed in numbers):
        raise ValueError(f"seeds must be a list of at least one integer, each once, got {seeds}")
    seeds = [int(seed) for seed in numbers]
    if len(widths) < 2 or any(width < 1 or width != int(width) for width in widths):
        raise ValueError(
            f"widths must be two or more positive integers (inputs, hidden layers, classes), got {list(widths)}"
        )
    widths = [int(width) for width in widths]
    if dataset not in DATASETS:
        raise ValueError(f"dataset must be one of {', '.join(DATASETS)}, got {dataset!r}")
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")
    if order not in ("weights_first", "data_first"):
        raise ValueError(f"order must be 'weights_first' or 'data_first', got {order!r}")

    def draw_parameters(generator: torch.Generator) -> list[Tensor]:
        weights, biases = [], []
        for fan_in, width in pairwise(widths):
            weights.append(
                torch.nn.init.kaiming_uniform_(torch.empty(width, fan_in), a=math.sqrt(5), generator=generator)
            )
            if bias:
                bound = 1 / math.sqrt(fan_in)
                biases.append(torch.empty(width).uniform_(-bound, bound, generator=generator))
        return weights + biases

    def draw_data(generator: torch.Generator, count: int) -> tuple[Tensor, Tensor]:
        inputs, labels = DATASETS[dataset](generator, count, widths[0], widths[-1])
        return inputs.T, torch.nn.functional.one_hot(labels, widths[-1]).T

    parameters, data = [], []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        if order == "weights_first":
            parameters.append(draw_parameters(generator))
            data.append(draw_data(generator, samples))
        else:
            data.append(draw_data(generator, samples))
            if dataset != "mnist":  # of which nothing is drawn
                draw_data(generator, TEST_SAMPLES)
            parameters.append(draw_parameters(generator))

    depth = len(widths) - 1
    stacked = [torch.stack(tensors) for tensors in zip(*parameters, strict=True)]
    inputs, targets = (torch.stack(tensors) for tensors in zip(*data, strict=True))
    if dataset == "mnist":
        inputs = inputs[:1].expand_as(inputs)
    problem = Problem(tuple(stacked[:depth]), tuple(stacked[depth:]), inputs, targets, samples)
    return problem.to(torch.float32).to(dtype, device)
