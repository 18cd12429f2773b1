"""Softmax curvature: its bounds on random vectors, its extremes, and published values."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conslaw import as_problem, dense_hessian, draw, gradient_descent, gradient_vector, networks_at, sharpness
from conslaw.theory.compression import correct_probability, curvature_factors, margin_kernel, softmax_sharpness

SEEDS = [42, 137, 256]


@given(logits=st.lists(st.floats(-30, 30), min_size=2, max_size=8))
def test_bounds_of_the_softmax_curvature(logits):
    p = torch.softmax(torch.tensor(logits, dtype=torch.float64), 0)
    top = softmax_sharpness(p.view(1, -1, 1)).item()
    largest, classes = (p * (1 - p)).max().item(), len(logits)
    assert classes / (classes - 1) * largest <= top + 1e-15
    assert top <= 2 * largest + 1e-15 <= 0.5 + 2e-15
    assert top == pytest.approx(torch.linalg.eigvalsh(torch.diag(p) - torch.outer(p, p))[-1].item(), abs=1e-15)


def test_both_bounds_are_attained():
    uniform = torch.full((1, 5, 1), 0.2, dtype=torch.float64)
    assert softmax_sharpness(uniform).item() == pytest.approx(5 / 4 * 0.2 * 0.8)
    two = torch.tensor([0.9, 0.1, 0.0]).double().view(1, 3, 1)
    assert softmax_sharpness(two).item() == pytest.approx(2 * 0.09)


def test_factors_of_the_bound_are_those_of_the_dense_matrices():
    problem = draw([1, 2], (4, 6, 3), samples=9)
    factors = curvature_factors(problem)
    dense = torch.linalg.eigvalsh(dense_hessian(problem).gauss_newton)[:, -1]
    squared = torch.linalg.eigvalsh(dense_hessian(problem.under(loss="mse")).gauss_newton)[:, -1]
    torch.testing.assert_close(factors.gauss_newton, dense, rtol=1e-10, atol=0)
    torch.testing.assert_close(factors.jacobian, squared * 3 / 2, rtol=1e-10, atol=0)
    torch.testing.assert_close(factors.correct, correct_probability(problem))
    assert (factors.gauss_newton <= factors.proved_bound).all()


@given(a=st.floats(0.1, 3), first=st.floats(0.1, 3), second=st.floats(0.1, 3))
def test_two_classes_have_twice_the_published_bound(a, first, second):
    """One sample, W_2 = aI and open gates: JJᵀ ∝ I, so λ_max(H_GN) = λ_max(S) λ_max(JᵀJ), and λ_max(S) = 2q(1 − q)."""
    weights = [torch.tensor([[first], [second]]), a * torch.eye(2)]
    factors = curvature_factors(as_problem([[1.0]], [0], weights=weights))
    ratio = factors.gauss_newton / factors.published_bound
    assert ratio.item() == pytest.approx(2, rel=1e-7)
    assert (factors.gauss_newton / factors.proved_bound).item() == pytest.approx(1, rel=1e-7)


def test_networks_at_times_of_one_run():
    problem = draw(SEEDS)
    rates = [0.01, 0.02, 0.03]
    states = networks_at(problem, rates, [0, 7, 30])
    assert all(torch.equal(a, b) for a, b in zip(states[0].parameters, problem.parameters, strict=True))
    whole = gradient_descent(problem, np.array([rates]), 30)
    for ours, theirs in zip(states[2].parameters, whole.parameters, strict=True):
        torch.testing.assert_close(ours, theirs[0], rtol=1e-12, atol=1e-14)
    for times in ([3, 1], [1, 1], [-1, 2]):
        with pytest.raises(ValueError, match="times must be"):
            networks_at(problem, 0.01, times)


def test_published_compression():
    states = networks_at(draw(SEEDS), 0.01, [50, 1000])
    published = [[4.17511, 5.96847, 4.74094], [0.281488, 0.327265, 0.373498]]
    for state, values in zip(states, published, strict=True):
        np.testing.assert_allclose(sharpness(state).value, values, rtol=1e-5)
        np.testing.assert_allclose(torch.linalg.eigvalsh(dense_hessian(state).matrix)[:, -1], values, rtol=1e-5)
    np.testing.assert_allclose(
        1 - correct_probability(states[1]).mean(1), [0.00658447, 0.00621301, 0.0066545], rtol=1e-5
    )


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("widths", [(6, 9, 4), (6, 7, 8, 4)])
def test_margin_kernel_by_autograd(widths, bias):
    problem = draw([0, 1], widths, samples=11, bias=bias)
    margins, weights, kernel = margin_kernel(problem)
    for network in range(2):
        parameters = [p[network].clone().requires_grad_() for p in problem.parameters]
        weights_, biases = parameters[: len(widths) - 1], parameters[len(widths) - 1 :]
        outputs = problem.inputs[network]
        for layer, weight in enumerate(weights_):
            outputs = weight @ (torch.relu(outputs) if layer else outputs)
            outputs = outputs + biases[layer].unsqueeze(1) if bias else outputs
        gradients = []
        for sample in range(11):
            own = problem.targets[network, :, sample].argmax()
            others = [k for k in range(4) if k != own]
            margin = outputs[own, sample] - outputs[others, sample].max()
            assert margin.item() == pytest.approx(margins[network, sample].item(), rel=1e-12)
            assert weights[network, sample].item() == pytest.approx(
                1 - torch.softmax(outputs[:, sample], 0)[own].item(), rel=1e-12
            )
            gradient = torch.autograd.grad(margin, parameters, retain_graph=True)
            gradients.append(torch.cat([g.flatten() for g in gradient]))
        stacked = torch.stack(gradients)
        torch.testing.assert_close(kernel[network], stacked @ stacked.T, rtol=1e-11, atol=1e-13)


def test_two_classes_have_the_hessian_of_their_margins():
    """With K = 2 the rival is the only other class: gradient and Gauss-Newton matrix are those of the margins."""
    problem = networks_at(draw([3], (5, 8, 2), samples=20), 0.5, [4000])[0]
    margins = margin_kernel(problem)
    gradient = gradient_vector(problem)
    squared = torch.einsum("mi,mij,mj->m", margins.weights, margins.kernel, margins.weights) / 20**2
    torch.testing.assert_close(gradient.square().sum(1), squared, rtol=1e-10, atol=0)
    loss = margins.weights.mean(1)  # to first order in 1 − q
    kappa = sharpness(problem, gauss_newton=True).value * loss / gradient.square().sum(1)
    # The Gauss-Newton matrix has the weights q (1 − q) instead of 1 − q.
    torch.testing.assert_close(margins.curvature_ratio(), kappa, rtol=margins.weights.max().item(), atol=0)
    assert 1 < margins.curvature_ratio().item() < 10
    assert margins.curvature_ratio(problem.targets.mT @ problem.targets).item() < margins.curvature_ratio().item()


def test_curvature_ratio_of_each_network_by_itself():
    problem = draw([0, 1, 2], (6, 7, 4), samples=11)
    together = margin_kernel(problem)
    mask = problem.targets.mT @ problem.targets
    for network in range(3):
        alone = margin_kernel(problem.select([network]))
        torch.testing.assert_close(together.curvature_ratio()[network], alone.curvature_ratio()[0])
        torch.testing.assert_close(together.curvature_ratio(mask)[network], alone.curvature_ratio(mask[[network]])[0])
        roots, weights = alone.weights[0].sqrt(), alone.weights[0]
        top = torch.linalg.eigvalsh(torch.diag(roots) @ alone.kernel[0] @ torch.diag(roots))[-1]
        expected = top * weights.sum() / (weights @ alone.kernel[0] @ weights)
        torch.testing.assert_close(alone.curvature_ratio()[0], expected)
