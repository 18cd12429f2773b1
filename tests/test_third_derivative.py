"""The third derivative, and the identities that make the drift of a quadratic law predictable."""

from itertools import combinations_with_replacement

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conslaw import draw, gradient_vector, hessian_vector_product, lanczos, loss_and_gradients, network_outputs
from conslaw.conserved import quadratic_laws
from conslaw.losses import loss_function
from conslaw.third_derivative import third_derivative


def random_vectors(problem, count, seed=0):
    size = sum(p[0].numel() for p in problem.parameters)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(problem), count, size, generator=generator, dtype=torch.float64)


def parts(problem, vectors):
    """Vectors (M, …, P) as tensors (M, …, shape of each parameter)."""
    split = vectors.split([p[0].numel() for p in problem.parameters], -1)
    return [v.unflatten(-1, p.shape[1:]) for v, p in zip(split, problem.parameters, strict=True)]


def moved(problem, vector, step):
    return problem.with_parameters(
        [p + step * v for p, v in zip(problem.parameters, parts(problem, vector), strict=True)]
    )


def triple_backward(problem, first, second):
    """∇(uᵀ H v) by automatic differentiation of the forward pass alone."""
    parameters = [p.detach().requires_grad_() for p in problem.parameters]
    networks = problem.with_parameters(parameters)
    form = loss_function(problem.loss)(network_outputs(networks), problem.targets, problem.samples)[0].sum()
    for vector in (first, second):
        gradients = torch.autograd.grad(form, parameters, create_graph=True)
        form = sum((g * v).sum() for g, v in zip(gradients, parts(problem, vector), strict=True))
    return torch.cat([g.flatten(1) for g in torch.autograd.grad(form, parameters)], 1)


@pytest.mark.parametrize("activation", ["relu", 0.3, "linear", "tanh", "gelu", "sigmoid"])
@pytest.mark.parametrize("loss", ["mse", "cross_entropy", 0.4])
@pytest.mark.parametrize("bias", [False, True])
def test_automatic_differentiation_and_differences_agree(activation, loss, bias):
    problem = draw([1, 2], (4, 6, 5, 3), samples=15, bias=bias, loss=loss, activation=activation)
    u = random_vectors(problem, 3)
    ours = third_derivative(problem, u)
    for place, (a, b) in enumerate(combinations_with_replacement(range(3), 2)):
        torch.testing.assert_close(ours[:, place], triple_backward(problem, u[:, a], u[:, b]), rtol=1e-10, atol=1e-13)
        ends = (hessian_vector_product(moved(problem, u[:, b], step))(u[:, a]) for step in (1e-6, -1e-6))
        difference = torch.stack([*ends]).diff(dim=0)[0] / -2e-6
        torch.testing.assert_close(ours[:, place], difference, rtol=1e-5, atol=1e-6 * ours.abs().max().item())
    torch.testing.assert_close(third_derivative(problem, u[:, :1])[:, 0], ours[:, 0], rtol=1e-12, atol=1e-15)


NETWORKS = st.tuples(
    st.integers(0, 1000),
    st.lists(st.integers(2, 6), min_size=1, max_size=3),
    st.booleans(),
    st.sampled_from(["relu", 0.3, "linear"]),
    st.sampled_from(["mse", "cross_entropy"]),
    st.sampled_from(["unit", "layer"]),
)


def drawn(network):
    seed, hidden, bias, activation, loss, each = network
    problem = draw([seed, seed + 1], (4, *hidden, 3), samples=12, bias=bias, activation=activation, loss=loss)
    return problem, quadratic_laws(problem, each)


@given(NETWORKS)
@settings(max_examples=25)
def test_derivatives_of_a_law(network):
    """⟨Qw, ∇L⟩ = 0 for all w; its derivatives along v are Qg + HQw = 0 and ∇³L[Qw, a, b] = −(aᵀQHb + bᵀQHa)."""
    problem, laws = drawn(network)
    vectors = random_vectors(problem, 2)
    a, b = (parts(problem, v) for v in vectors.unbind(1))
    product = hessian_vector_product(problem)
    of_a, of_b = (parts(problem, product(v)) for v in vectors.unbind(1))
    turn = parts(problem, third_derivative(problem, vectors)[:, 1])
    gradients = loss_and_gradients(problem)[1]
    for law in laws:
        size = law.size(a) + law.size(b)
        error = law(a, gradients) + law(problem.parameters, of_a)
        assert (error.abs() <= 1e-12 * (size + law.size(problem.parameters, of_a))).all()
        left, right = law(problem.parameters, turn), law(a, of_b) + law(b, of_a)
        scale = law.size(problem.parameters, turn) + law.size(a, of_b) + law.size(b, of_a)
        assert ((left + right).abs() <= 1e-12 * scale).all()


@given(NETWORKS, st.floats(0.01, 5))
@settings(max_examples=25)
def test_two_steps_split_into_mean_and_oscillation(network, eta):
    """w₀, w₁, w₂ of gradient descent: ΔC per step is η² ḡᵀQḡ + 4 xᵀQx with x = (2w₁ − w₀ − w₂)/4, exactly."""
    problem, laws = drawn(network)
    states = [problem]
    for _ in range(2):
        states.append(moved(states[-1], gradient_vector(states[-1]), -eta))
    w = [state.parameters for state in states]
    x = [(2 * b - a - c) / 4 for a, b, c in zip(*w, strict=True)]
    mean = [(a - c) / (2 * eta) for a, _, c in zip(*w, strict=True)]
    for law in laws:
        predicted, change = eta**2 * law(mean) + 4 * law(x), (law(w[2]) - law(w[0])) / 2
        scale = law.size(w[0]) + law.size(w[1]) + law.size(w[2])
        assert ((predicted - change).abs() <= 1e-12 * scale).all()


@given(NETWORKS)
@settings(max_examples=15)
def test_sign_rule(network):
    """⟨Qw, ∇S⟩ = −2 S uᵀQu: the law moves to where the sharpness is less along its own orbit."""
    problem, laws = drawn(network)
    top = lanczos(hessian_vector_product(problem), random_vectors(problem, 1)[:, 0], tolerance=1e-12)
    u, rise = parts(problem, top.vectors[:, 0]), parts(problem, third_derivative(problem, top.vectors)[:, 0])
    for law in laws:
        along, sign = law(problem.parameters, rise), law(u)
        scale = (law.size(problem.parameters, rise) + top.values * law.size(u)).sum(1, keepdim=True)
        assert ((along + 2 * top.values * sign).abs() <= 1e-8 * scale).all()  # all zero, where every unit is dead


def test_a_smooth_activation_has_no_such_law():
    problem = draw([1], (4, 5, 3), samples=12, activation="tanh")
    law, u = quadratic_laws(problem)[0], random_vectors(problem, 1)
    turn = parts(problem, third_derivative(problem, u)[:, 0])
    moved_u = parts(problem, hessian_vector_product(problem)(u[:, 0]))
    rest = law(problem.parameters, turn) + 2 * law(parts(problem, u[:, 0]), moved_u)
    assert rest.abs().max() > 0.01
