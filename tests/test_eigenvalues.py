"""Lanczos and the sharpness: dense eigenvalues, repeated ones, broken matrices, observers in training."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conslaw import (
    SharpnessObserver,
    dense_hessian,
    draw,
    gradient_descent,
    hessian_vector_product,
    lanczos,
    sharpness,
)


@pytest.mark.parametrize("smallest", [False, True])
def test_lanczos_finds_several_eigenpairs(smallest):
    problem = draw([1, 2], (10, 12, 4), samples=60)
    values, vectors = torch.linalg.eigh(dense_hessian(problem).matrix)
    order = torch.arange(4) if smallest else torch.arange(-1, -5, -1)
    start = torch.randn(2, 168, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = lanczos(hessian_vector_product(problem), start, 4, smallest=smallest)
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
    product, calls = hessian_vector_product(moved), []

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
    problem = draw([42, 137], (20, 16, 5), loss="mse")
    observer = SharpnessObserver(tolerance=1e-6)
    run = gradient_descent(problem, [0.05, 1e3], 100, record_every=20, observe={"sharpness": observer})
    assert (run.diverged_at >= 0).tolist() == [[False, False], [True, True]]
    assert run.observed["sharpness"][1, :, 1:].isnan().all()
    end = problem.with_parameters([p[0] for p in run.parameters])
    torch.testing.assert_close(run.observed["sharpness"][0, :, 0], sharpness(problem).value, rtol=1e-9, atol=0)
    torch.testing.assert_close(run.observed["sharpness"][0, :, -1], sharpness(end).value, rtol=1e-9, atol=0)
    single = SharpnessObserver(tolerance=1e-3, dtype="float32")
    rough = gradient_descent(problem, 0.05, 100, record_every=20, observe={"sharpness": single})
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


def times(matrix):
    return lambda v: (matrix @ v.unsqueeze(2)).squeeze(2)


@given(st.lists(st.integers(-3, 3), min_size=3, max_size=9), st.integers(1, 3), st.booleans(), st.integers(0, 1000))
def test_repeated_eigenvalues_are_found_as_often_as_sought(values, count, smallest, seed):
    generator = torch.Generator().manual_seed(seed)
    values = torch.tensor(values, dtype=torch.float64)
    basis = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator, dtype=torch.float64)).Q
    matrix = (basis * values) @ basis.T
    start = torch.randn(1, len(values), generator=generator, dtype=torch.float64)
    found = lanczos(times(matrix[None]), start, count, smallest=smallest)
    expected = values.sort(descending=not smallest).values[:count]
    torch.testing.assert_close(found.values[0], expected, rtol=0, atol=1e-9)
    assert found.converged.all()
    torch.testing.assert_close(
        found.vectors[0] @ found.vectors[0].T, torch.eye(count, dtype=torch.float64), rtol=0, atol=1e-9
    )
    true = (found.vectors[0] @ matrix - found.values[0].unsqueeze(1) * found.vectors[0]).norm(dim=1)
    assert (true <= found.residuals[0] + 1e-12).all()


def test_the_example_of_a_repeated_eigenvalue():
    matrix = torch.diag(torch.tensor([5.0, 5, 3, 1, 1, 1, 0, -1])).double()
    start = torch.randn(1, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(lanczos(times(matrix[None]), start, 2).values, torch.tensor([[5.0, 5.0]]).double())


@pytest.mark.parametrize("start", [torch.nan, torch.inf, 0.0])
def test_a_start_that_says_nothing_is_replaced(start):
    matrix = torch.diag(torch.arange(1.0, 9)).double()
    found = lanczos(times(matrix.expand(2, 8, 8)), torch.tensor([[start] * 8, [1.0] * 8]).double())
    torch.testing.assert_close(found.values, torch.tensor([[8.0], [8.0]]).double())


def test_overflow_is_no_convergence():
    problem = draw([42, 137], (20, 16, 5), loss="mse", dtype="float32")
    huge = problem.with_parameters([w * torch.tensor([1e10, 1.0]).view(-1, 1, 1) for w in problem.weights])
    result = sharpness(huge)
    assert result.converged.tolist() == [False, True]
    assert result.value[0].isnan()
    torch.testing.assert_close(result.value[1], sharpness(problem).value[1])
    exact = sharpness(huge.to("float64"))
    assert exact.converged.all()
    assert exact.value[0] > 1e19


def test_a_network_is_iterated_as_if_it_were_alone():
    problem = draw([42, 137, 256], (20, 12, 5), samples=40)
    together = sharpness(problem, tolerance=1e-2)
    for network in range(3):
        alone = sharpness(problem.select([network]), tolerance=1e-2)
        torch.testing.assert_close(alone.value[0], together.value[network], rtol=1e-13, atol=0)
        torch.testing.assert_close(alone.residual[0], together.residual[network], rtol=1e-9, atol=0)


def test_an_observer_starts_anew_in_every_training_and_forgets_what_was_not_finite():
    problem, observer = draw([42], (20, 8, 5), loss="mse"), SharpnessObserver(1e-3)
    first = gradient_descent(problem, 0.05, 20, observe={"s": observer}).observed["s"]
    gradient_descent(problem, 1e4, 20, observe={"s": observer})
    again = gradient_descent(problem, 0.05, 20, observe={"s": observer}).observed["s"]
    assert torch.equal(first, again)
    broken = problem.with_parameters([w * torch.nan for w in problem.weights])
    assert observer(broken).isnan().all()
    assert observer(problem).isfinite().all()


def test_the_observer_takes_the_loss_from_the_problem():
    problem = draw([42])
    for loss in ("mse", "cross_entropy"):
        run = gradient_descent(problem.under(loss=loss), 0.01, 2, observe={"s": SharpnessObserver(1e-8)})
        torch.testing.assert_close(run.observed["s"][0, :, 0], sharpness(problem.under(loss=loss)).value)


@pytest.mark.parametrize(("dtype", "scale"), [(torch.float32, 1e-24), (torch.float32, 1e-22), (torch.float64, 1e-200)])
def test_underflow_is_no_convergence(dtype, scale):
    scales = torch.tensor([scale, 1.0, 0.0], dtype=dtype).view(3, 1, 1)
    matrices = scales * torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.5], dtype=dtype))
    found = lanczos(times(matrices), torch.ones(3, 4, dtype=dtype), tolerance=1e-5)
    assert found.converged[:, 0].tolist() == [False, True, True]
    assert found.values[0].isnan()
    assert found.values[1:, 0].tolist() == [pytest.approx(3.0), 0.0]
