"""Norms, which take out the scale of what they normalise, and pooling, which leaves channels apart."""

import math

import torch
from torch import Tensor
from torch.fx import Node

from conslaw.models.exponents import ZERO
from conslaw.models.labels import Labelled, compact, varying
from conslaw.models.walk import Walk, rule

__all__: list[str] = []

POOLS = """max_pool2d_with_indices max_pool3d_with_indices avg_pool1d avg_pool2d avg_pool3d _adaptive_avg_pool2d
    _adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d upsample_nearest1d upsample_nearest2d
    upsample_nearest3d upsample_linear1d upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d"""


def _normalised(walk: Walk, shape: tuple[int, ...], gain: Labelled, offset: Labelled, dim: int) -> Labelled:
    """What a norm makes: the exponents of its gain, which its offset shares."""
    if not (gain.terms or offset.terms):
        return Labelled(shape, [])
    size = (gain if gain.terms else offset).shape
    column = (*size, *[1] * (-dim - len(size))) if len(size) == 1 else size
    sides = [Labelled(column, [t.reshape(column) for t in v.terms], v.parameter) for v in (gain, offset)]
    for side in sides:
        walk.note("norm", side)
    if not gain.terms:  # the normalised activation itself does not scale
        walk.pin([sides[1]], "")
        return Labelled(shape, [])
    labels = walk.same([side for side in sides if side.terms], tuple(column)).terms[0]
    if gain.terms and not offset.terms and offset.shape:
        walk.pin([sides[0]], "a frozen offset of a norm does not scale")
    walk.fix(sides[0])
    return Labelled(shape, [labels.expand(shape)])


@rule("native_layer_norm")
def layer_norm(walk: Walk, node: Node) -> list[Labelled]:
    """Over the last dimensions."""
    inputs, gain, offset = (walk.value(node.args[i]) for i in (0, 2, 3))
    dims = range(-len(node.args[1]), 0)
    if inputs.terms:
        walk.note("stream", inputs)
        walk.uniform(inputs, dims)
        walk.neglect(f"ε = {node.args[4]:g} of LayerNorm", inputs)
    made = _normalised(walk, inputs.shape, gain, offset, -1)
    return [made, Labelled((), []), Labelled((), [])]


@rule("_fused_rms_norm")
def rms_norm(walk: Walk, node: Node) -> list[Labelled]:
    """The same without a mean."""
    inputs, gain = walk.value(node.args[0]), walk.value(node.args[2])
    if inputs.terms:
        walk.note("stream", inputs)
        walk.uniform(inputs, range(-len(node.args[1]), 0))
        walk.neglect(f"ε = {node.args[3]:g} of RMSNorm" if node.args[3] else "ε of RMSNorm", inputs)
    return [_normalised(walk, inputs.shape, gain, Labelled((), []), -1), Labelled((), [])]


@rule("native_group_norm")
def group_norm(walk: Walk, node: Node) -> list[Labelled]:
    """Over groups of channels."""
    inputs, gain, offset = (walk.value(node.args[i]) for i in (0, 1, 2))
    if inputs.terms:
        shape = (inputs.shape[0], node.args[6], math.prod(inputs.shape[1:]) // node.args[6])
        grouped = inputs.moved(lambda t: t.reshape(shape), shape)
        walk.note("stream", inputs)
        walk.uniform(grouped, [-1])
        walk.neglect(f"ε = {node.args[7]:g} of GroupNorm", inputs)
    return [_normalised(walk, inputs.shape, gain, offset, 1 - len(inputs.shape)), *[Labelled((), [])] * 2]


@rule("native_batch_norm", "_native_batch_norm_legit")
def batch_norm(walk: Walk, node: Node) -> list[Labelled]:
    """Over the batch, for each channel."""
    inputs, gain, offset = (walk.value(node.args[i]) for i in range(3))
    if inputs.terms and node.args[5]:
        labels = Labelled(inputs.shape, [walk.single(inputs)])
        walk.uniform(labels, [0, *range(2, len(inputs.shape))])
        walk.fix(labels)
        walk.note("channel", labels)
        walk.neglect(f"ε = {node.args[7]:g} of BatchNorm", inputs)
    else:
        walk.pin([inputs], "BatchNorm in eval mode subtracts a constant mean")
    return [_normalised(walk, inputs.shape, gain, offset, 1 - len(inputs.shape)), *[Labelled((), [])] * 2]


@rule("cudnn_batch_norm")
def cudnn_batch_norm(walk: Walk, node: Node) -> list[Labelled]:
    """The same on a GPU."""
    return [*batch_norm(walk, node), Labelled((), [])]


@rule(*POOLS.split())
def pool(walk: Walk, node: Node) -> Labelled | list[Labelled]:
    """Pooling and interpolation, which leave channels apart."""
    value, name = walk.value(node.args[0]), node.target._schema.name
    space = int("1d" in name) + 2 * int("2d" in name) + 3 * int("3d" in name)
    labels = walk.single(value)
    if any(dim >= -space for dim in varying(labels)):
        walk.pin([value], f"{name} of channels")
        labels = torch.tensor(ZERO).expand(value.shape)
    if "max" in name:
        walk.fix(value)
    example = node.meta["val"]
    shape = tuple((example if isinstance(example, Tensor) else example[0]).shape)
    pooled = Labelled(shape, [compact(labels).expand(shape)])
    return pooled if isinstance(example, Tensor) else [pooled, Labelled(shape, [])]
