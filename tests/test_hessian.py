"""The Hessian, dense and in products: closed forms, double backward, differences, curvlinops, published values."""

import curvlinops
import numpy as np
import pytest
import torch

from conslaw import (
    dense_hessian,
    draw,
    gradient_vector,
    hessian_vector_product,
    network_outputs,
    sharpness,
)
from conslaw.activations import NAMED
from conslaw.losses import curvature_product, loss_function, output_curvature

SEEDS = [42, 137, 256, 512, 1024]


def double_backward(problem):
    """The function v ↦ H v by automatic differentiation of the forward pass alone."""
    parameters = [p.detach().requires_grad_() for p in problem.parameters]
    networks = problem.with_parameters(parameters)
    value, _ = loss_function(problem.loss)(network_outputs(networks), problem.targets, problem.samples)
    gradients = torch.autograd.grad(value.sum(), parameters, create_graph=True)
    gradient = torch.cat([g.flatten(1) for g in gradients], 1)

    def product(vectors):
        products = torch.autograd.grad(gradient, parameters, vectors, retain_graph=True)
        return torch.cat([p.flatten(1) for p in products], 1)

    return product


def test_product_with_shared_inputs():
    problem = draw([1, 2, 3], (784, 8, 6, 10), dataset="mnist", samples=500, loss="mse")
    vector = torch.randn(3, sum(p[0].numel() for p in problem.parameters), generator=torch.Generator().manual_seed(0))
    products = [f(problem)(vector.double()) for f in (hessian_vector_product, double_backward)]
    torch.testing.assert_close(*products, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("activation", [*NAMED, 0.3])
@pytest.mark.parametrize(
    ("widths", "bias"),
    [((4, 3), True), ((4, 6, 3), False), ((4, 6, 3), True), ((4, 6, 5, 3), False), ((3, 4, 4, 5, 2), True)],
)
@pytest.mark.parametrize("loss", ["mse", "cross_entropy", 0.4])
def test_dense_hessian_is_that_of_double_backward(activation, widths, bias, loss):
    problem = draw([1, 2], widths, samples=15, bias=bias, loss=loss, activation=activation)
    hessian = dense_hessian(problem)
    analytic = hessian_vector_product(problem)
    identity = torch.eye(hessian.matrix.shape[1], dtype=torch.float64)
    for product in (analytic, double_backward(problem)):
        expected = torch.stack([product(row.expand(2, -1)) for row in identity], 1)
        torch.testing.assert_close(hessian.matrix, expected, rtol=1e-11, atol=1e-14)
    analytic = hessian_vector_product(problem, gauss_newton=True)
    expected = torch.stack([analytic(row.expand(2, -1)) for row in identity], 1)
    torch.testing.assert_close(hessian.gauss_newton, expected, rtol=1e-11, atol=1e-14)
    assert torch.linalg.eigvalsh(hessian.gauss_newton).min() > -1e-13
    assert hessian.residual_part.abs().max() > 1e-4 or len(widths) == 2


def test_finite_differences_of_the_gradient():
    problem = draw([3], (4, 6, 3), samples=15, bias=True, loss=0.5, activation="tanh")
    product = hessian_vector_product(problem)
    direction = torch.randn(1, 51, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sizes, shapes = [p.numel() for p in problem.parameters], [p.shape for p in problem.parameters]
    steps = [part.view(shape) for part, shape in zip(direction.split(sizes, 1), shapes, strict=True)]

    def gradient(step):
        moved = [p + step * d for p, d in zip(problem.parameters, steps, strict=True)]
        return gradient_vector(problem.with_parameters(moved))

    torch.testing.assert_close(product(direction), (gradient(1e-5) - gradient(-1e-5)) / 2e-5, rtol=1e-7, atol=1e-9)


def test_linear_model_has_the_hessian_of_least_squares():
    problem = draw([1], (4, 3), samples=15, loss="mse", activation="linear")
    hessian = dense_hessian(problem)
    moments = problem.inputs[0] @ problem.inputs[0].T / 15
    torch.testing.assert_close(
        hessian.matrix[0], torch.kron(torch.eye(3, dtype=torch.float64), moments) * 2 / 3, rtol=1e-12, atol=1e-14
    )
    assert hessian.residual_part.abs().max() == 0


def test_sufficient_statistics_have_the_same_hessian():
    problem = draw([1, 2], (5, 7, 3), samples=40, loss="mse", activation="linear")
    for full, reduced in zip(dense_hessian(problem), dense_hessian(problem.reduced()), strict=True):
        torch.testing.assert_close(full, reduced, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(
    ("loss", "criterion"), [("mse", torch.nn.MSELoss()), ("cross_entropy", torch.nn.CrossEntropyLoss())]
)
@pytest.mark.parametrize("activation", [torch.nn.ReLU(), torch.nn.Tanh()], ids=["relu", "tanh"])
def test_curvlinops_agrees(loss, criterion, activation):
    name = type(activation).__name__.lower()
    problem = draw([5], (6, 8, 4), samples=30, loss=loss, activation=name)
    model = torch.nn.Sequential(torch.nn.Linear(6, 8, bias=False), activation, torch.nn.Linear(8, 4, bias=False))
    model = model.double()
    with torch.no_grad():
        for layer, weight in zip((model[0], model[2]), problem.weights, strict=True):
            layer.weight.copy_(weight[0])
    targets = problem.targets[0].T.contiguous() if loss == "mse" else problem.targets[0].argmax(0)
    arguments = model, criterion, list(model.parameters()), [(problem.inputs[0].T.contiguous(), targets)]
    ours = dense_hessian(problem)
    identity = torch.eye(80, dtype=torch.float64)
    for operator, matrix in (
        (curvlinops.HessianLinearOperator, ours.matrix),
        (curvlinops.GGNLinearOperator, ours.gauss_newton),
    ):
        torch.testing.assert_close(operator(*arguments) @ identity, matrix[0], rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("loss", ["mse", "cross_entropy", 0.3])
def test_output_curvature_is_the_second_derivative(loss):
    outputs = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    targets = torch.eye(3, dtype=torch.float64)[[0, 1, 2, 0]].T.unsqueeze(0)
    full = torch.func.hessian(lambda f: loss_function(loss)(f, targets, 4)[0].sum())(outputs)[0, :, :, 0]
    expected = torch.stack([full[:, i, :, i] for i in range(4)])
    torch.testing.assert_close(output_curvature(loss, outputs, 4)[0], expected, rtol=1e-12, atol=1e-15)
    along = torch.einsum("iab,bi->ai", expected, targets[0])
    torch.testing.assert_close(curvature_product(loss, outputs, 4)(targets)[0], along, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("loss", "activation", "largest", "smallest"),
    [
        ("cross_entropy", "relu", [5.77639, 8.80037, 7.15159, 7.9287, 8.4611], [-2.30171, -2.07566, -2.17438]),
        ("mse", "linear", [18.3383, 16.1627, 17.9294, 18.108, 17.667], [-2.51829, -2.40357, -3.11606]),
    ],
)
def test_published_extreme_eigenvalues(loss, activation, largest, smallest):
    problem = draw(SEEDS, loss=loss, activation=activation)
    result = sharpness(problem)
    assert result.converged.all()
    np.testing.assert_allclose(result.value, largest, rtol=2e-5)
    hessian = dense_hessian(problem)
    eigenvalues = torch.linalg.eigvalsh(hessian.matrix[:3])
    np.testing.assert_allclose(eigenvalues[:, 0], smallest, rtol=5e-6)
    torch.testing.assert_close(eigenvalues[:, -1], result.value[:3], rtol=1e-10, atol=0)
    of_part = sharpness(problem, gauss_newton=True)
    assert of_part.converged.all()
    expected = torch.linalg.eigvalsh(hessian.gauss_newton[0])[-1]
    torch.testing.assert_close(of_part.value[0], expected, rtol=1e-10, atol=0)
    vectors = result.vector.unsqueeze(2)
    torch.testing.assert_close(
        (hessian.matrix @ vectors - result.value.view(-1, 1, 1) * vectors).norm(dim=(1, 2)),
        result.residual,
        rtol=0.05,
        atol=1e-10,
    )
