"""Steps of small networks on a CPU, compiled; each network is trained by itself.

In `_batched` all networks take each operation together, which moves every activation through memory several times a
step.
"""

import warnings
from collections.abc import Callable, Set
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from conslaw.problems import Problem
from conslaw.training._steps import Steps

__all__ = ["CompiledSteps"]

LARGEST_INPUTS = 2**18
"""Bytes of a network's inputs. Larger ones, such as MNIST's, which all networks share, are left to torch."""


class CompiledSteps:
    """J networks in training by gradient descent, see `Stepper`."""

    def __init__(self, networks: Problem, rates: Tensor):
        """Start.

        Args:
            networks: Networks that this `takes`; their weights are changed in place.
            rates: η, shape (J,), float64.
        """
        self.networks, self._rates = networks, rates
        self._inputs, self._targets = networks.inputs.contiguous(), networks.targets.contiguous()

    @staticmethod
    def takes(networks: Problem) -> bool:
        """Tell whether networks can be trained here: float64 on a CPU, small inputs, no biases, piecewise linear.

        Linear networks are left to torch, where the order of their products is free.
        """
        inputs = networks.inputs
        return (
            networks.sigma.slope not in (None, 1)
            and not networks.biases
            and networks.depth > 1
            and inputs.device.type == "cpu"
            and inputs.dtype == torch.float64
            and inputs[0].numel() * inputs.element_size() <= LARGEST_INPUTS
        )

    def advance(self, steps: range, updates: int, recorded: Set[int]) -> Steps:
        """Take some steps, see `Stepper`."""
        networks, weights = self.networks, self.networks.weights
        sizes = [weight[0].numel() for weight in weights]
        parameters = torch.cat([weight.flatten(1) for weight in weights], 1)
        widths = np.array([self._inputs.shape[1], *(weight.shape[1] for weight in weights)])
        losses = parameters.new_empty(len(parameters), len(steps))
        squares = parameters.new_empty(len(parameters), len(steps), 2, len(sizes))
        arrays = (parameters, self._inputs, self._targets, self._rates, losses, squares)
        options = (widths, updates, networks.sigma.slope, networks.entropy_weight, networks.samples)

        def train(part: slice) -> None:
            _call(*(array[part].numpy() for array in arrays), *options)

        threads = min(len(parameters), torch.get_num_threads())
        ends = [len(parameters) * thread // threads for thread in range(threads + 1)]
        parts = [slice(*part) for part in pairwise(ends)]
        if threads > 1:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(train, parts))
        else:
            train(*parts)
        for weight, trained in zip(weights, parameters.split(sizes, 1), strict=True):
            weight.copy_(trained.view_as(weight))
        gradients, of_weights = squares.transpose(0, 1).unbind(2)
        return Steps(losses.mT, gradients, of_weights[[step in recorded for step in steps]])

    def keep(self, survivors: Tensor) -> None:
        """Go on with these networks only, see `Stepper`."""
        self.networks, self._rates = self.networks.select(survivors), self._rates[survivors]
        self._inputs, self._targets = self._inputs[survivors], self._targets[survivors]


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
