"""Sums and functions of entries: sums need equal exponents, functions of a degree multiply them."""

import math
from fractions import Fraction
from functools import partial

from torch.fx import Node

from conslaw.models.labels import Labelled
from conslaw.models.walk import Walk, rule, shape_of

__all__: list[str] = []

LARGEST_EPSILON = 1e-3  # a constant up to this, added to what is not, is taken for the ε of a norm


@rule("add", "sub")
def add(walk: Walk, node: Node) -> Labelled:
    """What is added has one exponent."""
    values, shape = [walk.value(entry) for entry in node.args[:2]], shape_of(node)
    constant = node.args[1]
    if not isinstance(constant, Node):
        if constant == 0:
            return values[0]
        if 0 < abs(constant) <= LARGEST_EPSILON:
            walk.neglect(f"ε = {abs(constant):g} of a norm", values[0])
            return values[0]
        walk.pin(values, "adding a constant is not homogeneous")
        return Labelled(shape, [])
    return walk.same(values, shape)


@rule("maximum", "minimum")
def maximum(walk: Walk, node: Node) -> Labelled:
    """So has what is compared."""
    values = [walk.value(entry) for entry in node.args[:2]]
    result = walk.same(values, shape_of(node))
    walk.fix(result)
    return result


@rule("where")
def where(walk: Walk, node: Node) -> Labelled:
    """And what is chosen from."""
    return walk.same([walk.value(entry) for entry in node.args[1:3]], shape_of(node))


@rule("masked_fill")
def masked_fill(walk: Walk, node: Node) -> Labelled:
    """Zero and infinity have any exponent."""
    value = walk.value(node.args[0])
    if isinstance(node.args[2], Node) or node.args[2] not in (0, math.inf, -math.inf):
        walk.pin([value], "filling with a constant is not homogeneous")
    walk.fix(value)
    return Labelled(shape_of(node), [walk.single(value).expand(shape_of(node))])


@rule("sum", "mean")
def total(walk: Walk, node: Node) -> Labelled:
    """One exponent along what is summed over."""
    value = walk.value(node.args[0])
    dims = node.args[1] if len(node.args) > 1 and node.args[1] else range(len(value.shape))
    walk.note("stream", value)
    return walk.uniform(value, dims, shape_of(node))


@rule("amax", "amin")
def amax(walk: Walk, node: Node) -> Labelled:
    """Likewise."""
    walk.fix(walk.value(node.args[0]))
    return total(walk, node)


@rule("linalg_vector_norm")
def vector_norm(walk: Walk, node: Node) -> Labelled:
    """Likewise."""
    value = walk.value(node.args[0])
    walk.fix(value)
    dims = node.args[2] if len(node.args) > 2 and node.args[2] else range(len(value.shape))
    walk.note("stream", value)
    return walk.uniform(value, dims, shape_of(node))


@rule("var", "std")
def variance(walk: Walk, node: Node) -> Labelled:
    """Likewise, and a variance is of degree two."""
    reduced = total(walk, node)
    degree = 2 if node.target._schema.name == "aten::var" else 1
    return Labelled(reduced.shape, [walk.sums([(walk.single(reduced), degree)], reduced.shape)])


@rule("relu", "leaky_relu", "abs", "threshold", "prelu", "_prelu_kernel", "rrelu_with_noise")
def activation(walk: Walk, node: Node) -> Labelled:
    """Activations that are homogeneous of degree one."""
    value = walk.value(node.args[0])
    if node.target._schema.name.startswith("aten::threshold") and (node.args[1], node.args[2]) != (0, 0):
        walk.pin([value], "a threshold is not homogeneous")
    others = [walk.value(entry) for entry in node.all_input_nodes[1:]]
    walk.pin(others, "the slope of PReLU has no scale")
    walk.fix(value)
    return Labelled(shape_of(node), value.terms)


@rule("neg")
def neg(walk: Walk, node: Node) -> Labelled:
    """A sign does not matter."""
    return Labelled(shape_of(node), walk.value(node.args[0]).terms)


@rule("clamp_min")
def clamp_min(walk: Walk, node: Node) -> Labelled:
    """ReLU by another name."""
    value = walk.value(node.args[0])
    if node.args[1] != 0:
        walk.pin([value], "clamp is not homogeneous")
    walk.fix(value)
    return Labelled(shape_of(node), value.terms)


@rule("clamp")
def clamp(walk: Walk, node: Node) -> Labelled:
    """Homogeneous where it clamps at zero."""
    value, limits = walk.value(node.args[0]), (*node.args[1:], None, None)[:2]
    if set(limits) - {0, None}:
        walk.pin([value], "clamp is not homogeneous")
    walk.fix(value)
    return Labelled(shape_of(node), value.terms)


def power(walk: Walk, node: Node, exponent: float) -> Labelled:
    """A function of degree `exponent`."""
    value = walk.value(node.args[0])
    walk.fix(value)
    return Labelled(shape_of(node), [walk.sums([(walk.single(value), Fraction(exponent))], value.shape)])


@rule("pow")
def pow(walk: Walk, node: Node) -> Labelled:
    """A constant power multiplies exponents."""
    if isinstance(node.args[0], Node) and not isinstance(node.args[1], Node):
        return power(walk, node, node.args[1])
    walk.pin([walk.value(entry) for entry in node.args], "a power of an activation is not homogeneous")
    return Labelled(shape_of(node), [])


for name, exponent in {"square": 2, "sqrt": 0.5, "rsqrt": -0.5, "reciprocal": -1}.items():
    rule(name)(partial(power, exponent=exponent))


@rule("native_dropout")
def native_dropout(walk: Walk, node: Node) -> list[Labelled]:
    """A mask, which acts on each entry alone."""
    value = walk.value(node.args[0])
    walk.fix(value)
    return [value, Labelled(value.shape, [])]
