"""Problems: networks, their data, the loss they are trained with, and where all of it comes from.

A problem is told what it is once, where it is made; every function of the core takes it from there.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import NamedTuple

import torch
from torch import Tensor

from conslaw.activations import Activation, activation_function
from conslaw.losses import cross_entropy_weight
from conslaw.tensors import as_dtype, check_probabilities, check_tensors, expect, is_shared

__all__ = ["Origin", "Problem"]


class Origin(NamedTuple):
    """Where networks and data come from."""

    dataset: str = "own"
    """Name of the data set; "own" for arrays of the user's."""
    seeds: tuple[int, ...] | None = None
    """Seed of each of the M networks; None where weights were not drawn."""
    order: str = "weights_first"
    """What a seed draws first: "weights_first" or "data_first"."""
    data_seed: int | None = None
    """The seed that drew the data of all networks; None where each network's seed drew its own."""


@dataclass(frozen=True, eq=False, repr=False)
class Problem:
    """M networks of one architecture, each with its own data, and the loss they are trained with.

    Tensors share one dtype, float32 or float64, and one device. Samples are stored last. `draw` makes the paper's
    problems, and `as_problem` makes one of arrays as people have them.

    Raises:
        ValueError: If a tensor has another shape, dtype or device than the others ask for, or is not finite.
    """

    weights: tuple[Tensor, ...]
    """W_1 … W_L, each (M, out, in)."""
    biases: tuple[Tensor, ...]
    """b_1 … b_L, each (M, out); empty for networks without biases."""
    inputs: Tensor
    """x, shape (M, d, n); a view with stride 0 of one network's where all have the same, such as MNIST."""
    targets: Tensor
    """y, shape (M, K, n); one-hot as drawn."""
    loss: str | float = "cross_entropy"
    """"mse", "cross_entropy", or the weight of cross-entropy in their mixture."""
    activation: str | float | Activation = "relu"
    """"relu", "linear", "leaky_relu", "tanh", "gelu", "sigmoid", the weight of ReLU in a mixture with the identity, or
    an `Activation`."""
    origin: Origin = field(default_factory=Origin)
    """Data set and seeds."""
    samples: int | None = None
    """n, the number of samples the loss is a mean over; by default the number of columns of the data."""
    widths: tuple[int, ...] | None = None
    """d, the hidden widths, K, before any change of coordinates; by default those of the tensors."""
    are_statistics: bool = False
    """Whether the columns of the data are not samples but sufficient statistics of them, see `reduced`."""
    left_out: Tensor | None = None
    """W_1 P W_1ᵀ, shape (M, m, m), where P projects off the span of the inputs and `in_span_of_inputs` has left that
    part of W_1 out; training does not move it. Its trace is what is missing in ‖W_1‖²."""
    runs: Tensor | None = field(init=False, default=None)
    """In training: which of the R·M runs these networks are, int64, ascending, on the CPU."""
    step: int | None = field(init=False, default=None)
    """In training: how many updates the networks have taken."""

    def __post_init__(self):
        """Check the tensors, and read off them what they say."""
        object.__setattr__(self, "weights", tuple(self.weights))
        object.__setattr__(self, "biases", tuple(self.biases))
        check_tensors(self.weights, self.biases, self.inputs, self.targets)
        networks, _, columns = self.inputs.shape
        if not self.are_statistics and self.samples not in (None, columns):
            raise ValueError(f"samples must be {columns}, the number of columns of inputs, or None, got {self.samples}")
        if self.left_out is not None:
            units = self.weights[0].shape[1]
            expect("left_out", self.left_out, (networks, units, units))
        seeds = self.origin.seeds
        if seeds is not None and len(seeds) != len(self.inputs):
            raise ValueError(f"origin must hold {len(self.inputs)} seeds, got {len(seeds)}")
        self._check_kind()
        object.__setattr__(self, "samples", self.samples or columns)
        if self.left_out is None or self.widths is None:
            object.__setattr__(self, "widths", (self.inputs.shape[1], *(weight.shape[1] for weight in self.weights)))

    def _check_kind(self) -> None:
        """Check that loss and activation are known, and that targets are what the loss needs."""
        is_linear, entropy = activation_function(self.activation).slope == 1, cross_entropy_weight(self.loss)
        if self.are_statistics and (entropy or not is_linear):
            raise ValueError(
                "a reduced problem holds sufficient statistics of linear networks under squared error, got activation "
                f"{self.activation!r} and loss {self.loss!r}; vary the problem before it is reduced"
            )
        if entropy:
            check_probabilities(self.targets)

    def _derive(self, **changes: object) -> "Problem":
        """Return a copy with some fields changed, unchecked: for what is known to fit."""
        derived = copy.copy(self)
        for name, value in changes.items():
            object.__setattr__(derived, name, value)
        return derived

    def __len__(self) -> int:
        """M, the number of networks."""
        return len(self.targets)

    def __repr__(self) -> str:
        """One line: how many networks, their widths, data, loss, activation, type and place."""
        seeds = f", seeds {_brief(self.origin.seeds)}" if self.origin.seeds else ""
        activation = self.activation if isinstance(self.activation, str | float | int) else "own activation"
        return (
            f"Problem({len(self)} × {' → '.join(map(str, self.widths))}{' with biases' if self.biases else ''}, "
            f"{activation}, {self.loss}, {self.samples} samples of {self.origin.dataset}{seeds}, "
            f"{str(self.inputs.dtype).removeprefix('torch.')}, {self.inputs.device})"
        )

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """Weights, then biases."""
        return self.weights + self.biases

    @property
    def depth(self) -> int:
        """L, the number of weight matrices."""
        return len(self.weights)

    @property
    def sigma(self) -> Activation:
        """The activation and its derivatives."""
        return activation_function(self.activation)

    @property
    def entropy_weight(self) -> float:
        """Weight of cross-entropy in the loss: 0 for squared error."""
        return cross_entropy_weight(self.loss)

    @property
    def is_linear_regression(self) -> bool:
        """Whether the networks are linear and the loss is squared error, so that Gram matrices are all they see."""
        return self.sigma.slope == 1 and not self.entropy_weight

    def two_layers(self) -> tuple[Tensor, Tensor]:
        """Return W_1 and W_2, where these are all parameters.

        Raises:
            ValueError: If the networks are deeper or have biases.
        """
        if self.depth != 2 or self.biases:
            raise ValueError(f"problem must have two weight matrices and no biases, got {self!r}")
        return self.weights

    def under(
        self, *, loss: str | float | None = None, activation: str | float | Activation | None = None
    ) -> "Problem":
        """Return the same networks and data under another loss or with another activation.

        Args:
            loss: The loss, see the field; by default as it is.
            activation: The activation, likewise.

        Raises:
            ValueError: If one of them is unknown, or the targets are no probabilities, which cross-entropy needs.

        >>> from conslaw import draw
        >>> draw([42]).under(loss="mse").loss
        'mse'
        """
        varied = self._derive(
            loss=self.loss if loss is None else loss,
            activation=self.activation if activation is None else activation,
        )
        varied._check_kind()
        return varied

    def with_parameters(self, parameters: Sequence[Tensor], left_out: Tensor | None = None) -> "Problem":
        """Return the same data with other weights and biases.

        Args:
            parameters: Weights, then biases, of the same shapes.
            left_out: What a change of coordinates has left out, where that is not the same any more, see the field.

        Raises:
            ValueError: If their number, or a shape, dtype or device is another.
        """
        parameters = tuple(parameters)
        if len(parameters) != len(self.parameters):
            raise ValueError(f"parameters must be {len(self.parameters)} tensors, got {len(parameters)}")
        for number, (new, old) in enumerate(zip(parameters, self.parameters, strict=True)):
            expect(f"parameters[{number}]", new, tuple(old.shape), self.inputs)
        left_out = self.left_out if left_out is None else left_out
        return self._derive(weights=parameters[: self.depth], biases=parameters[self.depth :], left_out=left_out)

    def select(self, networks: Tensor | Sequence[int]) -> "Problem":
        """Return copies of some of the M networks, with their data.

        Args:
            networks: Their indices (J,), or a mask (M,).

        Raises:
            ValueError: If it is neither, or selects none.
        """
        index = torch.as_tensor(networks, device="cpu")
        if index.dtype == torch.bool and index.shape == (len(self),):
            index = index.nonzero().flatten()
        if index.dim() != 1 or index.dtype.is_floating_point or index.dtype == torch.bool or not len(index):
            raise ValueError(f"networks must be indices, or a mask of {len(self)} networks, got {networks}")
        if not bool(((index >= -len(self)) & (index < len(self))).all()):
            raise ValueError(f"networks must be from 0 to {len(self) - 1}, got {index.tolist()}")
        index = index.long()
        there = index.to(self.inputs.device)
        shared = len(self.inputs) == 1 or is_shared(self.inputs)
        seeds = self.origin.seeds
        return self._derive(
            weights=tuple(weight[there] for weight in self.weights),
            biases=tuple(bias[there] for bias in self.biases),
            inputs=self.inputs[:1].expand(len(index), -1, -1) if shared else self.inputs[there],
            targets=self.targets[there],
            origin=self.origin._replace(seeds=seeds and tuple(seeds[i] for i in index.tolist())),
            left_out=None if self.left_out is None else self.left_out[there],
            runs=None if self.runs is None else self.runs[index],
        )

    def split(self, samples: int) -> tuple["Problem", "Problem"]:
        """Return the networks with the first samples of their data, and with the rest, such as for training and test.

        Args:
            samples: How many the first part has, at least 1 and fewer than n.

        Raises:
            ValueError: If it is another number, or the columns of the data are no samples.

        >>> from conslaw import draw
        >>> [part.samples for part in draw([42], samples=300).split(200)]
        [200, 100]
        """
        if self.are_statistics:
            raise ValueError(f"problem must hold samples, not statistics of them, got {self!r}")
        if not isinstance(samples, Integral) or isinstance(samples, bool) or not 0 < samples < self.samples:
            raise ValueError(f"samples must be an integer from 1 to {self.samples - 1}, got {samples!r}")
        first, rest = (
            self._derive(inputs=self.inputs[..., part], targets=self.targets[..., part], samples=count)
            for part, count in ((slice(samples), samples), (slice(samples, None), self.samples - samples))
        )
        return first, rest

    def in_training(self, runs: Tensor, step: int) -> "Problem":
        """Return the networks as the given ones (M,) of the runs of a training after some steps."""
        return self._derive(runs=runs, step=step)

    def places_in(self, earlier: Tensor | None) -> Tensor | None:
        """Return where these networks are among those of an earlier look, whose `runs` were these; None at the start.

        An observable that compares with its last call needs this: networks that diverge leave the batch.
        """
        if not self.step or earlier is None or not bool(torch.isin(self.runs, earlier).all()):
            return None
        return torch.searchsorted(earlier, self.runs)

    def to(self, dtype: str | torch.dtype | None = None, device: torch.device | str | None = None) -> "Problem":
        """Return the problem in another dtype or on another device.

        Raises:
            ValueError: If the dtype is neither float32 nor float64, or CUDA is asked for where there is none.
        """
        if device is not None and torch.device(device).type == "cuda" and not torch.cuda.is_available():
            raise ValueError(f"device {str(device)!r} was asked for, but torch finds no CUDA device here; use 'cpu'")
        dtype = None if dtype is None else as_dtype(dtype)
        shared = is_shared(self.inputs)
        return self._derive(
            weights=tuple(weight.to(device, dtype) for weight in self.weights),
            biases=tuple(bias.to(device, dtype) for bias in self.biases),
            inputs=(self.inputs[:1] if shared else self.inputs).to(device, dtype).expand_as(self.inputs),
            targets=self.targets.to(device, dtype),
            left_out=None if self.left_out is None else self.left_out.to(device),
        )

    def reduced(self) -> "Problem":
        """Return the problem with d + K sufficient statistics for data: exact for linear networks and squared error.

        There the data enter through [X; Y] [X; Y]ᵀ alone. With the decomposition [X; Y]ᵀ = Q R the columns of Rᵀ give
        the same Gram matrix as the n samples, hence the same loss, gradients and Hessian. `gradient_descent` uses it by
        itself.

        Returns:
            The problem with min(n, d + K) columns in `inputs` and `targets`, and `samples` unchanged.

        Raises:
            ValueError: If the networks are not linear, or the loss is not squared error.
        """
        if not self.is_linear_regression:
            raise ValueError(f"problem must be of linear networks under squared error, got {self!r}")
        dim = self.inputs.shape[1]
        data = torch.cat([self.inputs, self.targets], 1).double()
        triangle = torch.linalg.qr(data.mT, mode="r").R.mT.to(self.inputs)
        inputs, targets = (part.contiguous() for part in triangle.split([dim, triangle.shape[1] - dim], 1))
        return self._derive(inputs=inputs, targets=targets, are_statistics=True)

    def in_span_of_inputs(self) -> "Problem":
        """Return the problem with inputs in coordinates Qᵀx of their span, and W_1 Q for W_1: exact for any network.

        Training moves W_1 only within the span, so what is left out of it is constant: outputs, gradient norms, drifts
        and the eigenvalues λ ≠ 0 of the Hessian stay the same, and the laws are told of the constant. It pays where
        inputs have more dimensions than their rank, as images do.

        Returns:
            The problem with as many inputs as their rank, the same for all networks. Input i is zero in the first i
            samples.

        Raises:
            ValueError: If the networks do not share their inputs.
        """
        if len(self.inputs) > 1 and not is_shared(self.inputs):
            raise ValueError("the networks must share their inputs, as those that see MNIST do")
        inputs = self.inputs[0].double()
        vectors, values, _ = torch.linalg.svd(inputs, full_matrices=False)
        basis = vectors[:, values > values[0] * len(vectors) * torch.finfo(values.dtype).eps]
        rotation, triangle = torch.linalg.qr(basis.mT @ inputs)  # Gram and Schmidt's coordinates, with many zeros
        basis = basis @ rotation
        first = self.weights[0].double()
        outside = first - first @ basis @ basis.mT
        left_out = outside @ outside.mT
        basis = basis.to(self.inputs)
        return self._derive(
            weights=(self.weights[0] @ basis, *self.weights[1:]),
            inputs=triangle.to(self.inputs).expand(len(self.inputs), -1, -1),
            left_out=left_out if self.left_out is None else left_out + self.left_out,
        )


def _brief(seeds: Sequence[int]) -> str:
    """The seeds, or the first and last of many."""
    return ", ".join(map(str, seeds)) if len(seeds) <= 5 else f"{seeds[0]}, {seeds[1]}, …, {seeds[-1]}"
