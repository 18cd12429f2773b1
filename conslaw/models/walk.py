"""A walk through a traced graph, operation by operation, and what the rules of all operations share."""

import itertools
import math
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.fx import Node

from conslaw.models.exponents import ZERO, Exponents
from conslaw.models.labels import Axis, Labelled, compact, varying

__all__ = ["RULES", "Scaling", "Walk", "rule", "shape_of"]

RULES: dict[str, Callable] = {}
"""What to do with an operation, by its name in ATen."""
NAMES = {"gelu": "GELU", "silu": "SiLU", "elu": "ELU, SELU or CELU", "hardswish": "hard swish", "mish": "Mish"}
NAMES |= {"tanh": "tanh", "sigmoid": "sigmoid", "hardtanh": "ReLU6 or hardtanh", "hardsigmoid": "hard sigmoid"}
NAMES |= {"softplus": "softplus", "exp": "exp", "log": "log", "erf": "erf", "sin": "sin", "cos": "cos"}
NAMES |= {"log_sigmoid_forward": "log sigmoid", "hardshrink": "hard shrink", "softshrink": "soft shrink"}
LOSSES = [
    "_softmax",
    "_safe_softmax",
    "_log_softmax",
    "nll_loss_forward",
    "nll_loss2d_forward",
    "binary_cross_entropy_with_logits",
    "mse_loss",
    "smooth_l1_loss",
    "huber_loss",
    "binary_cross_entropy",
]  # that they fix the scale need not be said
FACTORIES = [
    "empty_like",
    "zeros_like",
    "ones_like",
    "full_like",
    "rand_like",
    "randn_like",
    "new_empty",
    "new_zeros",
    "new_ones",
    "new_full",
]


def rule(*names: str) -> Callable[[Callable], Callable]:
    """Make a function the rule of operations."""

    def register(function: Callable) -> Callable:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


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


class Walk:
    """The labels of all that a graph computes, as far as it has been walked through."""

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
        return value if isinstance(value, Labelled) else Labelled(shape_of(node), [])

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
            return source[node.args[1]] if isinstance(source, list) else Labelled(shape_of(node), [])
        name = node.target._schema.name.split("::")[-1]
        name = name[:-1] if name.endswith("_") and not name.startswith("__") else name
        inputs = [self.value(leaf) for leaf in node.all_input_nodes]
        if name in FACTORIES or not any(value.terms for value in inputs):
            return Labelled(shape_of(node), [])
        if name not in RULES:
            reason = f"{NAMES[name]} is not homogeneous" if name in NAMES else f"no rule for {name}"
            self.pin(inputs, "" if name in LOSSES else reason)
            return Labelled(shape_of(node), [])
        return RULES[name](self, node)

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


def shape_of(node: Node) -> tuple[int, ...]:
    """The shape of what a node makes; empty where that is no tensor."""
    example = node.meta.get("val")
    return tuple(example.shape) if isinstance(example, Tensor) else ()
