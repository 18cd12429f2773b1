"""The loss of any torch model on a batch as a function of its parameters, in float64, with the model left as it is."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["Objective", "check_model", "evaluate", "unwrapped"]

LOW = {torch.float16: torch.float64, torch.bfloat16: torch.float64, torch.float32: torch.float64}

READS = {Tensor.item, Tensor.tolist, Tensor.__bool__, Tensor.__int__, Tensor.__float__, Tensor.__index__}


class Objective:
    """The loss as a function of the parameters w.

    Everything is in float64, also what the model itself casts to float32: a law is a statement of arithmetic, and in
    float32 rounding and the ε of a norm cannot be told apart. Buffers, such as the running means of BatchNorm, are
    copies; the random numbers of dropout are the same in every call.
    """

    def __init__(self, model: nn.Module, batch: object, loss_fn: Callable | None):
        """Copy parameters and buffers.

        Args:
            model: Any module.
            batch: As `evaluate` takes it.
            loss_fn: Likewise.

        Raises:
            TypeError: If the model is none.
            ValueError: If it has no parameters to train, or they have no numbers yet.
        """
        self.model = unwrapped(check_model(model))
        prefix = next((name for name, module in model.named_modules() if module is self.model), "")
        self.prefix = f"{prefix}." if prefix else ""
        self.batch, self.loss_fn = tree_map(_doubled, batch), loss_fn
        own = dict(self.model.named_parameters())
        self.parameters = {name: _doubled(p.detach()) for name, p in own.items() if p.requires_grad}
        self.frozen = {name: _doubled(p.detach()) for name, p in own.items() if not p.requires_grad}
        if not self.parameters:
            raise ValueError("model must have parameters that require a gradient, got none")

    def loss(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Compute L(w).

        Args:
            parameters: By the names of `parameters`, float64.

        Returns:
            A scalar.

        Raises:
            ValueError: If the loss is none.
        """
        buffers = {name: _doubled(b.clone()) for name, b in self.model.named_buffers()}
        state = {**self.frozen, **buffers, **parameters}
        devices = {p.device for p in parameters.values() if p.device.type == "cuda"}
        default = torch.get_default_dtype()
        with torch.random.fork_rng(devices), _InDouble(), sdpa_kernel(SDPBackend.MATH):
            torch.manual_seed(0)
            torch.set_default_dtype(torch.float64)
            try:
                call = lambda *args, **kwargs: functional_call(self.model, state, args, kwargs)  # noqa: E731
                return evaluate(call, self.batch, self.loss_fn)
            finally:
                torch.set_default_dtype(default)

    def gradients(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute ∇L(w) by one backward pass.

        Args:
            parameters: As for `loss`.

        Returns:
            By name; parameters that the loss does not depend on are left out.

        Raises:
            ValueError: If the loss or a gradient is not finite.
        """
        leaves = {name: p.detach().requires_grad_() for name, p in parameters.items()}
        with torch.enable_grad():
            loss = self.loss(leaves)
        if not loss.requires_grad:
            raise ValueError("the loss must depend on the parameters of model by way of autograd, but does not")
        found = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values()), allow_unused=True), strict=True))
        for name, tensor in {
            "the loss": loss.detach(),
            **{f"the gradient of {n}": g for n, g in found.items()},
        }.items():
            if tensor is not None and not bool(tensor.isfinite().all()):
                raise ValueError(f"{name} is not finite on this batch, near the present weights")
        return {name: gradient for name, gradient in found.items() if gradient is not None}

    def perturbed(self, seed: int, scale: float = 0.1) -> dict[str, Tensor]:
        """Return other weights nearby, w + σ N(0, 1), with σ = scale · rms(w), or scale where w is zero."""
        generator, result = torch.Generator().manual_seed(seed), {}
        for name, p in self.parameters.items():
            noise = torch.randn(p.shape, generator=generator, dtype=torch.float64, device="cpu").to(p.device)
            size = p.square().mean().sqrt()
            result[name] = p + scale * torch.where(size > 0, size, 1.0) * noise
        return result

    def graph(self) -> GraphModule:
        """Trace the operations from the parameters to the loss, for this batch.

        Returns:
            A graph of torch.fx with ATen operations, whose placeholders are the parameters in their order.
        """
        with torch.no_grad():
            return make_fx(lambda parameters: self.loss(parameters))(self.parameters)


def evaluate(model: Callable, batch: object, loss_fn: Callable | None) -> Tensor:
    """Compute the loss of a model on a batch.

    Args:
        model: The model, or what stands for it.
        batch: A pair (inputs, targets), where inputs is a tensor, a tuple of arguments or a mapping of keyword
            arguments; or a mapping of keyword arguments alone, as for the models of transformers.
        loss_fn: Function of the model's outputs and the targets, or of the outputs alone for a batch that is a mapping;
            by default their attribute `loss`.

    Returns:
        A scalar.

    Raises:
        ValueError: If the batch has another form, or the loss is no scalar.
    """
    if isinstance(batch, Mapping):
        outputs = model(**batch)
        loss = getattr(outputs, "loss", None) if loss_fn is None else loss_fn(outputs)
    elif isinstance(batch, tuple | list) and len(batch) == 2 and loss_fn is not None:
        inputs, targets = batch
        if isinstance(inputs, Mapping):
            outputs = model(**inputs)
        else:
            outputs = model(*inputs) if isinstance(inputs, tuple | list) else model(inputs)
        loss = loss_fn(outputs, targets)
    else:
        kind = f"{type(batch).__name__} with loss_fn {'None' if loss_fn is None else 'given'}"
        raise ValueError(
            f"batch must be a pair (inputs, targets) with a loss_fn, or a mapping of arguments, got {kind}"
        )
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        found = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(f"the loss must be a scalar tensor, got {found}; loss_fn may need reduction='mean'")
    return loss.reshape(())


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside torch.compile, DataParallel and DistributedDataParallel."""
    while True:
        if hasattr(model, "_orig_mod"):
            model = model._orig_mod
        elif isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        else:
            return model


def check_model(model: object) -> nn.Module:
    """Check that a model is a module whose parameters have numbers.

    Raises:
        TypeError: If it is no module.
        ValueError: If a parameter is on the meta device or not initialised.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    for name, p in model.named_parameters():
        if isinstance(p, nn.parameter.UninitializedParameter):
            raise ValueError(f"parameter {name} of model is not initialised; run the model once on a batch")
        if p.is_meta:
            raise ValueError(f"parameter {name} of model is on the meta device and has no numbers; use model.to_empty")
    return model


class _InDouble(TorchFunctionMode):
    """Casts to lower precision become casts to float64."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Call the function with float64 in place of lower precision; read numbers also while tracing."""
        if func in READS:
            with disable_proxy_modes_tracing():
                return func(*args, **(kwargs or {}))
        if func in (Tensor.float, Tensor.half, Tensor.bfloat16):
            func = Tensor.double
        lower = any(isinstance(leaf, torch.dtype) for leaf in tree_leaves((args, kwargs)))
        if lower:
            args, kwargs = tree_map(lambda x: LOW.get(x, x) if isinstance(x, torch.dtype) else x, (args, kwargs))
        return func(*args, **(kwargs or {}))


def _doubled(value: object) -> object:
    """A tensor of real numbers in float64, anything else as it is."""
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
