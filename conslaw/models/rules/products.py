"""Products: linear layers, attention, embeddings, and products entry by entry."""

import torch
from torch import Tensor
from torch.fx import Node

from conslaw.models.labels import Labelled, compact, tightened, varying
from conslaw.models.walk import Walk, rule, shape_of

__all__: list[str] = []


def contract(walk: Walk, left: Labelled, right: Labelled, shape: tuple[int, ...]) -> Labelled:
    """Σ_k left[b, n, k] right[b, k, m]: in every such sum all products have one exponent."""
    free = {side.parameter for side in (left, right) if side.parameter and side.parameter not in walk.used}
    walk.used |= free
    outer = [t[..., :1].expand(shape) for t in left.terms if -1 not in varying(t)]
    outer += [t[..., :1, :].expand(shape) for t in right.terms if -2 not in varying(t)]
    inner = [[t for t in left.terms if -1 in varying(t)], [t.mT for t in right.terms if -2 in varying(t)]]
    if inner[0] or inner[1]:
        outer.append(_equal_products(walk, inner, shape, gauge=bool(free)))
    if not (left.parameter or right.parameter):
        for value in (left, right):
            walk.note("head", value)
            _apart(walk, value)
    result = Labelled(shape, [tightened(term) for term in outer])
    return Labelled(shape, [walk.single(result)]) if len(outer) > 1 else result


def _equal_products(walk: Walk, inner: list[list[Tensor]], shape: tuple[int, ...], *, gauge: bool) -> Tensor:
    """Equate the exponents of all products in each sum over k; those of the sums, expanded to a shape."""
    patterns, places = [], []
    for terms in inner:
        if not terms:
            patterns.append(None)
            places.append(torch.zeros([1] * len(shape), dtype=torch.int64))
            continue
        stacked = torch.stack(torch.broadcast_tensors(*(compact(term) for term in terms)), -1)
        rows, place = stacked.flatten(-2).flatten(0, -2).unique(dim=0, return_inverse=True)
        patterns.append(rows.unflatten(1, stacked.shape[-2:]))
        places.append(place.view(*stacked.shape[:-2], 1))
    first, second = places[0], places[1].mT
    pairs = torch.stack(torch.broadcast_tensors(first, second), -1)
    kinds, place = pairs.flatten(0, -2).unique(dim=0, return_inverse=True)
    sums = torch.zeros(1, dtype=torch.int64) if gauge and len(kinds) == 1 else walk.exponents.new(len(kinds))
    for (one, other), total in zip(kinds.tolist(), sums.tolist(), strict=True):
        parts = [patterns[side][i] for side, i in ((0, one), (1, other)) if patterns[side] is not None]
        for row in torch.cat(parts, 1).unique(dim=0).tolist():
            equation = {total: -1}
            for unknown in row:
                equation[unknown] = equation.get(unknown, 0) + 1
            walk.exponents.require(equation)
    return sums[place].view(pairs.shape[:-1]).expand(shape)


def _apart(walk: Walk, value: Labelled) -> None:
    """Note in which matrix of a batch each unknown stands."""
    for term in value.terms:
        small = compact(term)
        if small.dim() > 2 and len(small) > 1:
            cells: dict[int, int] = {}
            for place, matrix in enumerate(small):
                for unknown in matrix.unique().tolist():
                    cells.setdefault(unknown, place)
            walk.found.cells.append(cells)


def linear(walk: Walk, node: Node, inputs: object, weight: object) -> Labelled:
    """A product of two matrices, or of two batches of them; that of a parameter is a layer."""
    value = contract(walk, walk.value(inputs), walk.value(weight), shape_of(node))
    for side in (walk.value(inputs), walk.value(weight)):
        if side.parameter and value.terms:
            walk.found.hidden.setdefault(side.parameter, compact(value.terms[0]).flatten())
    return value


@rule("mm", "bmm")
def mm(walk: Walk, node: Node) -> Labelled:
    """A linear layer, or a product of two activations as in attention."""
    return linear(walk, node, *node.args)


@rule("addmm", "baddbmm")
def addmm(walk: Walk, node: Node) -> Labelled:
    """The same with a bias."""
    product = linear(walk, node, *node.args[1:3])
    return walk.same([product, walk.value(node.args[0])], shape_of(node))


@rule("mv")
def mv(walk: Walk, node: Node) -> Labelled:
    """A matrix times a vector."""
    matrix, vector = map(walk.value, node.args)
    column = Labelled((*vector.shape, 1), [term.unsqueeze(-1) for term in vector.terms], vector.parameter)
    product = contract(walk, matrix, column, (*matrix.shape[:-1], 1))
    return Labelled(shape_of(node), [term.squeeze(-1) for term in product.terms])


@rule("embedding")
def embedding(walk: Walk, node: Node) -> Labelled:
    """Rows of a table: the columns scale, the rows do not."""
    weight = walk.value(node.args[0])
    walk.settle(weight, {-1})
    columns = compact(walk.single(weight))
    if columns.shape[0] > 1:  # it has been used for something else, in which its rows differ
        walk.exponents.equate(columns, columns[:1])
    return Labelled(shape_of(node), [columns[0].expand(shape_of(node))])


def times(walk: Walk, node: Node, sign: int) -> Labelled:
    """A product, or a quotient where the sign is −1."""
    values, shape = [walk.value(entry) for entry in node.args[:2]], shape_of(node)
    for value, other in (values, values[::-1]):
        walk.settle(value, set().union(*map(varying, other.terms)) if other.terms else set())
        if any(i < 0 and -i <= len(other.shape) and other.shape[i] > 1 for t in value.terms for i in varying(t)):
            walk.fix(value)
        if value.parameter and len(value.shape) == 1:
            walk.note("norm", value)
    terms = [(walk.single(value).expand(shape), s) for value, s in zip(values, (1, sign), strict=True) if value.terms]
    if len(terms) == 1 and terms[0][1] == 1:
        return Labelled(shape, [terms[0][0]])
    return Labelled(shape, [walk.sums(terms, shape)])


@rule("mul")
def mul(walk: Walk, node: Node) -> Labelled:
    """Exponents add up."""
    return times(walk, node, 1)


@rule("div")
def div(walk: Walk, node: Node) -> Labelled:
    """Exponents are subtracted."""
    return times(walk, node, -1)
