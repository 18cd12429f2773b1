"""Steps of small networks on a CPU, compiled; each network is trained by itself.

In `_batched` all networks take each operation together, which moves every activation through memory several times a
step.
"""

import math
import warnings
from collections.abc import Callable, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from conslaw.conserved import squared_norms
from conslaw.problems import Problem
from conslaw.tensors import is_shared
from conslaw.training._steps import Steps

__all__ = ["CompiledSteps"]

CACHE_BYTES = 3 * 2**18
"""Inputs and outputs of a layer for one tile of samples, which stay in a core's cache."""


class CompiledSteps:
    """J networks in training by gradient descent, see `Stepper`."""

    def __init__(self, networks: Problem, rates: Tensor):
        """Start.

        Args:
            networks: Networks that this `takes`.
            rates: η, shape (J,), float64.
        """
        # A network's weights are views of one vector, so that between two blocks of steps torch has nothing to copy:
        # its threads would go on waiting for more to do, at full speed, where those of this class work.
        sizes = [weight[0].numel() for weight in networks.weights]
        self._parameters = torch.cat([weight.flatten(1) for weight in networks.weights], 1)
        parts = zip(networks.weights, self._parameters.split(sizes, 1), strict=True)
        self.networks = networks.with_parameters([part.view_as(weight) for weight, part in parts])
        self._rates = rates.to(networks.inputs).numpy()
        self._widths = np.array([networks.inputs.shape[1], *(weight.shape[1] for weight in networks.weights)])
        self._tiles = _tiles(self._widths, networks.inputs)
        self._data = [_by_tiles(data, self._tiles) for data in (networks.inputs, networks.targets)]

    @staticmethod
    def takes(networks: Problem) -> bool:
        """Tell whether networks can be trained here: on a CPU, without biases, piecewise linear.

        Linear networks are left to torch, where the order of their products is free.
        """
        return (
            networks.sigma.slope not in (None, 1)
            and not networks.biases
            and networks.depth > 1
            and networks.inputs.device.type == "cpu"
        )

    def advance(self, steps: range, updates: int, recorded: Set[int]) -> Steps:
        """Take some steps, see `Stepper`."""
        networks, parameters = self.networks, self._parameters.numpy()
        number, entropy = parameters.dtype.type, networks.entropy_weight
        of_losses = number((1 - entropy) / (networks.samples * self._widths[-1])), number(entropy / networks.samples)
        losses = np.empty((len(parameters), len(steps)))
        squares = np.empty((*losses.shape, 2, networks.depth))
        # The published drifts of few units of rounding are those of torch's norms in float32, which takes them below.
        chosen = np.array([step in recorded for step in steps])
        places = np.where(chosen & (number is np.float32), np.cumsum(chosen) - 1, -1)
        kept = np.empty((len(parameters), places.max() + 1, parameters.shape[1]), number)

        def train(part: slice) -> None:
            own = (array[part] for array in (parameters, self._rates, losses, squares, kept))
            data = (array[part] if len(array) == len(parameters) else array for array in self._data)
            _call(*own, *data, self._widths, self._tiles, places, updates, number(networks.sigma.slope), of_losses)

        threads = min(len(parameters), torch.get_num_threads())
        ends = [len(parameters) * thread // threads for thread in range(threads + 1)]
        parts = [slice(*part) for part in pairwise(ends)]
        if threads > 1:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(train, parts))
        else:
            train(*parts)
        gradients, of_weights = torch.from_numpy(squares).transpose(0, 1).unbind(2)
        of_weights = of_weights[torch.from_numpy(chosen)]
        if kept.size:
            of_weights = torch.stack([self._squared_norms(parameters) for parameters in kept.swapaxes(0, 1)])
        return Steps(torch.from_numpy(losses).mT, gradients, of_weights)

    def _squared_norms(self, parameters: np.ndarray) -> Tensor:
        """Take the squared norms of W_1 … W_L from parameters (J, P), shape (J, L)."""
        shapes = [weight.shape for weight in self.networks.weights]
        parts = torch.from_numpy(parameters).split([shape[1:].numel() for shape in shapes], 1)
        return squared_norms([part.reshape(shape).contiguous() for part, shape in zip(parts, shapes, strict=True)])

    def keep(self, survivors: Tensor) -> None:
        """Go on with these networks only, see `Stepper`."""
        self.__init__(self.networks.select(survivors), torch.from_numpy(self._rates)[survivors])


def _tiles(widths: Sequence[int], inputs: Tensor) -> np.ndarray:
    """Cut the samples of inputs (J, d, n) into tiles that fit the cache, no later one larger.

    Returns:
        For each tile where it ends, and how many inputs it has up to the last one that is not zero in all samples.
    """
    samples, of_sample = inputs.shape[2], max(map(sum, pairwise(widths))) * inputs.element_size()
    tiles = math.ceil(samples * of_sample / CACHE_BYTES)
    size = max(64, math.ceil(samples / tiles / 16) * 16)  # the processor's vectors hold up to 16 numbers
    ends = [*range(size, samples, size), samples]
    used = [(tile != 0).any(2).any(0).nonzero() for tile in _once(inputs).tensor_split(ends[:-1], 2)]
    return np.array([(end, 1 + max(rows.flatten().tolist(), default=0)) for end, rows in zip(ends, used, strict=True)])


def _by_tiles(data: Tensor, tiles: np.ndarray) -> np.ndarray:
    """Return data (J, d, n) as (J, d n), tile after tile, or (1, d n) if all networks see the same."""
    parts = _once(data).tensor_split(tiles[:-1, 0].tolist(), 2)
    return torch.cat([part.flatten(1) for part in parts], 1).numpy()


def _once(data: Tensor) -> Tensor:
    """Return (1, d, n) of data that all networks see, else the data."""
    return data[:1] if is_shared(data) else data


@cache
def _kernel(cached: bool) -> Callable:
    """The compiled kernel; numba is loaded here, as who trains nothing need not wait for it."""
    from conslaw.training._kernel import compiled

    return compiled(cached)


_cache_is_usable = True


def _call(*arguments) -> None:
    """Train with the kernel that is kept on disk, or where that place is missing, full or damaged, with a fresh one."""
    global _cache_is_usable
    if _cache_is_usable:
        try:
            return _kernel(True)(*arguments)
        except Exception as error:  # numba raises whatever the disk and pickle raise, before a step is taken
            _cache_is_usable = False
            place = "; delete what NUMBA_CACHE_DIR or conslaw/training/__pycache__ holds"
            warnings.warn(f"compiled anew, as numba's cache cannot be used: {error!r}{place}", stacklevel=2)
    return _kernel(False)(*arguments)
