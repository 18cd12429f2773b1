"""Laws proposed: each free exponent of a model's scalings conserves one, and laws of one form make a family."""

from collections import defaultdict

import torch
from torch import Tensor

from conslaw.models.exponents import Exponents
from conslaw.models.families import Family, Slices
from conslaw.models.walk import Scaling
from conslaw.quadratic import QuadraticLaws, Term

__all__ = ["families_of"]


def families_of(scaling: Scaling) -> list[Family]:
    """Turn every free exponent into a law, and laws of one form into families.

    A scaling with exponents λ conserves Σ λ w²; its sign is chosen so that what reads a channel counts positive, as in
    C = ‖outgoing‖² − ‖incoming‖².

    Args:
        scaling: As found by `scaling_of`.

    Returns:
        The families, matrices where channels may be mixed.
    """
    exponents = scaling.exponents
    slices: dict[int, dict[tuple, list[int]]] = defaultdict(lambda: defaultdict(list))
    for name, axes in scaling.slices.items():
        for axis, unknowns in axes:
            for place, unknown in enumerate(unknowns.tolist()):
                for free, factor in exponents.solution(unknown).items():
                    slices[free][name, axis, float(factor)].append(place)
    alike: dict[tuple, list[int]] = defaultdict(list)
    for free, taken in slices.items():
        _drop_nothing(taken, scaling)
        if taken:
            alike[tuple((*key, len(places)) for key, places in taken.items())].append(free)
    known = _Known(scaling)
    sizes = {
        (name, axis): (len(unknowns), scaling.sizes[name] // len(unknowns))
        for name, axes in scaling.slices.items()
        for axis, unknowns in axes
    }
    families = []
    for form, members in alike.items():
        for free in known.blocks(members):
            kind = known.kind(members, form, pairs=free.dim() > 1)
            writes = kind == "stream" or all(factor > 0 for *_, factor, _ in form)
            terms = []
            for *key, _ in form:
                index = torch.tensor([slices[f][tuple(key)] for f in free.flatten().tolist()])
                view = Slices(key[1], index.view(*free.shape, -1))
                terms.append(Term(key[0], view, key[2] if writes else -key[2]))
            terms.sort(key=lambda term: -term.factor)
            quadratic = QuadraticLaws(tuple(terms), pairs=free.dim() > 1)
            families.append(Family(quadratic, kind, sizes, known.neglected(members)))
    return families


def _drop_nothing(taken: dict[tuple, list[int]], scaling: Scaling) -> None:
    """Drop what multiplies all rows of a parameter by a factor and divides all its columns by the same."""
    for name in {key[0] for key in taken}:
        sizes = {axis: len(unknowns) for axis, unknowns in scaling.slices[name]}
        entire = [key for key, places in taken.items() if key[0] == name and len(places) == sizes[key[1]]]
        if len(entire) > 1 and sum(factor for *_, factor in entire) == 0:
            for key in entire:
                del taken[key]


class _Known:
    """What is known of free exponents: sets of unknowns, carried over to those that they were expressed by."""

    def __init__(self, scaling: Scaling):
        exponents = scaling.exponents
        self.kinds = {kind: _free(exponents, unknowns) for kind, unknowns in scaling.kinds.items()}
        self.fixed = _free(exponents, scaling.fixed)
        self.lacks = {text: _free(exponents, unknowns) for text, unknowns in scaling.neglected.items()}
        self.cells = []
        for cells in scaling.cells:
            places: dict[int, int] = {}
            for unknown, place in sorted(cells.items(), key=lambda item: item[1]):
                for free in exponents.solution(unknown):
                    places.setdefault(free, place)
            self.cells.append(places)

    def blocks(self, members: list[int]) -> list[Tensor]:
        """Free exponents that belong together: (laws,), or (blocks, n) where n channels at a time may be mixed."""
        if self.fixed.intersection(members):
            return [torch.tensor(members)]
        together = defaultdict(list)
        for free in members:
            together[tuple(cells.get(free) for cells in self.cells)].append(free)
        by_size = defaultdict(list)
        for block in together.values():
            by_size[len(block)].append(block)
        single = [torch.tensor([block[0] for block in by_size.pop(1)])] if 1 in by_size else []
        return single + [torch.tensor(blocks) for blocks in by_size.values()]

    def kind(self, members: list[int], form: tuple, *, pairs: bool) -> str:
        """One of `KINDS`."""
        free = members[0]
        if free in self.kinds["head"]:
            return "head"
        if pairs:
            return "matrix"
        writers = {name.rpartition(".")[0] for name, _, factor, count in form if factor > 0 and count > 1}
        if free in self.kinds["stream"] and len(writers) > 1:
            return "stream"
        if free in self.kinds["norm"] or len({factor > 0 for _, _, factor, _ in form}) == 1:
            return "norm"
        return "channel" if free in self.kinds["channel"] else "unit"

    def neglected(self, members: list[int]) -> tuple[str, ...]:
        """What was neglected for them."""
        return tuple(text for text, free in self.lacks.items() if free.intersection(members))


def _free(exponents: Exponents, unknowns: set[int]) -> set[int]:
    """The free exponents by which unknowns are expressed."""
    return {free for unknown in unknowns for free in exponents.solution(unknown)}
