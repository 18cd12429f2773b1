"""The paper's correlation of two lists, each sorted by itself, on small lists."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from conslaw.paper.ranking import draw_ranked, null_correlations, ranked, ranked_correlation


def test_ranked():
    assert ranked([1, 4, 3, 2]).tolist() == [0.4, 0.3, 0.2, 0.1]
    assert ranked([1, 4, 3, 2], 2).tolist() == [0.4, 0.3]
    assert len(ranked(np.ones(30))) == 20


def test_the_correlation_knows_no_order():
    powers = 2.0 ** np.arange(6)
    assert ranked_correlation(powers, powers[::-1]) == pytest.approx(1)
    assert ranked_correlation(powers, powers**3) == pytest.approx(1)  # nor exponents
    # By hand: shares of 4 and 1, 1 against 4, 2, 1: the logarithms are (a, b, b) and (c, d, e) with equal steps.
    assert ranked_correlation([4, 1, 1], [2, 1, 4]) == pytest.approx(np.sqrt(3) / 2)
    assert ranked_correlation([4, 1, 1, 0.5], [2, 1, 4, 1e-9], 3) == pytest.approx(np.sqrt(3) / 2)


def test_lists_that_know_nothing():
    shares, eigenvalues = 1 / np.arange(1, 31) ** 2, np.exp(-np.arange(40.0))
    found = null_correlations(shares, eigenvalues, 20)
    assert list(found) == [
        *("λ_x alone", "1 / rank", "exp(−rank)", "20 random χ²", "20 random uniform", "largest 20 of 30 random χ²"),
    ]
    assert found["1 / rank"] == pytest.approx(1)  # the square of the same
    assert found["λ_x alone"] == pytest.approx(found["exp(−rank)"])
    assert found == null_correlations(shares, eigenvalues, 20)
    assert all(0.5 < value <= 1 + 1e-12 for value in found.values())
    assert len(set(found.values())) >= 5


def test_each_seed_is_drawn_rank_against_rank():
    axes = plt.figure().subplots()
    draw_ranked(axes, [7, 8], [[1, 3, 4], [1, 1, 2]], [[5, 2, 3], [8, 1, 1]])
    first, second, _ = axes.lines
    np.testing.assert_allclose(first.get_xydata(), [[0.5, 0.5], [0.3, 0.375], [0.2, 0.125]])
    np.testing.assert_allclose(second.get_xydata(), [[0.8, 0.5], [0.1, 0.25], [0.1, 0.25]])
    assert [line.get_label()[:6] for line in (first, second)] == ["seed 7", "seed 8"]
    assert axes.get_ylim()[0] == pytest.approx(1e-7)
    plt.close()
