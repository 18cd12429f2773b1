"""`track`: the laws of a model in its user's own training, step by step, with any optimizer of torch.

A step w → w + d of any optimizer changes C = wᵀQw by exactly 2⟨Qw, d⟩ + dᵀQd. For gradient descent, d = −η g, the first
part is zero and the second η² gᵀQg; momentum, weight decay and Adam make a first part, too.
"""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from conslaw.models.families import Family
from conslaw.models.found import FoundLaws
from conslaw.models.objective import check_model, unwrapped
from conslaw.models.run import Run, Values

__all__ = ["track"]


def track(
    model: nn.Module,
    optimizer: Optimizer,
    laws: FoundLaws,
    *,
    every: int = 1,
    split: bool = True,
    observe: Mapping[str, Callable[[nn.Module], float]] | None = None,
    callback: Callable[[dict], None] | None = None,
) -> "Tracking":
    """Follow the laws of a model while it is trained inside a `with` block.

    Nothing of the training changes: the weights are the same, bit for bit, as without. Hooks of the optimizer see each
    step; they are removed at the end of the block, also when it is left by an error, and what was recorded is kept. A
    step that GradScaler skips is no step. All is computed in float64, in which the weights before and after a step, and
    their difference, are exact: the identity of the two parts with the measured change holds to rounding in float64
    whatever the precision of the training.

    Args:
        model: The model whose laws were found; it may be compiled or wrapped meanwhile.
        optimizer: Any optimizer of `torch.optim` that holds the parameters of the laws.
        laws: As returned by `conslaw.laws`.
        every: Number of steps between two records. Other steps cost nothing.
        split: Whether to split the change in a recorded step. It takes a copy of the parameters, from just before that
            step to just after it. Without it there is no copy, and no split.
        observe: Functions of the model to call at every record, by name of their column, such as
            `conslaw.models.curvature.ModelSharpness`. They must leave the model as it is.
        callback: Function that gets every row of the table when it is made, as a dictionary.

    Returns:
        A context manager that gives the run.

    Raises:
        TypeError: If the optimizer is none of torch's.
        ValueError: If it does not hold all parameters of the laws, these are not those of the model, or `every` is not
            a positive integer.

    >>> from conslaw.models.examples import mlp
    >>> from conslaw.models.found import laws
    >>> model, loss_fn = mlp(5, 7, 3), nn.functional.cross_entropy
    >>> inputs, targets = torch.randn(20, 5), torch.arange(20) % 3
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> with track(model, optimizer, laws(model, (inputs, targets), loss_fn)) as run:
    ...     for _ in range(3):
    ...         optimizer.zero_grad()
    ...         loss_fn(model(inputs), targets).backward()
    ...         optimizer.step()
    >>> run.steps.tolist(), run.identity_error < 1e-12
    ([0, 1, 2, 3], True)
    """
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer must be one of torch.optim, got {type(optimizer).__name__}")
    if not isinstance(laws, FoundLaws):
        raise TypeError(f"laws must be what conslaw.laws returns, got {type(laws).__name__}")
    if not isinstance(every, int) or every < 1:
        raise ValueError(f"every must be a positive integer, got {every!r}")
    parameters = dict(unwrapped(check_model(model)).named_parameters())
    names = {term.parameter for family in laws.families for term in family.form.terms}
    if missing := sorted(names - set(parameters)):
        raise ValueError(f"laws must be those of this model, which has no parameter {', '.join(missing[:3])}")
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if missing := sorted(name for name in names if id(parameters[name]) not in held):
        raise ValueError(f"optimizer must hold the parameters of the laws, but not {', '.join(missing[:3])}")
    return Tracking(model, optimizer, laws, every, split, dict(observe or {}), callback)


class Tracking:
    """A context manager that records; made by `track`."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        laws: FoundLaws,
        every: int,
        split: bool,
        observe: Mapping[str, Callable[[nn.Module], float]],
        callback: Callable[[dict], None] | None,
    ):
        """Take what `track` has checked."""
        self._model, self._optimizer = model, optimizer
        self._every, self._split, self._observe, self._callback = every, split, observe, callback
        self._parameters = dict(unwrapped(model).named_parameters())
        self._names = {term.parameter for family in laws.families for term in family.form.terms}
        self._hooks, self._before, self._steps = [], None, 0
        self.run = Run(laws)

    def __enter__(self) -> Run:
        """Record the start, and hook into the optimizer's steps."""
        if self._hooks or self._steps:
            raise RuntimeError("this tracking has begun already; call track again for another")
        self._record(None)
        self._hooks = [
            self._optimizer.register_step_pre_hook(self._before_step),
            self._optimizer.register_step_post_hook(self._after_step),
        ]
        return self.run

    def __exit__(self, *error: object) -> None:
        """Remove the hooks, and record the end."""
        while self._hooks:
            self._hooks.pop().remove()
        self._before = None
        if self.run.records[-1].step != self._steps and error[0] is None:
            self._record(None)

    def _before_step(self, *_: object) -> None:
        if self._split and (self._steps + 1) % self._every == 0:
            self._before = {name: self._parameters[name].detach().clone() for name in self._names}

    def _after_step(self, optimizer: Optimizer, *_: object) -> None:
        before, self._before = self._before, None
        # GradScaler calls the step of a fused optimizer also when it is to be skipped, and tells it so.
        skipped = getattr(optimizer, "found_inf", None)
        if skipped is not None and bool(skipped):
            return
        self._steps += 1
        if self._steps % self._every == 0:
            self._record(before)

    @torch.no_grad()
    def _record(self, before: Mapping[str, Tensor] | None) -> None:
        """Record the laws now, and the parts of their change since the weights before."""
        now = _Doubled(self._parameters)
        values = [_values(family, now, before and _Doubled(before)) for family in self.run.laws.families]
        rates = [float(group["lr"]) for group in self._optimizer.param_groups]
        with torch.enable_grad():
            observed = {name: float(function(self._model)) for name, function in self._observe.items()}
        self.run.add(self._steps, rates[0], values, observed)
        if self._callback:
            for row in self.run.rows(-1):
                self._callback(row)


def _values(family: Family, now: Mapping[str, Tensor], before: Mapping[str, Tensor] | None) -> Values:
    """Values of a family's laws, and the parts of their change."""
    if before is None:
        return Values(family.form(now).cpu(), None, None, None)
    step = family.form.step(before, now)
    size = torch.maximum(family.form.size(before), family.form.size(now))
    error = (step.after - step.before - step.first - step.second).abs() / size.clamp(min=torch.finfo(size.dtype).tiny)
    return Values(step.after.cpu(), step.first.cpu(), step.second.cpu(), error.amax().item())


class _Doubled(Mapping):
    """Parameters in float64, each made when it is asked for, so that no copy of all of them is kept."""

    def __init__(self, parameters: Mapping[str, Tensor]):
        self._parameters = parameters

    def __getitem__(self, name: str) -> Tensor:
        return self._parameters[name].detach().double()

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def __len__(self) -> int:
        return len(self._parameters)
