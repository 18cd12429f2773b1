"""Tensors of M networks: what they must be, checked once where a problem is made."""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["as_dtype", "check_probabilities", "check_tensors", "expect", "is_shared"]


def as_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """Return float32 or float64, given as a torch type or by its name.

    Raises:
        ValueError: If it is another type.
    """
    known = {"float32": torch.float32, "float64": torch.float64}
    found = known.get(dtype) if isinstance(dtype, str) else dtype
    if found not in known.values():
        raise ValueError(f"dtype must be float32 or float64, got {dtype}")
    return found


def is_shared(inputs: Tensor) -> bool:
    """Tell whether all networks see one and the same tensor, expanded.

    Args:
        inputs: Shape (M, d, n).

    Returns:
        Whether M > 1 networks share one entry.
    """
    return len(inputs) > 1 and inputs.stride(0) == 0


def expect(name: str, tensor: object, shape: tuple[int, ...], like: Tensor | None = None) -> None:
    """Check that a tensor has the given shape, and dtype and device of another one; or that it may be such another."""
    if not isinstance(tensor, Tensor):
        raise ValueError(f"{name} must be a tensor, got {type(tensor).__name__}; as_problem takes other arrays")
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(tensor.shape)}")
    if like is None and tensor.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{name} must be float32 or float64, got {tensor.dtype}")
    if like is not None and (tensor.dtype, tensor.device) != (like.dtype, like.device):
        wanted, found = (f"{t.dtype} on {t.device}" for t in (like, tensor))
        raise ValueError(f"{name} must be {wanted}, as inputs are, got {found}")


def check_tensors(weights: Sequence[Tensor], biases: Sequence[Tensor], inputs: Tensor, targets: Tensor) -> None:
    """Check shapes, dtypes, devices and numbers of M networks and their data, see `Problem`.

    Raises:
        ValueError: If a tensor does not fit; the message names it, what it is and what the others ask for.
    """
    if not isinstance(inputs, Tensor) or inputs.dim() != 3 or 0 in inputs.shape:
        raise ValueError(f"inputs must be a tensor of shape (M, d, n), none of them 0, got {_shape(inputs)}")
    networks, width, samples = inputs.shape
    expect("inputs", inputs, (networks, width, samples))
    if not weights:
        raise ValueError("weights must be at least one tensor, got none")
    for layer, weight in enumerate(weights):
        if not isinstance(weight, Tensor) or weight.dim() != 3 or weight.shape[1] == 0:
            form = "a tensor of shape (M, out, in), none of them 0"
            raise ValueError(f"weights[{layer}] must be {form}, got {_shape(weight)}")
        expect(f"weights[{layer}]", weight, (networks, weight.shape[1], width), inputs)
        width = weight.shape[1]
    if biases and len(biases) != len(weights):
        raise ValueError(f"biases must be none, or one for each of the {len(weights)} layers, got {len(biases)}")
    for layer, (bias, weight) in enumerate(zip(biases, weights, strict=False)):
        expect(f"biases[{layer}]", bias, (networks, weight.shape[1]), inputs)
    expect("targets", targets, (networks, width, samples), inputs)

    names = [*(f"weights[{i}]" for i in range(len(weights))), *(f"biases[{i}]" for i in range(len(biases)))]
    for name, tensor in zip([*names, "inputs", "targets"], [*weights, *biases, inputs, targets], strict=True):
        if tensor.requires_grad:
            raise ValueError(f"{name} must not require grad; pass a detached copy of it")
        once = tensor[:1] if is_shared(tensor) else tensor
        if not tensor.is_meta and not bool(once.isfinite().all()):
            raise ValueError(f"{name} must be finite, got {int((~once.isfinite()).sum())} values that are not")


def check_probabilities(targets: Tensor) -> None:
    """Check that targets (M, K, n) are probabilities over the classes, as cross-entropy needs them.

    Raises:
        ValueError: If they are not.
    """
    if targets.is_meta:
        return
    if bool((targets < 0).any()) or not torch.allclose(targets.sum(1), torch.ones_like(targets[:, 0]), atol=1e-5):
        raise ValueError(
            "targets must be probabilities under cross-entropy, non-negative and with sum 1 over the classes; "
            'for other targets take loss="mse"'
        )


def _shape(value: object) -> object:
    """The shape of a tensor, or the type of anything else."""
    return tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
