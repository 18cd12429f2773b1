"""Quantities that gradient flow conserves, and their exact change under gradient descent.

Rescaling a layer by a and the next by 1/a leaves a network with homogeneous activation unchanged. Hence tr(W_lᵀ g_l)
is the same for all layers l, and gradient flow keeps C_l = ‖W_{l+1}‖² − ‖W_l‖² (Theorem 1). One step of gradient
descent with learning rate η changes it by exactly η² δ_l with δ_l = ‖g_{l+1}‖² − ‖g_l‖² (Theorem 2), so the drift
after T steps is η² S with S = Σ_{t<T} δ_l(t).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from conslaw.problems import Problem
from conslaw.quadratic import QuadraticLaws, Term, columns, rows, whole

__all__ = [
    "add_left_out",
    "conserved_quantity",
    "gradient_imbalance",
    "matrix_laws",
    "norms",
    "quadratic_laws",
    "restore_unit_laws",
    "squared_norms",
    "squared_parameter_norms",
    "unit_laws",
]


def norms(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Frobenius norms ‖W_l‖ of a batch of layers, in their dtype.

    Args:
        tensors: L tensors (M, …).

    Returns:
        L tensors (M,).
    """
    return [torch.linalg.vector_norm(t, dim=tuple(range(1, t.dim()))) for t in tensors]


def squared_norms(tensors: Sequence[Tensor]) -> Tensor:
    """Squared Frobenius norms ‖W_l‖² of a batch of layers.

    The norm is taken in the tensors' dtype and squared in float64, as in the published scripts.

    Args:
        tensors: L tensors (M, …).

    Returns:
        Shape (M, L), float64.
    """
    return torch.stack(norms(tensors), 1).double().square()


def gradient_imbalance(squared_norms: Tensor, depth: int | None = None) -> Tensor:
    """δ_l = ‖g_{l+1}‖² − ‖g_l‖² − ‖∂L/∂b_l‖²; the last term only where there are biases.

    It is linear in the squared norms: of their sums over t < T it makes S_l, so that the drift is exactly η² S_l
    (Theorem 2). Of the weights' own squared norms it makes C_l.

    Args:
        squared_norms: Of g_1 … g_L, shape (…, L), or of g_1 … g_L and ∂L/∂b_1 … ∂L/∂b_L, shape (…, 2 L).
        depth: L; by default all of the norms belong to weights.

    Returns:
        Shape (…, L − 1).

    >>> gradient_imbalance(torch.tensor([1.0, 4.0, 9.0]))
    tensor([3., 5.])
    """
    depth = depth or squared_norms.shape[-1]
    imbalance = squared_norms[..., :depth].diff(dim=-1)
    if squared_norms.shape[-1] > depth:
        imbalance = imbalance - squared_norms[..., depth:-1]
    return imbalance


def conserved_quantity(problem: Problem) -> Tensor:
    """C_l = ‖W_{l+1}‖² − ‖W_l‖² (Theorem 1), or C_l − ‖b_l‖² for networks with biases.

    With biases the rescaling symmetry acts on W_l and b_l together, which adds ‖b_l‖²; C_l alone is then not conserved.

    Args:
        problem: M networks.

    Returns:
        Shape (M, L − 1), float64, in the coordinates that the networks were made in.

    >>> from conslaw import as_problem
    >>> conserved_quantity(as_problem([[1, 2]], [[0]], weights=[torch.ones(3, 2), 2 * torch.ones(1, 3)], loss="mse"))
    tensor([[6.0000]], dtype=torch.float64)
    """
    return gradient_imbalance(squared_parameter_norms(problem), problem.depth)


def squared_parameter_norms(problem: Problem) -> Tensor:
    """‖W_l‖² and ‖b_l‖² of every network, with what a change of coordinates has left out of ‖W_1‖².

    Args:
        problem: M networks.

    Returns:
        Shape (M, P), float64.
    """
    return add_left_out(squared_norms(problem.parameters), problem)


def add_left_out(squared_norms: Tensor, problem: Problem) -> Tensor:
    """Add the constant part of ‖W_1‖² that `Problem.in_span_of_inputs` has left out.

    Args:
        squared_norms: Of the parameters of M networks, shape (…, M, P) on any device.
        problem: The networks.

    Returns:
        The norms in the coordinates that the networks were made in, same shape.
    """
    if problem.left_out is None:
        return squared_norms
    constant = problem.left_out.diagonal(dim1=1, dim2=2).sum(1, keepdim=True).to(squared_norms)
    return torch.cat([squared_norms[..., :1] + constant, squared_norms[..., 1:]], -1)


