"""Eigenvectors that are followed: against dense ones."""

import torch

from conslaw import dense_hessian, draw, hessian_vector_product
from conslaw.eigenspace import follow_eigenpairs


def matrices():
    return dense_hessian(draw([1, 2], (5, 7, 4), samples=20, loss="mse")).matrix


def test_from_anywhere_and_from_near():
    matrix, calls = matrices(), []

    def product(vectors):
        calls.append(vectors.shape[1])
        return vectors @ matrix

    start = torch.randn(2, 3, 63, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values, vectors = torch.linalg.eigh(matrix)
    top = follow_eigenpairs(product, start, tolerance=1e-9)
    assert top.converged.all()
    torch.testing.assert_close(top.values, values[:, -3:].flip(1), rtol=1e-12, atol=0)
    overlaps = (top.vectors @ vectors[:, :, -3:].flip(2)).abs()
    torch.testing.assert_close(overlaps, torch.eye(3).double().expand(2, 3, 3), rtol=0, atol=1e-7)
    torch.testing.assert_close(
        (top.vectors @ matrix - top.values.unsqueeze(2) * top.vectors).norm(dim=2), top.residuals, rtol=1e-3, atol=1e-12
    )
    first, calls[:] = len(calls), []
    follow_eigenpairs(product, top.vectors + 1e-6 * start, tolerance=1e-6)
    assert len(calls) <= 3 < first
    calls[:] = []
    follow_eigenpairs(product, start, 1, tolerance=1e-9)
    assert len(calls) < first


def test_blocks_of_products_are_products_of_networks():
    problem = draw([1, 2], (5, 7, 4), samples=20, loss="mse")
    start = torch.randn(2, 2, 63, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    product = hessian_vector_product(problem)
    top = follow_eigenpairs(lambda block: torch.stack([product(v) for v in block.unbind(1)], 1), start)
    torch.testing.assert_close(top.values[:, 0], torch.linalg.eigvalsh(matrices())[:, -1], rtol=1e-10, atol=0)


def test_what_has_not_converged_is_told():
    start = torch.randn(2, 2, 63, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    top = follow_eigenpairs(lambda v: v @ matrices(), start, iterations=2)
    assert not top.converged.any()
    assert (top.residuals > 0).all()
