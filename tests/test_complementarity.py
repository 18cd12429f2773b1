"""The complementarity problem over positive semidefinite matrices."""

import numpy as np
import pytest
import scipy
from hypothesis import given, settings
from hypothesis import strategies as st

from conslaw.theory.complementarity import solve_complementarity


def drawn(seed, count, size=None, offset=0.0):
    """β = ½⟨T_ab, T_cd⟩ and α = −⟨T_ab, g⟩ − a diagonal of gaps, as at the edge."""
    generator = np.random.default_rng(seed)
    size = size or count * (count + 1) // 2 + 3
    turns = generator.normal(size=(count, count, size)) + offset * generator.normal(size=size)
    turns = turns + turns.swapaxes(0, 1)
    beta = np.einsum("abp,cdp->abcd", turns, turns) / 2
    gaps = 10.0 ** generator.uniform(-3, 2) * generator.uniform(size=count)
    return beta, -turns @ generator.normal(size=size) - np.diag(gaps)


@given(st.integers(0, 10**6), st.integers(1, 5), st.booleans(), st.sampled_from([0.0, 1.0, 10.0]))
@settings(max_examples=150)
def test_conditions_of_complementarity(seed, count, singular, offset):
    beta, alpha = drawn(seed, count, max(1, count) if singular else None, offset)
    x = solve_complementarity(beta, alpha)
    slack = np.einsum("abcd,cd->ab", beta, x) - alpha
    largest = max(np.abs(x).max() * np.linalg.norm(beta.reshape(count**2, -1), 2), np.abs(alpha).max())
    assert np.linalg.eigvalsh(x)[0] >= -1e-9 * np.abs(x).max(initial=1e-30)
    assert np.linalg.eigvalsh(slack)[0] >= -1e-8 * largest
    assert np.abs(x @ slack).max() <= 1e-8 * largest * max(np.abs(x).max(), 1e-30)


def test_minimum_found_by_scipy():
    for seed in range(10):
        beta, alpha = drawn(seed, 3)
        x = solve_complementarity(beta, alpha)

        def energy(flat, beta=beta, alpha=alpha):
            root = flat.reshape(3, 3)
            square = root @ root.T
            return np.einsum("ab,abcd,cd", square, beta, square) / 2 - (alpha * square).sum()

        start = np.random.default_rng(seed).normal(size=9)
        found = scipy.optimize.minimize(energy, start, method="BFGS", options={"gtol": 1e-10}).x.reshape(3, 3)
        np.testing.assert_allclose(x, found @ found.T, atol=1e-5)


def test_one_mode_is_a_quotient():
    for alpha, expected in ((3.0, 1.5), (0.0, 0.0), (-3.0, 0.0)):
        assert solve_complementarity(np.full((1, 1, 1, 1), 2.0), np.array([[alpha]])) == expected


def test_modes_that_do_not_meet_are_solved_one_by_one():
    beta = np.zeros((2, 2, 2, 2))
    for a in range(2):
        for b in range(2):
            beta[a, b, a, b] = 1 + a + b
    x = solve_complementarity((beta + beta.transpose(1, 0, 2, 3)) / 2, np.diag([2.0, -1.0]))
    np.testing.assert_allclose(x, np.diag([2.0, 0.0]), atol=1e-9)


def test_what_has_no_solution_is_an_error():
    with pytest.raises(RuntimeError, match=r"the complementarity problem is solved to .* not to 1e-10"):
        solve_complementarity(np.zeros((2, 2, 2, 2)), np.eye(2))
    with pytest.raises(ValueError, match=r"alpha must be \(k, k\) and beta \(k, k, k, k\), got \(2, 2\) and \(2, 2\)"):
        solve_complementarity(np.eye(2), np.eye(2))
    with pytest.raises(ValueError, match="must be finite"):
        solve_complementarity(np.full((1, 1, 1, 1), np.nan), np.eye(1))
