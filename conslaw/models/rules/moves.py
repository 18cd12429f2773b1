"""Operations that only move entries: their labels move with them."""

import math

import torch
from torch import Tensor
from torch.fx import Node

from conslaw.models.labels import Labelled, tightened, varying
from conslaw.models.walk import Walk, rule, shape_of

__all__: list[str] = []

SAME = ("clone", "alias", "detach", "_to_copy", "lift_fresh_copy", "contiguous")
VIEWS = ("view", "_unsafe_view", "reshape", "_reshape_alias")
MOVES = """t transpose permute expand slice select split split_with_sizes unsqueeze squeeze unbind movedim repeat flip
    roll unfold flatten unflatten pixel_shuffle channel_shuffle native_channel_shuffle diagonal repeat_interleave"""


@rule(*SAME, *VIEWS, *MOVES.split())
def move(walk: Walk, node: Node) -> Labelled | list[Labelled]:
    """Apply the operation itself to the labels."""
    value, rest = walk.value(node.args[0]), node.args[1:]
    name = node.target._schema.name.split("::")[-1]

    def operation(labels: Tensor) -> Tensor | list[Tensor]:
        if name in SAME:
            return labels
        if name in VIEWS:
            return labels.reshape(rest[0])
        return node.target(labels, *rest, **node.kwargs)

    example = node.meta["val"]
    if isinstance(example, Tensor):
        return value.moved(operation, tuple(example.shape))
    parts = [operation(term) for term in value.terms]
    return [
        Labelled(tuple(part.shape), [tightened(term[i]) for term in parts], value.parameter)
        for i, part in enumerate(example)
    ]


@rule("cat")
def cat(walk: Walk, node: Node) -> Labelled:
    """Join labels."""
    values = [walk.value(entry) for entry in node.args[0]]
    for value in values:
        walk.settle(value, set())
    dim = node.args[1] if len(node.args) > 1 else 0
    return Labelled(shape_of(node), [tightened(torch.cat([walk.single(value) for value in values], dim))])


@rule("stack")
def stack(walk: Walk, node: Node) -> Labelled:
    """Join labels along a new dimension."""
    values = [walk.value(entry) for entry in node.args[0]]
    dim = node.args[1] if len(node.args) > 1 else 0
    return Labelled(shape_of(node), [tightened(torch.stack([walk.single(value) for value in values], dim))])


@rule("constant_pad_nd")
def pad(walk: Walk, node: Node) -> Labelled:
    """Zero times anything is zero: padding has the exponent of its channel, or a free one."""
    value, widths = walk.value(node.args[0]), node.args[1]
    if len(node.args) > 2 and node.args[2] not in (0, -math.inf, math.inf):
        walk.pin([value], "padding with a constant is not homogeneous")
        return Labelled(shape_of(node), [])
    labels = walk.single(value)
    for number, dim in enumerate(range(labels.dim() - 1, labels.dim() - 1 - len(widths) // 2, -1)):
        for side, width in enumerate(widths[2 * number : 2 * number + 2]):
            if width < 0:
                labels = labels.narrow(dim, -width if side == 0 else 0, labels.shape[dim] + width)
            elif width > 0:
                idle = dim - labels.dim() not in varying(labels)
                shape = [width if i == dim else size for i, size in enumerate(labels.shape)]
                fresh = walk.exponents.new(width).view([-1 if i == dim else 1 for i in range(labels.dim())])
                edge = (labels.narrow(dim, 0, 1) if idle else fresh).expand(shape)
                labels = tightened(torch.cat([edge, labels] if side == 0 else [labels, edge], dim))
    return Labelled(shape_of(node), [labels])


@rule("index")
def index(walk: Walk, node: Node) -> Labelled:
    """Entries chosen along dimensions on which the exponents do not depend, such as tokens of a sequence."""
    value, places = walk.value(node.args[0]), node.args[1]
    labels = walk.single(value)
    chosen = {dim - labels.dim() for dim, place in enumerate(places) if place is not None}
    if chosen & varying(labels) or any(place is not None and place.meta["val"].dtype == torch.bool for place in places):
        walk.pin([value], "no rule for an index of channels")
        return Labelled(shape_of(node), [])
    anywhere = [None if place is None else torch.zeros(shape_of(place), dtype=torch.int64) for place in places]
    return Labelled(shape_of(node), [tightened(node.target(labels, anywhere))])
