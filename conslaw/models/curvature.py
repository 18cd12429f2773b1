"""How sharp the loss of any torch model is: λ_max by Lanczos, and the learning rate at which a step stops to help."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from conslaw.eigenvalues import lanczos
from conslaw.models.objective import evaluate, unwrapped

__all__ = ["CriticalLearningRate", "ModelSharpness"]


class ModelSharpness:
    """The largest eigenvalue of the Hessian of a model's loss on a batch, for `observe` of `track`.

    It starts from the last eigenvector. The model is left as it is: buffers and random numbers too.

    >>> linear = nn.Linear(3, 1, bias=False).double()
    >>> inputs = torch.eye(3).double() * torch.tensor([1.0, 2.0, 3.0])  # the Hessian is 2/3 XᵀX
    >>> batch = inputs, torch.zeros(3, 1).double()
    >>> round(ModelSharpness(batch, nn.functional.mse_loss)(linear), 6)
    6.0
    """

    def __init__(self, batch: object, loss_fn: Callable | None, *, tolerance: float = 1e-3, iterations: int = 50):
        """Take a batch.

        Args:
            batch: As for `laws`, in the precision and on the device of the model.
            loss_fn: Likewise.
            tolerance: Relative residual at which to stop.
            iterations: Largest number of Hessian-vector products; as many vectors of the size of the model are kept.
        """
        self._batch, self._loss_fn = batch, loss_fn
        self._tolerance, self._iterations = tolerance, iterations
        self._vector: Tensor | None = None

    def __call__(self, model: nn.Module) -> float:
        """Compute λ_max; NaN where the iteration has not converged."""
        parameters = {n: p.detach().requires_grad_() for n, p in unwrapped(model).named_parameters() if p.requires_grad}
        with _loss(model, self._batch, self._loss_fn) as loss:
            leaves = list(parameters.values())
            gradients = torch.autograd.grad(loss(parameters), leaves, create_graph=True, materialize_grads=True)
            flat = torch.cat([g.flatten() for g in gradients])

            def product(vectors: Tensor) -> Tensor:
                found = torch.autograd.grad(flat, leaves, vectors[0], retain_graph=True, materialize_grads=True)
                return torch.cat([g.flatten() for g in found]).unsqueeze(0)

            start = torch.zeros_like(flat).detach().unsqueeze(0) if self._vector is None else self._vector
            top = lanczos(product, start, tolerance=self._tolerance, iterations=min(self._iterations, flat.numel()))
        converged = bool(top.converged)
        self._vector = top.vectors[:, 0] if converged else None
        return top.values.item() if converged else float("nan")


class CriticalLearningRate:
    """The learning rate η_c at which a step along the gradient no longer lowers the loss, for `observe` of `track`.

    2/η_c is a sharpness along the gradient, at the cost of a few forward passes (arXiv:2601.16979): for a quadratic
    loss it is gᵀHg / gᵀg.

    >>> linear = nn.Linear(1, 1, bias=False).double()
    >>> batch = torch.ones(1, 1).double(), torch.full((1, 1), 5.0).double()  # L = (w − 5)², H = 2
    >>> round(CriticalLearningRate(batch, nn.functional.mse_loss, tolerance=1e-6)(linear), 4)
    1.0
    """

    def __init__(self, batch: object, loss_fn: Callable | None, *, tolerance: float = 0.05):
        """Take a batch.

        Args:
            batch: As for `laws`, in the precision and on the device of the model.
            loss_fn: Likewise.
            tolerance: Relative precision.
        """
        self._batch, self._loss_fn, self._tolerance = batch, loss_fn, tolerance
        self._last = 1.0

    def __call__(self, model: nn.Module) -> float:
        """Search from the last η_c; infinite where no step up to 1e6 times it raises the loss, NaN at a minimum."""
        parameters = {n: p.detach().requires_grad_() for n, p in unwrapped(model).named_parameters() if p.requires_grad}
        with _loss(model, self._batch, self._loss_fn) as loss:
            start = loss(parameters)
            found = torch.autograd.grad(start, list(parameters.values()), materialize_grads=True)
            if not any(bool(g.any()) for g in found):
                return float("nan")
            gradients = dict(zip(parameters, found, strict=True))

            @torch.no_grad()
            def helps(rate: float) -> bool:
                moved = {name: p - rate * gradients[name] for name, p in parameters.items()}
                return bool(loss(moved) < start)

            low = high = self._last
            while helps(high):
                low, high = high, 2 * high
                if high > 1e6 * self._last:
                    return float("inf")
            while low == high or not helps(low):
                low, high = low / 2, low
                if low < 1e-12 * self._last:
                    return float("nan")
            while high / low > 1 + self._tolerance:
                middle = (low * high) ** 0.5
                low, high = (middle, high) if helps(middle) else (low, middle)
        self._last = (low * high) ** 0.5
        return self._last


@contextmanager
def _loss(model: nn.Module, batch: object, loss_fn: Callable | None) -> Iterator[Callable[[Mapping], Tensor]]:
    """The loss as a function of the parameters, that changes neither buffers nor random numbers."""
    inside = unwrapped(model)

    def loss(parameters: Mapping[str, Tensor]) -> Tensor:
        buffers = {name: b.clone() for name, b in inside.named_buffers()}
        torch.manual_seed(0)
        call = lambda *args, **kwargs: functional_call(inside, {**buffers, **parameters}, args, kwargs)  # noqa: E731
        return evaluate(call, batch, loss_fn)

    devices = {p.device for p in inside.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices), sdpa_kernel(SDPBackend.MATH):
        yield loss
