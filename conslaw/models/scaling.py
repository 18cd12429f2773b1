"""Which scalings of the parameters leave the loss as it is: every operation says how the exponents go through it.

Multiply each channel of each tensor by a factor exp(t λ). A linear layer y = W x + b allows it where the exponents of W
and x add up to that of y in every product; an activation that is positively homogeneous hands the exponent on; one that
is not, such as GELU, pins it to zero; a sum needs equal exponents, a norm over channels one exponent for all of them,
and the loss the exponent zero. What is left free are the symmetries of the loss, and by Noether's argument
Σ λ w² over the parameters is conserved by gradient flow.
"""

import itertools
import math
import operator
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from conslaw.models.exponents import ZERO, Exponents
from conslaw.models.labels import Axis, Labelled, compact, tightened, varying

__all__ = ["Scaling", "scaling_of"]

NAMES = {"gelu": "GELU", "silu": "SiLU", "elu": "ELU, SELU or CELU", "hardswish": "hard swish", "mish": "Mish"}
NAMES |= {"tanh": "tanh", "sigmoid": "sigmoid", "hardtanh": "ReLU6 or hardtanh", "hardsigmoid": "hard sigmoid"}
NAMES |= {
    "softplus": "softplus",
    "exp": "exp",
    "log": "log",
    "erf": "erf",
    "sin": "sin",
    "cos": "cos",
    "clamp": "clamp",
}
NAMES |= {"log_sigmoid_forward": "log sigmoid", "hardshrink": "hard shrink", "softshrink": "soft shrink"}
MOVES = (
    "view _unsafe_view reshape t transpose permute expand clone slice select split split_with_sizes unsqueeze squeeze"
)
MOVES += (
    " alias detach _to_copy lift_fresh_copy contiguous unbind movedim repeat flip roll unfold flatten pixel_shuffle"
)
MOVES += (
    " channel_shuffle native_channel_shuffle diagonal view_as_real _reshape_alias repeat_interleave chunk unflatten"
)
HOMOGENEOUS = "relu leaky_relu abs threshold prelu _prelu_kernel rrelu_with_noise"  # of degree 1
SPATIAL = "max_pool2d_with_indices max_pool3d_with_indices avg_pool1d avg_pool2d avg_pool3d _adaptive_avg_pool2d"
SPATIAL += " _adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d upsample_nearest1d upsample_nearest2d"
SPATIAL += " upsample_nearest3d upsample_bilinear2d upsample_linear1d upsample_trilinear3d upsample_bicubic2d"
LOSSES = "_softmax _safe_softmax _log_softmax nll_loss_forward nll_loss2d_forward binary_cross_entropy_with_logits"
LOSSES += " mse_loss smooth_l1_loss huber_loss binary_cross_entropy"  # they take no scale, as everybody knows
FACTORIES = "empty_like zeros_like ones_like full_like rand_like randn_like new_empty new_zeros new_ones new_full"
LARGEST_EPSILON = 1e-3  # a constant up to this, added to what is not, is taken for the ε of a norm


@dataclass
class Scaling:
    """The solved system: unknowns of every parameter's slices, and what is known of them."""

    exponents: Exponents = field(default_factory=Exponents)
    slices: dict[str, list[tuple[Axis, Tensor]]] = field(default_factory=dict)
    """Of each parameter its axes, and the unknowns along each, shape (slices,)."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Of each parameter the number of entries."""
    kinds: dict[str, set[int]] = field(
        default_factory=lambda: {k: set() for k in ("channel", "head", "stream", "norm")}
    )
    """Unknowns that belong to a convolution, to the product of two activations, to what a norm makes uniform, and to
    what it is multiplied with."""
    fixed: set[int] = field(default_factory=set)
    """Unknowns of channels that may not be mixed with others, as an operation acts on each of them alone."""
    cells: list[dict[int, int]] = field(default_factory=list)
    """For each product of two activations the number of the matrix in which an unknown stands: heads do not mix."""
    neglected: dict[str, set[int]] = field(default_factory=dict)
    """What was neglected, such as the ε of a norm, with the unknowns for which it matters."""
    hidden: dict[str, Tensor] = field(default_factory=dict)
    """The exponents that the outputs of every linear layer had when it was met, by the name of its weight."""