def quadratic_laws(problem: Problem, each: str = "unit") -> list[QuadraticLaws]:
    """Return the laws C = wᵀQw of every hidden layer as forms, which can be taken of gradients or eigenvectors too.

    Args:
        problem: M networks.
        each: "unit" for ‖outgoing‖² − ‖incoming‖² − bias² of every unit; "layer" for their sum, C_l − ‖b_l‖²; "entry"
            for every entry of W_{l+1}ᵀ W_{l+1} − W_l W_lᵀ − b_l b_lᵀ.

    Returns:
        L − 1 families; what they take are tensors in the order of `Problem.parameters`.

    Raises:
        ValueError: If `each` is none of these.

    >>> from conslaw import draw, loss_and_gradients
    >>> problem = draw([42])
    >>> layer, = quadratic_laws(problem, "layer")
    >>> abs(layer(problem.parameters, loss_and_gradients(problem)[1]).item()) < 1e-6  # ⟨Qw, ∇L⟩ = 0
    True
    """
    if each not in ("unit", "layer", "entry"):
        raise ValueError(f'each must be "unit", "layer" or "entry", got {each!r}')
    outgoing, incoming = (whole, whole) if each == "layer" else (columns, rows)
    families = []
    for layer in range(problem.depth - 1):
        terms = [Term(layer + 1, outgoing, 1), Term(layer, incoming, -1)]
        if problem.biases:
            terms.append(Term(problem.depth + layer, lambda bias: incoming(bias.unsqueeze(-1)), -1))
        families.append(QuadraticLaws(tuple(terms), pairs=each == "entry"))
    return families


def unit_laws(problem: Problem) -> list[Tensor]:
    """Per hidden unit: ‖outgoing weights‖² − ‖incoming weights‖² − bias².

    The rescaling symmetry holds for every unit by itself, so gradient flow conserves each of these; their sum is C_l.

    Args:
        problem: M networks.

    Returns:
        For each of the L − 1 hidden layers a tensor (M, width).
    """
    laws = [family(problem.parameters) for family in quadratic_laws(problem)]
    if problem.left_out is not None:
        laws[0] = laws[0] - problem.left_out.diagonal(dim1=1, dim2=2).to(laws[0])
    return laws


def matrix_laws(problem: Problem) -> list[Tensor]:
    """W_{l+1}ᵀ W_{l+1} − W_l W_lᵀ − b_l b_lᵀ, whose every entry gradient flow conserves in linear networks.

    Its diagonal are the laws of the units, its trace is C_l (Saxe et al. 2014; Du et al. 2018).

    Args:
        problem: M networks.

    Returns:
        For each of the L − 1 hidden layers a tensor (M, width, width).
    """
    laws = [family(problem.parameters) for family in quadratic_laws(problem, "entry")]
    if problem.left_out is not None:
        laws[0] = laws[0] - problem.left_out.to(laws[0])
    return laws


def restore_unit_laws(problem: Problem, laws: Sequence[Tensor]) -> Problem:
    """Rescale hidden units so that each unit's law has a given value; the network's outputs stay the same.

    Unit i of layer l is rescaled by W_l[i] → a W_l[i], W_{l+1}[:, i] → W_{l+1}[:, i] / a, with the one a > 0 for which
    ‖outgoing‖² / a² − a² ‖incoming‖² is the value asked for. Layers take turns, since units of neighbouring layers
    share weights; each turn minimises a convex function of the ln a, so they converge where no unit loses its weights.

    Args:
        problem: M networks without biases whose activation is homogeneous.
        laws: For each hidden layer the values (M, width), as returned by `unit_laws`.

    Returns:
        The rescaled networks, with their data.

    Raises:
        ValueError: If the networks have biases or an activation without rescaling symmetry, or a unit has no incoming
            or no outgoing weights and its law cannot be restored.
        RuntimeError: If the turns do not converge.

    >>> from conslaw import draw
    >>> problem = draw([42])
    >>> restored = restore_unit_laws(problem, [torch.zeros(1, 64).double()])
    >>> unit_laws(restored)[0].abs().max().item() < 1e-6
    True
    """
    if problem.biases or problem.sigma.slope is None:
        raise ValueError(f"problem must have no biases and a homogeneous activation, got {problem!r}")
    restored, left_out = list(problem.weights), problem.left_out
    for _ in range(10_000):
        largest = 0.0
        for layer, law in enumerate(laws):
            incoming, outgoing = restored[layer].square().sum(2), restored[layer + 1].square().sum(1)
            if layer == 0 and left_out is not None:
                incoming = incoming + left_out.diagonal(dim1=1, dim2=2).to(incoming)
            root = (law.square() + 4 * incoming * outgoing).sqrt()
            # Of the two forms of the solution the one in which nothing cancels.
            factor = torch.where(law > 0, 2 * outgoing / (root + law), (root - law) / (2 * incoming)).sqrt()
            factor = factor.masked_fill(root == 0, 1.0)  # of units without any weights
            if not bool((factor.isfinite() & (factor > 0)).all()):
                raise ValueError(f"weights must be finite, and laws such as their units can have, in layer {layer + 1}")
            restored[layer] = restored[layer] * factor.unsqueeze(2)
            restored[layer + 1] = restored[layer + 1] / factor.unsqueeze(1)
            if layer == 0 and left_out is not None:
                left_out = left_out * (factor.unsqueeze(2) * factor.unsqueeze(1)).to(left_out)
            largest = max(largest, (factor - 1).abs().max().item())
        if largest < 100 * torch.finfo(restored[0].dtype).eps:
            return problem.with_parameters(restored, left_out)
    raise RuntimeError(f"the units' laws could not be restored: factors still change by {largest:.1e}")
