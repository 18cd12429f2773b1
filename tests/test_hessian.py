"""The dense Hessian and Lanczos: closed forms, double backward, finite differences, curvlinops, published values."""

import curvlinops
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conslaw import (
    SharpnessObserver,
    dense_hessian,
    draw,
    gradient_descent,
    gradient_vector,
    hessian_vector_product,
    lanczos,
    sharpness,
)
from conslaw.losses import curvature_product, loss_function, output_curvature
from conslaw.networks import NAMED, activation_function, forward

SEEDS = [42, 137, 256, 512, 1024]


def double_backward(problem, loss, activation):
    """The function v ↦ H v by automatic differentiation of the forward pass alone."""
    parameters = [p.detach().requires_grad_() for p in problem.parameters]
    networks = problem.with_parameters(parameters)
    outputs = forward(networks.weights, networks.biases, networks.inputs, activation_function(activation))[0][-1]
    value, _ = loss_function(loss)(outputs, problem.targets, problem.samples)
    gradients = torch.autograd.grad(value.sum(), parameters, create_graph=True)
    gradient = torch.cat([g.flatten(1) for g in gradients], 1)

    def product(vectors):
        products = torch.autograd.grad(gradient, parameters, vectors, retain_graph=True)
        return torch.cat([p.flatten(1) for p in products], 1)

    return product