def scaling_of(graph: GraphModule, parameters: Iterable[str]) -> Scaling:
    """Find the scalings that leave the loss as it is.

    Args:
        graph: As traced by `Objective.graph`.
        parameters: Names of its placeholders.

    Returns:
        The solved system of exponents.
    """
    interpreter = _Interpreter(
        dict(zip((n for n in graph.graph.nodes if n.op == "placeholder"), parameters, strict=True))
    )
    for node in graph.graph.nodes:
        if node.op == "call_function":
            interpreter.values[node] = interpreter.run(node)
        elif node.op == "output":
            interpreter.pin([interpreter.value(leaf) for leaf in node.all_input_nodes], "")
    return interpreter.found


class _Interpreter:
    """Goes through a graph operation by operation; a rule is a method named like the operation."""

    def __init__(self, placeholders: dict[Node, str]):
        """Take the nodes that are parameters, with their names."""
        self.placeholders, self.found = placeholders, Scaling()
        self.exponents, self.values = self.found.exponents, {}
        self.used: set[str] = set()

    def value(self, node: object) -> Labelled:
        """The labels of an argument; a constant has none."""
        if not isinstance(node, Node):
            return Labelled((), [])
        if node in self.placeholders and node not in self.values:
            self.values[node] = self.parameter(self.placeholders[node], tuple(node.meta["val"].shape))
        value = self.values.get(node)
        return value if isinstance(value, Labelled) else Labelled(_shape(node), [])

    def parameter(self, name: str, shape: tuple[int, ...]) -> Labelled:
        """Give a parameter one unknown for every slice along every dimension."""
        dims = [i for i, size in enumerate(shape) if size > 1] or list(range(len(shape)))[-1:]
        slices, terms = [], []
        for dim in dims or [0]:
            unknowns = self.exponents.new(shape[dim] if shape else 1)
            slices.append((Axis(dim), unknowns))
            view = unknowns.view([-1 if i == dim else 1 for i in range(len(shape))]) if shape else unknowns.view(())
            terms.append(view.expand(shape))
        self.found.slices[name], self.found.sizes[name] = slices, math.prod(shape)
        return Labelled(shape, terms, name)

    def run(self, node: Node) -> Labelled | list[Labelled]:
        """Apply the rule of an operation."""
        if node.target is operator.getitem:
            source = self.values.get(node.args[0])
            return source[node.args[1]] if isinstance(source, list) else Labelled(_shape(node), [])
        name = node.target._schema.name.split("::")[-1]
        name = name[:-1] if name.endswith("_") and not name.startswith("__") else name
        inputs = [self.value(leaf) for leaf in node.all_input_nodes]
        if name in FACTORIES.split() or not any(value.terms for value in inputs):
            return Labelled(_shape(node), [])
        if name in MOVES.split():
            return self.move(node)
        if name in HOMOGENEOUS.split():
            return self.activation(node)
        if name in SPATIAL.split():
            return self.spatial(node, name)
        rule = getattr(self, f"rule_{name}", None)
        if rule is None:
            reason = f"{NAMES[name]} is not homogeneous" if name in NAMES else f"no rule for {name}"
            self.pin(inputs, "" if name in LOSSES.split() else reason)
            return Labelled(_shape(node), [])
        return rule(node)

    # What every rule uses.

    def single(self, value: Labelled) -> Tensor:
        """The exponents as one tensor of unknowns; sums become unknowns of their own."""
        terms = value.terms
        if len(terms) == 1:
            return terms[0]
        if not terms:
            return torch.tensor(ZERO).expand(value.shape)
        return self.sums([(term, 1) for term in terms], value.shape)

    def sums(self, terms: list[tuple[Tensor, int]], shape: tuple[int, ...]) -> Tensor:
        """Unknowns that equal Σ coefficient · term, entry by entry."""
        together = torch.stack(torch.broadcast_tensors(*(compact(term) for term, _ in terms)), -1)
        rows, places = together.flatten(0, -2).unique(dim=0, return_inverse=True)
        unknowns = self.exponents.new(len(rows))
        for unknown, row in zip(unknowns.tolist(), rows.tolist(), strict=True):
            equation = {unknown: -1}
            for (_, coefficient), one in zip(terms, row, strict=True):
                equation[one] = equation.get(one, 0) + coefficient
            self.exponents.require(equation)
        return unknowns[places].view(together.shape[:-1]).expand(shape)

    def pin(self, values: Iterable[Labelled], reason: str) -> None:
        """Pin the exponents of values to zero."""
        for value in values:
            self.settle(value, set())
            if value.terms:
                self.exponents.pin(compact(self.single(value)).unique().tolist(), reason)

    def settle(self, value: Labelled, along: set[int]) -> None:
        """Decide how a parameter of several dimensions scales at its first use: not along those that do not matter."""
        if value.parameter and value.parameter not in self.used:
            self.used.add(value.parameter)
            if len(value.terms) > 1:
                idle = [term for term in value.terms if not varying(term) & along]
                for term in idle if len(idle) < len(value.terms) else idle[:-1]:
                    self.exponents.pin(compact(term).unique().tolist(), "")

    def same(self, values: list[Labelled], shape: tuple[int, ...]) -> Labelled:
        """Require equal exponents of all that are added."""
        for value in values:
            others = [term for other in values if other is not value for term in other.terms]
            self.settle(value, set().union(*map(varying, others)) if others else set())
        labels = [self.single(value).expand(shape) if value.shape != shape else self.single(value) for value in values]
        reason = "it is added to what scales otherwise" if all(value.terms for value in values) else ""
        for one, other in itertools.pairwise(labels):
            self.exponents.equate(compact(one), compact(other), reason)
        return Labelled(shape, [labels[0]])

    def fix(self, value: Labelled) -> None:
        """Note that an operation acts on each channel alone, so that channels may not be mixed."""
        for term in value.terms:
            self.found.fixed.update(compact(term).unique().tolist())

    def note(self, kind: str, value: Labelled) -> None:
        """Note what unknowns belong to."""
        for term in value.terms:
            self.found.kinds[kind].update(compact(term).unique().tolist())

    def uniform(self, value: Labelled, dims: Iterable[int], shape: tuple[int, ...] | None = None) -> Labelled:
        """Require one exponent along dimensions; what is left of the value when these are reduced to a shape."""
        labels, dims = compact(self.single(value)), sorted({dim % len(value.shape) for dim in dims}, reverse=True)
        if any(dim - labels.dim() in varying(labels) for dim in dims):
            self.fix(value)
        for dim in dims:
            first = labels.narrow(dim, 0, 1)
            self.exponents.equate(labels, first)
            labels = first
        if shape is not None and len(shape) < len(value.shape):
            for dim in dims:
                labels = labels.squeeze(dim)
        return Labelled(shape or value.shape, [labels.expand(shape or value.shape)])

    def neglect(self, text: str, value: Labelled) -> None:
        """Note that a rule neglects something."""
        for term in value.terms:
            self.found.neglected.setdefault(text, set()).update(compact(term).unique().tolist())

    # Operations that only move entries.

    def move(self, node: Node) -> Labelled | list[Labelled]:
        value, rest = self.value(node.args[0]), node.args[1:]
        name = node.target._schema.name.split("::")[-1]

        def operation(labels: Tensor) -> Tensor | list[Tensor]:
            if name in ("clone", "alias", "detach", "_to_copy", "lift_fresh_copy", "contiguous"):
                return labels
            if name in ("view", "_unsafe_view", "_reshape_alias"):
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

    def rule_cat(self, node: Node) -> Labelled:
        values = [self.value(entry) for entry in node.args[0]]
        for value in values:
            self.settle(value, set())
        dim = node.args[1] if len(node.args) > 1 else 0
        return Labelled(_shape(node), [tightened(torch.cat([self.single(value) for value in values], dim))])

    def rule_stack(self, node: Node) -> Labelled:
        values = [self.value(entry) for entry in node.args[0]]
        dim = node.args[1] if len(node.args) > 1 else 0
        return Labelled(_shape(node), [tightened(torch.stack([self.single(value) for value in values], dim))])

    def rule_constant_pad_nd(self, node: Node) -> Labelled:
        value, widths = self.value(node.args[0]), node.args[1]
        if len(node.args) > 2 and node.args[2] not in (0, -math.inf, math.inf):
            self.pin([value], "padding with a constant is not homogeneous")
            return Labelled(_shape(node), [])
        labels = self.single(value)
        for number, dim in enumerate(range(labels.dim() - 1, labels.dim() - 1 - len(widths) // 2, -1)):
            for side, width in enumerate(widths[2 * number : 2 * number + 2]):
                if width < 0:
                    labels = labels.narrow(dim, -width if side == 0 else 0, labels.shape[dim] + width)
                elif width > 0:  # zero times anything is zero: along idle dimensions it goes with its channel
                    idle = dim - labels.dim() not in varying(labels)
                    shape = [width if i == dim else size for i, size in enumerate(labels.shape)]
                    fresh = self.exponents.new(width).view([-1 if i == dim else 1 for i in range(labels.dim())])
                    edge = (labels.narrow(dim, 0, 1) if idle else fresh).expand(shape)
                    labels = tightened(torch.cat([edge, labels] if side == 0 else [labels, edge], dim))
        return Labelled(_shape(node), [labels])

    # Products.

    def contract(self, left: Labelled, right: Labelled, shape: tuple[int, ...]) -> Labelled:
        """Σ_k left[b, n, k] right[b, k, m]: in every such sum all products have one exponent."""
        free = {side.parameter for side in (left, right) if side.parameter and side.parameter not in self.used}
        self.used |= free
        outer = [
            t.transpose(-1, -2)[..., :1, :].transpose(-1, -2).expand(shape) for t in left.terms if -1 not in varying(t)
        ]
        outer += [t[..., :1, :].expand(shape) for t in right.terms if -2 not in varying(t)]
        inner = [[t for t in left.terms if -1 in varying(t)], [t.mT for t in right.terms if -2 in varying(t)]]
        if inner[0] or inner[1]:
            outer.append(self.products(inner, shape, gauge=bool(free)))
        if not (left.parameter or right.parameter):
            for value in (left, right):
                self.note("head", value)
                self.apart(value)
        result = Labelled(shape, [tightened(term) for term in outer])
        return Labelled(shape, [self.single(result)]) if len(outer) > 1 else result

    def products(self, inner: list[list[Tensor]], shape: tuple[int, ...], *, gauge: bool) -> Tensor:
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
        sums = torch.zeros(1, dtype=torch.int64) if gauge and len(kinds) == 1 else self.exponents.new(len(kinds))
        for (one, other), total in zip(kinds.tolist(), sums.tolist(), strict=True):
            parts = [patterns[side][i] for side, i in ((0, one), (1, other)) if patterns[side] is not None]
            for row in (
                torch.cat(torch.broadcast_tensors(*parts) if len(parts[0]) == 1 else parts, 1).unique(dim=0).tolist()
            ):
                equation = {total: -1}
                for unknown in row:
                    equation[unknown] = equation.get(unknown, 0) + 1
                self.exponents.require(equation)
        return sums[place].view(pairs.shape[:-1]).expand(shape)

    def apart(self, value: Labelled) -> None:
        """Note in which matrix of a batch each unknown stands."""
        for term in value.terms:
            small = compact(term)
            if small.dim() > 2 and small.shape[:-2].numel() > 1:
                rows = small.flatten(0, -3).flatten(1)
                where = torch.arange(len(rows)).view(-1, 1).expand_as(rows)
                cells: dict[int, int] = {}
                for unknown, place in zip(rows.flatten().tolist(), where.flatten().tolist(), strict=True):
                    cells.setdefault(unknown, place)
                self.found.cells.append(cells)

    def linear(self, node: Node, inputs: object, weight: object) -> Labelled:
        value = self.contract(self.value(inputs), self.value(weight), _shape(node))
        for side in (self.value(inputs), self.value(weight)):
            if side.parameter and value.terms:
                self.found.hidden.setdefault(side.parameter, compact(value.terms[0]).flatten())
        return value

    def rule_mm(self, node: Node) -> Labelled:
        return self.linear(node, *node.args)

    rule_bmm = rule_mm

    def rule_addmm(self, node: Node) -> Labelled:
        product = self.linear(node, *node.args[1:3])
        return self.same([product, self.value(node.args[0])], _shape(node))

    rule_baddbmm = rule_addmm

    def rule_mv(self, node: Node) -> Labelled:
        matrix, vector = map(self.value, node.args)
        column = Labelled((*vector.shape, 1), [term.unsqueeze(-1) for term in vector.terms], vector.parameter)
        product = self.contract(matrix, column, (*matrix.shape[:-1], 1))
        return Labelled(_shape(node), [term.squeeze(-1) for term in product.terms])

    def rule_convolution(self, node: Node) -> Labelled:
        inputs, weight, bias = map(self.value, node.args[:3])
        transposed, groups = node.args[6], node.args[8]
        channels = inputs.shape[1]
        shape = _shape(node)
        labels = self.single(inputs)
        if (
            varying(labels) - {1 - labels.dim()}
            or (transposed and groups > 1)
            or not (weight.parameter or not weight.terms)
        ):
            self.pin([inputs, weight, bias], "this convolution is not traced")
            return Labelled(shape, [])
        labels = compact(labels).flatten().expand(channels)
        if not weight.terms:  # frozen
            made = self.frozen_convolution(labels, shape[1], groups)
        else:
            made = self.filters(weight, labels, shape[1], groups, transposed=transposed)
        made = made.view(1, -1, *[1] * (len(shape) - 2)).expand(shape)
        value = Labelled(shape, [made])
        self.note("channel", value)
        if bias.terms:
            column = [term.view(-1, *[1] * (len(shape) - 2)) for term in bias.terms]
            value = self.same([value, Labelled(tuple(column[0].shape), column, bias.parameter)], shape)
        self.found.hidden.setdefault(weight.parameter, compact(made).flatten())
        return value

    def frozen_convolution(self, labels: Tensor, outputs: int, groups: int) -> Tensor:
        """Outputs of filters that do not scale: all inputs of one have one exponent."""
        grouped = labels.view(groups, -1)
        self.exponents.equate(grouped, grouped[:, :1])
        return grouped[:, :1].expand(groups, outputs // groups).flatten()

    def filters(self, weight: Labelled, labels: Tensor, outputs: int, groups: int, *, transposed: bool) -> Tensor:
        """Outputs of filters with unknown exponents, shape (outputs,)."""
        name, fresh = weight.parameter, weight.parameter not in self.used
        own = dict(self.found.slices[name]) if not fresh else {}
        if fresh:
            self.used.add(name)
            sizes = {Axis(int(transposed)): outputs}
            if groups == 1 or len(labels) > groups:
                sizes[Axis(1 - int(transposed), groups)] = len(labels)
            own = {axis: self.exponents.new(size) for axis, size in sizes.items()}
            self.found.slices[name] = list(own.items())
        rows, *columns = own.values()
        if not columns:  # one input channel to a filter
            return self.sums([(rows, 1), (labels.repeat_interleave(outputs // groups), 1)], (outputs,))
        # In every group the exponents of an input channel and of its weights add up to the same.
        sums = torch.zeros(groups, dtype=torch.int64) if fresh else self.exponents.new(groups)
        for i, (one, other) in enumerate(zip(columns[0].tolist(), labels.tolist(), strict=True)):
            equation = {one: 1, sums[i * groups // len(labels)].item(): -1}
            equation[other] = equation.get(other, 0) + 1
            self.exponents.require(equation)
        return rows if fresh else self.sums([(rows, 1), (sums.repeat_interleave(outputs // groups), 1)], (outputs,))

    def rule_embedding(self, node: Node) -> Labelled:
        weight = self.value(node.args[0])
        self.settle(weight, {-1})
        columns = compact(self.single(weight))
        if columns.shape[0] > 1:  # it has been used for something else, in which its rows differ
            self.exponents.equate(columns, columns[:1])
        return Labelled(_shape(node), [columns[0].expand(_shape(node))])

    def rule_mul(self, node: Node) -> Labelled:
        return self.times(node, 1)

    def rule_div(self, node: Node) -> Labelled:
        return self.times(node, -1)

    def times(self, node: Node, sign: int) -> Labelled:
        values, shape = [self.value(entry) for entry in node.args[:2]], _shape(node)
        for value, other in (values, values[::-1]):
            self.settle(value, set().union(*map(varying, other.terms)) if other.terms else set())
            if any(i < 0 and -i <= len(other.shape) and other.shape[i] > 1 for t in value.terms for i in varying(t)):
                self.fix(value)
        if len(values[1].shape) == 1 and values[1].parameter:
            self.note("norm", values[1])
        if len(values[0].shape) == 1 and values[0].parameter:
            self.note("norm", values[0])
        terms = [
            (self.single(value).expand(shape), s) for value, s in zip(values, (1, sign), strict=True) if value.terms
        ]
        if len(terms) == 1 and terms[0][1] == 1:
            return Labelled(shape, [terms[0][0]])
        return Labelled(shape, [self.sums(terms, shape)])

    # Sums.

    def rule_add(self, node: Node) -> Labelled:
        values, shape = [self.value(entry) for entry in node.args[:2]], _shape(node)
        constant = node.args[1]
        if not isinstance(constant, Node):
            if constant == 0:
                return values[0]
            if 0 < abs(constant) <= LARGEST_EPSILON:
                self.neglect(f"ε = {abs(constant):g} of a norm", values[0])
                return values[0]
            self.pin(values, "adding a constant is not homogeneous")
            return Labelled(shape, [])
        return self.same(values, shape)

    rule_sub = rule_add

    def rule_maximum(self, node: Node) -> Labelled:
        values = [self.value(entry) for entry in node.args[:2]]
        result = self.same(values, _shape(node))
        self.fix(result)
        return result

    rule_minimum = rule_maximum

    def rule_where(self, node: Node) -> Labelled:
        return self.same([self.value(entry) for entry in node.args[1:3]], _shape(node))

    def rule_masked_fill(self, node: Node) -> Labelled:
        value = self.value(node.args[0])
        if isinstance(node.args[2], Node) or node.args[2] not in (0, math.inf, -math.inf):
            self.pin([value], "filling with a constant is not homogeneous")
        self.fix(value)
        return Labelled(_shape(node), [self.single(value).expand(_shape(node))])

    def rule_sum(self, node: Node) -> Labelled:
        value = self.value(node.args[0])
        dims = node.args[1] if len(node.args) > 1 and node.args[1] else range(len(value.shape))
        self.note("stream", value)
        return self.uniform(value, dims, _shape(node))

    rule_mean = rule_sum

    def rule_amax(self, node: Node) -> Labelled:
        self.fix(self.value(node.args[0]))
        return self.rule_sum(node)

    rule_amin = rule_amax

    def rule_linalg_vector_norm(self, node: Node) -> Labelled:
        value = self.value(node.args[0])
        self.fix(value)
        dims = node.args[2] if len(node.args) > 2 and node.args[2] else range(len(value.shape))
        self.note("stream", value)
        return self.uniform(value, dims, _shape(node))

    # Operations on every entry.

    def activation(self, node: Node) -> Labelled:
        value = self.value(node.args[0])
        if node.target._schema.name == "aten::threshold" and (node.args[1], node.args[2]) != (0, 0):
            self.pin([value], "a threshold is not homogeneous")
        others = [self.value(entry) for entry in node.all_input_nodes[1:]]
        self.pin(others, "the slope of PReLU has no scale")
        self.fix(value)
        return Labelled(_shape(node), value.terms)

    def rule_neg(self, node: Node) -> Labelled:
        return Labelled(_shape(node), self.value(node.args[0]).terms)

    def rule_clamp_min(self, node: Node) -> Labelled:
        value = self.value(node.args[0])
        if node.args[1] != 0:
            self.pin([value], "clamp is not homogeneous")
        self.fix(value)
        return Labelled(_shape(node), value.terms)

    def rule_clamp(self, node: Node) -> Labelled:
        value, limits = self.value(node.args[0]), (*node.args[1:], None, None)[:2]
        if set(limits) - {0, None}:
            self.pin([value], "clamp is not homogeneous")
        self.fix(value)
        return Labelled(_shape(node), value.terms)

    def power(self, node: Node, exponent: float) -> Labelled:
        value = self.value(node.args[0])
        self.fix(value)
        return Labelled(_shape(node), [self.sums([(self.single(value), Fraction(exponent))], value.shape)])

    def rule_pow(self, node: Node) -> Labelled:
        if isinstance(node.args[0], Node) and not isinstance(node.args[1], Node):
            return self.power(node, node.args[1])
        self.pin([self.value(entry) for entry in node.args], "a power of an activation is not homogeneous")
        return Labelled(_shape(node), [])

    def rule_square(self, node: Node) -> Labelled:
        return self.power(node, 2)

    def rule_sqrt(self, node: Node) -> Labelled:
        return self.power(node, 0.5)

    def rule_rsqrt(self, node: Node) -> Labelled:
        return self.power(node, -0.5)

    def rule_reciprocal(self, node: Node) -> Labelled:
        return self.power(node, -1)

    def rule_native_dropout(self, node: Node) -> list[Labelled]:
        value = self.value(node.args[0])
        self.fix(value)
        return [value, Labelled(value.shape, [])]

    def spatial(self, node: Node, name: str) -> Labelled | list[Labelled]:
        """Pooling and interpolation, which leave channels apart."""
        value = self.value(node.args[0])
        space = int("1d" in name) + 2 * int("2d" in name) + 3 * int("3d" in name)
        labels = self.single(value)
        if any(dim >= -space for dim in varying(labels)):
            self.pin([value], f"{name} over channels")
            labels = torch.tensor(ZERO).expand(value.shape)
        if "max" in name:
            self.fix(value)
        example = node.meta["val"]
        shape = tuple((example if isinstance(example, Tensor) else example[0]).shape)
        pooled = Labelled(shape, [compact(labels).expand(shape)])
        return pooled if isinstance(example, Tensor) else [pooled, Labelled(shape, [])]

    # Norms.

    def normalised(self, shape: tuple[int, ...], gain: Labelled, offset: Labelled, dim: int) -> Labelled:
        """What a norm makes: the exponents of its gain, which its offset shares."""
        if not (gain.terms or offset.terms):
            return Labelled(shape, [])
        size = (gain if gain.terms else offset).shape
        column = (*size, *[1] * (-dim - len(size))) if len(size) == 1 else size
        sides = [Labelled(column, [t.reshape(column) for t in v.terms], v.parameter) for v in (gain, offset)]
        for side in sides:
            self.note("norm", side)
        if not gain.terms:  # the normalised activation itself does not scale
            self.pin([sides[1]], "")
            return Labelled(shape, [])
        labels = self.same([side for side in sides if side.terms], tuple(column)).terms[0]
        if gain.terms and not offset.terms and offset.shape:
            self.pin([sides[0]], "a frozen offset of a norm does not scale")
        self.fix(sides[0])
        return Labelled(shape, [labels.expand(shape)])

    def rule_native_layer_norm(self, node: Node) -> list[Labelled]:
        inputs, gain, offset = (self.value(node.args[i]) for i in (0, 2, 3))
        dims = range(-len(node.args[1]), 0)
        if inputs.terms:
            self.note("stream", inputs)
            self.uniform(inputs, dims)
            self.neglect(f"ε = {node.args[4]:g} of LayerNorm", inputs)
        made = self.normalised(inputs.shape, gain, offset, -1)
        return [made, Labelled((), []), Labelled((), [])]

    def rule__fused_rms_norm(self, node: Node) -> list[Labelled]:
        inputs, gain = self.value(node.args[0]), self.value(node.args[2])
        if inputs.terms:
            self.note("stream", inputs)
            self.uniform(inputs, range(-len(node.args[1]), 0))
            self.neglect(f"ε = {node.args[3]:g} of RMSNorm" if node.args[3] else "ε of RMSNorm", inputs)
        return [self.normalised(inputs.shape, gain, Labelled((), []), -1), Labelled((), [])]

    def rule_native_group_norm(self, node: Node) -> list[Labelled]:
        inputs, gain, offset = (self.value(node.args[i]) for i in (0, 1, 2))
        if inputs.terms:
            grouped = inputs.moved(lambda t: t.reshape(len(t), node.args[6], -1), (inputs.shape[0], node.args[6], -1))
            grouped.shape = tuple(grouped.terms[0].shape)
            self.note("stream", inputs)
            self.uniform(grouped, [-1])
            self.neglect(f"ε = {node.args[7]:g} of GroupNorm", inputs)
        return [self.normalised(inputs.shape, gain, offset, 1 - len(inputs.shape)), *[Labelled((), [])] * 2]

    def rule_native_batch_norm(self, node: Node) -> list[Labelled]:
        inputs, gain, offset = (self.value(node.args[i]) for i in range(3))
        if inputs.terms and node.args[5]:
            labels = Labelled(inputs.shape, [self.single(inputs)])
            self.uniform(labels, [0, *range(2, len(inputs.shape))])
            self.fix(labels)
            self.note("channel", labels)
            self.neglect(f"ε = {node.args[7]:g} of BatchNorm", inputs)
        else:
            self.pin([inputs], "BatchNorm in eval mode subtracts a constant mean")
        return [self.normalised(inputs.shape, gain, offset, 1 - len(inputs.shape)), *[Labelled((), [])] * 2]

    def rule_cudnn_batch_norm(self, node: Node) -> list[Labelled]:
        return [*self.rule_native_batch_norm(node), Labelled((), [])]


def _shape(node: Node) -> tuple[int, ...]:
    """The shape of what a node makes; empty where that is no tensor."""
    example = node.meta.get("val")
    return tuple(example.shape) if isinstance(example, Tensor) else ()
