"""Convolutions of any dimension, with groups and transposed."""

import torch
from torch import Tensor
from torch.fx import Node

from conslaw.models.labels import Axis, Labelled, compact, varying
from conslaw.models.walk import Walk, rule, shape_of

__all__: list[str] = []


@rule("convolution")
def convolution(walk: Walk, node: Node) -> Labelled:
    """Filters as rows, input channels as columns, as in a linear layer."""
    inputs, weight, bias = map(walk.value, node.args[:3])
    transposed, groups = node.args[6], node.args[8]
    shape, labels = shape_of(node), walk.single(inputs)
    if (
        varying(labels) - {1 - labels.dim()}
        or (transposed and groups > 1)
        or not (weight.parameter or not weight.terms)
    ):
        walk.pin([inputs, weight, bias], "this convolution is not traced")
        return Labelled(shape, [])
    labels = compact(labels).flatten().expand(inputs.shape[1])
    if not weight.terms:  # frozen
        made = _frozen(walk, labels, shape[1], groups)
    else:
        made = _filters(walk, weight, labels, shape[1], groups, transposed=transposed)
    made = made.view(1, -1, *[1] * (len(shape) - 2)).expand(shape)
    value = Labelled(shape, [made])
    walk.note("channel", value)
    if bias.terms:
        column = [term.view(-1, *[1] * (len(shape) - 2)) for term in bias.terms]
        value = walk.same([value, Labelled(tuple(column[0].shape), column, bias.parameter)], shape)
    if weight.parameter:
        walk.found.hidden.setdefault(weight.parameter, compact(made).flatten())
    return value


def _frozen(walk: Walk, labels: Tensor, outputs: int, groups: int) -> Tensor:
    """Outputs of filters that do not scale: all inputs of one have one exponent."""
    grouped = labels.view(groups, -1)
    walk.exponents.equate(grouped, grouped[:, :1])
    return grouped[:, :1].expand(groups, outputs // groups).flatten()


def _filters(walk: Walk, weight: Labelled, labels: Tensor, outputs: int, groups: int, *, transposed: bool) -> Tensor:
    """Outputs of filters with unknown exponents, shape (outputs,)."""
    name, fresh = weight.parameter, weight.parameter not in walk.used
    own = dict(walk.found.slices[name]) if not fresh else {}
    if fresh:
        walk.used.add(name)
        sizes = {Axis(int(transposed)): outputs}
        if groups == 1 or len(labels) > groups:
            sizes[Axis(1 - int(transposed), groups)] = len(labels)
        own = {axis: walk.exponents.new(size) for axis, size in sizes.items()}
        walk.found.slices[name] = list(own.items())
    rows, *columns = own.values()
    if not columns:  # one input channel to a filter
        return walk.sums([(rows, 1), (labels.repeat_interleave(outputs // groups), 1)], (outputs,))
    # In every group the exponents of an input channel and of its weights add up to the same.
    sums = torch.zeros(groups, dtype=torch.int64) if fresh else walk.exponents.new(groups)
    for i, (one, other) in enumerate(zip(columns[0].tolist(), labels.tolist(), strict=True)):
        equation = {one: 1, sums[i * groups // len(labels)].item(): -1}
        equation[other] = equation.get(other, 0) + 1
        walk.exponents.require(equation)
    return rows if fresh else walk.sums([(rows, 1), (sums.repeat_interleave(outputs // groups), 1)], (outputs,))