def test_product_with_shared_inputs():
    problem = draw([1, 2, 3], (784, 8, 6, 10), dataset="mnist", samples=500)
    vector = torch.randn(3, sum(p[0].numel() for p in problem.parameters), generator=torch.Generator().manual_seed(0))
    products = [f(problem, "mse", "relu")(vector.double()) for f in (hessian_vector_product, double_backward)]
    torch.testing.assert_close(*products, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("activation", [*NAMED, 0.3])
@pytest.mark.parametrize(
    ("widths", "bias"),
    [((4, 3), True), ((4, 6, 3), False), ((4, 6, 3), True), ((4, 6, 5, 3), False), ((3, 4, 4, 5, 2), True)],
)
@pytest.mark.parametrize("loss", ["mse", "cross_entropy", 0.4])
def test_dense_hessian_is_that_of_double_backward(activation, widths, bias, loss):
    problem = draw([1, 2], widths, samples=15, bias=bias)
    hessian = dense_hessian(problem, loss, activation)
    analytic = hessian_vector_product(problem, loss, activation)
    identity = torch.eye(hessian.matrix.shape[1], dtype=torch.float64)
    for product in (analytic, double_backward(problem, loss, activation)):
        expected = torch.stack([product(row.expand(2, -1)) for row in identity], 1)
        torch.testing.assert_close(hessian.matrix, expected, rtol=1e-11, atol=1e-14)
    analytic = hessian_vector_product(problem, loss, activation, gauss_newton=True)
    expected = torch.stack([analytic(row.expand(2, -1)) for row in identity], 1)
    torch.testing.assert_close(hessian.gauss_newton, expected, rtol=1e-11, atol=1e-14)
    assert torch.linalg.eigvalsh(hessian.gauss_newton).min() > -1e-13
    assert hessian.residual_part.abs().max() > 1e-4 or len(widths) == 2


def test_finite_differences_of_the_gradient():
    problem = draw([3], (4, 6, 3), samples=15, bias=True)
    product = hessian_vector_product(problem, 0.5, "tanh")
    direction = torch.randn(1, 51, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sizes, shapes = [p.numel() for p in problem.parameters], [p.shape for p in problem.parameters]
    steps = [part.view(shape) for part, shape in zip(direction.split(sizes, 1), shapes, strict=True)]

    def gradient(step):
        moved = [p + step * d for p, d in zip(problem.parameters, steps, strict=True)]
        return gradient_vector(problem.with_parameters(moved), 0.5, "tanh")

    torch.testing.assert_close(product(direction), (gradient(1e-5) - gradient(-1e-5)) / 2e-5, rtol=1e-7, atol=1e-9)


def test_linear_model_has_the_hessian_of_least_squares():
    problem = draw([1], (4, 3), samples=15)
    hessian = dense_hessian(problem, "mse", "linear")
    moments = problem.inputs[0] @ problem.inputs[0].T / 15
    torch.testing.assert_close(
        hessian.matrix[0], torch.kron(torch.eye(3, dtype=torch.float64), moments) * 2 / 3, rtol=1e-12, atol=1e-14
    )
    assert hessian.residual_part.abs().max() == 0


def test_sufficient_statistics_have_the_same_hessian():
    problem = draw([1, 2], (5, 7, 3), samples=40)
    for full, reduced in zip(
        dense_hessian(problem, "mse", "linear"), dense_hessian(problem.reduced(), "mse", "linear"), strict=True
    ):
        torch.testing.assert_close(full, reduced, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(
    ("loss", "criterion"), [("mse", torch.nn.MSELoss()), ("cross_entropy", torch.nn.CrossEntropyLoss())]
)
@pytest.mark.parametrize("activation", [torch.nn.ReLU(), torch.nn.Tanh()], ids=["relu", "tanh"])
def test_curvlinops_agrees(loss, criterion, activation):
    problem = draw([5], (6, 8, 4), samples=30)
    model = torch.nn.Sequential(torch.nn.Linear(6, 8, bias=False), activation, torch.nn.Linear(8, 4, bias=False))
    model = model.double()
    with torch.no_grad():
        for layer, weight in zip((model[0], model[2]), problem.weights, strict=True):
            layer.weight.copy_(weight[0])
    targets = problem.targets[0].T.contiguous() if loss == "mse" else problem.targets[0].argmax(0)
    arguments = model, criterion, list(model.parameters()), [(problem.inputs[0].T.contiguous(), targets)]
    ours = dense_hessian(problem, loss, type(activation).__name__.lower())
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
    problem = draw(SEEDS)
    result = sharpness(problem, loss, activation)
    assert result.converged.all()
    np.testing.assert_allclose(result.value, largest, rtol=2e-5)
    hessian = dense_hessian(problem, loss, activation)
    eigenvalues = torch.linalg.eigvalsh(hessian.matrix[:3])
    np.testing.assert_allclose(eigenvalues[:, 0], smallest, rtol=5e-6)
    torch.testing.assert_close(eigenvalues[:, -1], result.value[:3], rtol=1e-10, atol=0)
    of_part = sharpness(problem, loss, activation, gauss_newton=True)
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


@pytest.mark.parametrize("smallest", [False, True])
def test_lanczos_finds_several_eigenpairs(smallest):
    problem = draw([1, 2], (10, 12, 4), samples=60)
    values, vectors = torch.linalg.eigh(dense_hessian(problem).matrix)
    order = torch.arange(4) if smallest else torch.arange(-1, -5, -1)
    start = torch.randn(2, 168, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = lanczos(hessian_vector_product(problem, "cross_entropy", "relu"), start, 4, smallest=smallest)
    assert found.converged.all()
    torch.testing.assert_close(found.values, values[:, order], rtol=1e-8, atol=1e-10)
    overlap = (found.vectors @ vectors[:, :, order]).diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(overlap.abs(), torch.ones(2, 4, dtype=torch.float64), rtol=1e-6, atol=0)


def test_too_few_iterations_are_admitted():
    result = sharpness(draw([42]), iterations=3)
    assert not result.converged.any()
    assert result.residual > 1e-3


def test_a_warm_start_saves_products():
    run = gradient_descent(draw([42, 137]), 0.1, 20)
    weights = [p[0] for p in run.parameters]
    problem = run.problem.with_parameters(weights)
    cold = sharpness(problem)
    little = [p + 1e-4 * torch.sin(torch.arange(p.numel())).view(p.shape) for p in weights]
    moved = problem.with_parameters(little)
    product, calls = hessian_vector_product(moved, "cross_entropy", "relu"), []

    def counted(vectors):
        calls.append(1)
        return product(vectors)

    random = torch.randn(2, 1600, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = lanczos(counted, random, tolerance=1e-5)
    from_random = len(calls)
    calls.clear()
    warm = lanczos(counted, cold.vector + 1e-3 * random / random.norm(dim=1, keepdim=True), tolerance=1e-5)
    assert len(calls) < from_random
    torch.testing.assert_close(warm.values, expected.values, rtol=1e-7, atol=0)
    torch.testing.assert_close(sharpness(moved, start=cold.vector).value, sharpness(moved).value, rtol=1e-10, atol=0)


def test_start_at_an_eigenvector():
    matrix = torch.diag(torch.arange(1, 9, dtype=torch.float64))
    found = lanczos(lambda v: v @ matrix, torch.eye(8, dtype=torch.float64)[None, 3].clone())
    assert found.values.item() == pytest.approx(8.0, rel=1e-12)
    assert found.converged.all()


@pytest.mark.parametrize("count", [0, 9])
def test_a_count_out_of_range(count):
    with pytest.raises(ValueError, match=f"count must be from 1 to 8, got {count}"):
        lanczos(lambda v: v, torch.ones(1, 8, dtype=torch.float64), count)


@pytest.mark.cuda
def test_cuda_agrees():
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    problem = draw([42, 137])
    for here, there in zip(dense_hessian(problem), dense_hessian(problem.to(device="cuda")), strict=True):
        torch.testing.assert_close(here, there.cpu(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(
        sharpness(problem).value, sharpness(problem.to(device="cuda")).value.cpu(), rtol=1e-9, atol=0
    )


def test_sharpness_in_training_and_of_diverged_networks():
    problem = draw([42, 137], (20, 16, 5))
    observer = SharpnessObserver("mse", tolerance=1e-6)
    run = gradient_descent(problem, [0.05, 1e3], 100, loss="mse", record_every=20, observe={"sharpness": observer})
    assert (run.diverged_at >= 0).tolist() == [[False, False], [True, True]]
    assert run.observed["sharpness"][1, :, 1:].isnan().all()
    end = problem.with_parameters([p[0] for p in run.parameters])
    torch.testing.assert_close(run.observed["sharpness"][0, :, 0], sharpness(problem, "mse").value, rtol=1e-9, atol=0)
    torch.testing.assert_close(run.observed["sharpness"][0, :, -1], sharpness(end, "mse").value, rtol=1e-9, atol=0)
    single = SharpnessObserver("mse", tolerance=1e-3, dtype=torch.float32)
    rough = gradient_descent(problem, 0.05, 100, loss="mse", record_every=20, observe={"sharpness": single})
    torch.testing.assert_close(rough.observed["sharpness"][0], run.observed["sharpness"][0], rtol=1e-5, atol=0)
    assert not torch.equal(rough.observed["sharpness"][0], run.observed["sharpness"][0])
    broken = lanczos(lambda v: v * torch.tensor([[torch.nan], [2.0]]).double(), torch.ones(2, 3).double())
    assert broken.values[0].isnan()
    assert broken.converged.tolist() == [[False], [True]]


@given(st.integers(1, 4), st.integers(0, 10**6), st.booleans())
def test_lanczos_goes_on_where_the_start_vector_has_no_share(rank, seed, smallest):
    """Few different eigenvalues, all of one sign or of both, and a start vector inside an invariant space."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(2, 9, 9, generator=generator, dtype=torch.float64)).Q
    values = torch.randint(-3, 4, (2, 9), generator=generator).double()
    matrix = basis @ torch.diag_embed(values) @ basis.mT
    start = basis[:, :, :rank].sum(2)
    found = lanczos(lambda v: (matrix @ v.unsqueeze(2)).squeeze(2), start, 2, smallest=smallest, iterations=9)
    expected = values.sort(1, descending=not smallest).values[:, :2]
    if found.converged.all() and (found.residuals < 1e-9).all():
        for value in found.values.flatten():
            assert (values - value).abs().min() < 1e-8
    whole = lanczos(
        lambda v: (matrix @ v.unsqueeze(2)).squeeze(2), start, 9, smallest=smallest, iterations=9, tolerance=1e-12
    )
    torch.testing.assert_close(whole.values[:, :2], expected, rtol=0, atol=1e-9)
