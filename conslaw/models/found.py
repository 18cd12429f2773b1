"""`laws`: the conservation laws of any torch model, proposed from its structure and verified by backward passes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from conslaw.models.constants import all_sums, constant_sums
from conslaw.models.families import Family, family_of
from conslaw.models.objective import Objective
from conslaw.models.proposals import families_of
from conslaw.models.scaling import scaling_of
from conslaw.models.verification import Rejection, Verified, verify
from conslaw.models.walk import Scaling
from conslaw.quadratic import QuadraticLaws

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FoundLaws", "Law", "laws"]


@dataclass(frozen=True)
class Law:
    """One law."""

    where: str
    """The unit, channel, head or tensor whose law it is."""
    kind: str
    """One of `conslaw.models.KINDS`."""
    formula: str
    """What is conserved; a matrix with all its entries."""
    residual: float
    """|⟨Qw, ∇L⟩| relative to the size of its terms, the largest over perturbed weights."""


class FoundLaws(Sequence):
    """The verified laws of a model, one for each hidden unit, channel, head, norm and so on."""

    def __init__(self, verified: Sequence[Verified], rejected: Sequence[Rejection], prefix: str = ""):
        """Hold what was found.

        Args:
            verified: Families with their residuals.
            rejected: What is no law, with the reason.
            prefix: What the names of parameters have before them in the model as it was given.
        """
        self.families: tuple[Family, ...] = tuple(entry.family for entry in verified)
        """The laws as forms, by names of parameters of the unwrapped model."""
        self.residuals = tuple(entry.residuals for entry in verified)
        """Of each family, shape (laws,)."""
        self.rejected = tuple(rejected)
        """What was proposed, or is often taken for a law, and is none."""
        self.prefix = prefix

    def __len__(self) -> int:
        """Number of laws; a matrix counts as one."""
        return sum(map(len, self.families))

    def __iter__(self) -> Iterator[Law]:
        """Go through the laws."""
        for family, residuals in zip(self.families, self.residuals, strict=True):
            for place, residual in enumerate(residuals.tolist()):
                yield Law(family.where(place), family.kind, family.formula(place), residual)

    def __getitem__(self, number: int | slice) -> Law | list[Law]:
        """One law, or several."""
        return list(self)[number]

    @property
    def table(self) -> "pd.DataFrame":
        """One row per law: where, kind, formula, residual. Needs pandas."""
        import pandas as pd

        return pd.DataFrame([vars(law) for law in self], columns=["where", "kind", "formula", "residual"])

    def __repr__(self) -> str:
        """A table with one line for each family, and what is no law."""
        lines = [["laws", "kind", "first of them", "formula", "residual"]]
        for family, residuals in zip(self.families, self.residuals, strict=True):
            worst = f"{residuals.max().item():.0e}"
            lines.append([str(len(family)), family.kind, family.where(0), family.formula(0), worst])
        text = f"{len(self)} laws\n{_aligned(lines)}"
        if self.rejected:
            entries = [["", "kind", "first of them", "formula", "why it is no law"]]
            entries += [[str(r.count), r.kind, r.where, r.formula, _reason(r)] for r in self.rejected]
            text += f"\nno laws\n{_aligned(entries)}"
        return text


def laws(
    model: nn.Module,
    batch: object,
    loss_fn: Callable | None = None,
    *,
    tolerance: float = 1e-10,
    groups: Sequence[QuadraticLaws] = (),
) -> FoundLaws:
    """Find the conservation laws of a model's loss, and verify each.

    The model is traced on the batch, in float64, and every operation says how scalings go through it (`scaling_of`).
    What may be scaled is a law by Noether's argument, C = wᵀQw. Each is then verified: the residual |⟨Qw, ∇L⟩|,
    relative to the size of its terms, on perturbed weights, by one backward pass for all. The model is left as it is:
    weights, buffers, gradients, mode and random numbers. It is taken in the mode it is in: BatchNorm has other laws
    in training than in evaluation.

    Args:
        model: Any module, also compiled or wrapped by DataParallel.
        batch: A pair (inputs, targets), where inputs is what the model takes: a tensor, a tuple of arguments or a
            mapping of keyword arguments. Or a mapping of keyword arguments alone, as for the models of transformers.
            A few samples are enough.
        loss_fn: Function of the outputs and the targets, that returns a scalar; for a batch that is a mapping, of the
            outputs, whose attribute `loss` it is by default.
        tolerance: Largest residual. A law that holds but for the ε of a norm has one of about ε over the variance, and
            is rejected by the default; 1e-3 lets it pass.
        groups: Laws of one's own to verify besides, as forms with the names of parameters.

    Returns:
        The laws, which print as a table; `rejected` has what is no law.

    Raises:
        TypeError: If the model is no module.
        ValueError: If the batch does not fit, the loss is no scalar or not finite, or the model has no numbers.

    >>> from conslaw.models.examples import mlp
    >>> found = laws(mlp(5, 7, 3), (torch.randn(40, 5), torch.arange(40) % 3), nn.functional.cross_entropy)
    >>> found[0].kind, found[0].formula
    ('unit', '‖2.weight[:, 0]‖² − ‖0.weight[0]‖² − 0.bias[0]²')
    """
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance must be between 0 and 1, got {tolerance}")
    objective = Objective(model, batch, loss_fn)
    objective.gradients(objective.parameters)  # what is wrong with the batch, the loss or the weights shows here
    proposals, rejected = [], []
    try:
        scaling = scaling_of(objective.graph(), objective.parameters)
    except Exception as error:
        # What tracing meets in foreign code cannot be foreseen; laws of one's own are verified all the same.
        reason = f"not traced ({type(error).__name__}: {error}); pass groups="
        rejected.append(Rejection(type(objective.model).__name__, "unit", 1, "", torch.nan, reason))
    else:
        proposals = families_of(scaling)
        rejected += _pinned(scaling)
    proposals += [family_of(form, objective.parameters) for form in groups]
    kept, failed, moving = verify([*proposals, *all_sums(objective)], objective, tolerance)
    verified = [entry for entry in kept if entry.family.kind != "constant"]
    verified += constant_sums([entry for entry in kept if entry.family.kind == "constant"], objective, tolerance)
    still = {name: "the loss does not depend on it" for name in objective.parameters if name not in moving}
    still |= dict.fromkeys(objective.frozen, "it is frozen, and has no law of its own")
    rejected += [Rejection(name, "parameter", 1, "", torch.nan, reason) for name, reason in still.items()]
    failed = [entry for entry in failed if entry.where not in still]
    return FoundLaws(verified, [*rejected, *failed], objective.prefix)


def _pinned(scaling: Scaling) -> list[Rejection]:
    """Hidden units and channels that an operation keeps from scaling."""
    rejected = []
    for name, labels in scaling.hidden.items():
        reasons: dict[str, list[int]] = {}
        for place, unknown in enumerate(labels.tolist()):
            if unknown and not scaling.exponents.solution(unknown) and (why := scaling.exponents.reason(unknown)):
                reasons.setdefault(why, []).append(place)
        module = name.rpartition(".")[0] or name
        kind = "channel" if labels[0].item() in scaling.kinds["channel"] else "unit"
        rejected += [
            Rejection(f"{module}[{places[0]}]", kind, len(places), "‖out‖² − ‖in‖²", torch.nan, reason)
            for reason, places in reasons.items()
        ]
    return rejected


def _reason(rejection: Rejection) -> str:
    residual = rejection.residual
    return rejection.reason + (f": residual {residual:.0e}" if residual == residual else "")


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = ("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines)
    return "\n".join(f"  {row}" for row in rows)
