"""Which scalings of the parameters leave the loss as it is: every operation says how the exponents go through it.

Multiply each channel of each tensor by a factor exp(t λ). A linear layer y = W x + b allows it where the exponents of W
and x add up to that of y in every product; an activation that is positively homogeneous hands the exponent on; one that
is not, such as GELU, pins it to zero; a sum needs equal exponents, a norm over channels one exponent for all of them,
and the loss the exponent zero. What is left free are the symmetries of the loss, and by Noether's argument
Σ λ w² over the parameters is conserved by gradient flow.

Not seen are symmetries of several operations together, none of which has them alone: of two norms with nothing but
activations and gains between them the first only scales each sample, which the second takes out again.
"""

from collections.abc import Iterable

from torch.fx import GraphModule

from conslaw.models.rules import convolutions, entries, moves, norms, products  # noqa: F401  (they register themselves)
from conslaw.models.walk import Scaling, Walk

__all__ = ["scaling_of"]


def scaling_of(graph: GraphModule, parameters: Iterable[str]) -> Scaling:
    """Find the scalings that leave the loss as it is.

    Args:
        graph: As traced by `Objective.graph`.
        parameters: Names of its placeholders.

    Returns:
        The solved system of exponents.
    """
    walk = Walk(dict(zip((n for n in graph.graph.nodes if n.op == "placeholder"), parameters, strict=True)))
    for node in graph.graph.nodes:
        if node.op == "call_function":
            walk.values[node] = walk.run(node)
        elif node.op == "output":
            walk.pin([walk.value(leaf) for leaf in node.all_input_nodes], "")
    return walk.found
