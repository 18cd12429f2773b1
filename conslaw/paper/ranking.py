"""The paper's test of its mode coefficients, a correlation of two separately sorted lists, and what else passes it."""

import numpy as np
from matplotlib.axes import Axes

from conslaw.paper.plotting import COLOURS, GREY, MARKERS
from conslaw.theory.power_laws import log_correlation

__all__ = ["draw_ranked", "null_correlations", "ranked", "ranked_correlation"]

RESAMPLES = 200


def ranked(values: np.ndarray, count: int = 20) -> np.ndarray:
    """Divide values by their sum, sort them, and keep the largest.

    Args:
        values: Positive values, shape (N,).
        count: How many to keep.

    Returns:
        Shape (min(N, count),), descending.
    """
    values = np.asarray(values, float)
    return np.sort(values / values.sum())[::-1][:count]


def ranked_correlation(empirical: np.ndarray, predicted: np.ndarray, count: int = 20) -> float:
    """The published R: Pearson's correlation of the logarithms of two lists, each sorted by itself.

    The k-th entries of the lists need not belong to the same mode, nor to the same kind of mode: here the empirical
    list is of eigenvectors of the Hessian and the predicted one of data modes.

    Args:
        empirical: Shares of the Hessian's modes, shape (P,).
        predicted: Shares of the data modes, shape (d,).
        count: Length of the lists that are compared.

    Returns:
        R.
    """
    return log_correlation(ranked(empirical, count) + 1e-20, ranked(predicted, count) + 1e-20)


def null_correlations(empirical: np.ndarray, eigenvalues: np.ndarray, count: int = 20) -> dict[str, float]:
    """R of lists that know nothing of the errors e_k: data eigenvalues alone, functions of the rank, random numbers.

    Args:
        empirical: Shares of the Hessian's modes, shape (P,).
        eigenvalues: λ_{x,k}, shape (d,).
        count: Length of the lists that are compared.

    Returns:
        R by name; of random lists the mean over 200 draws from a fixed state.
    """
    rng, rank = np.random.default_rng(0), np.arange(1, count + 1)

    def mean_of_random(draw) -> float:
        return float(np.mean([ranked_correlation(empirical, draw(), count) for _ in range(RESAMPLES)]))

    return {
        "λ_x alone": ranked_correlation(empirical, eigenvalues, count),
        "1 / rank": ranked_correlation(empirical, 1 / rank, count),
        "exp(−rank)": ranked_correlation(empirical, np.exp(-rank), count),
        f"{count} random χ²": mean_of_random(lambda: rng.chisquare(1, count)),
        f"{count} random uniform": mean_of_random(lambda: rng.random(count)),
        f"largest {count} of {len(empirical)} random χ²": mean_of_random(lambda: rng.chisquare(1, len(empirical))),
    }


def draw_ranked(axes: Axes, seeds, empirical, predicted) -> None:
    """Draw two lists of shares, each sorted by itself, rank against rank: panel (a) of Figures 2b and 2c.

    Args:
        axes: Where to draw.
        seeds: M of them, for the legend.
        empirical: For each seed the shares of the Hessian's modes, shape (M, P); the 20 largest are drawn.
        predicted: Those of the data modes, shape (M, d).
    """
    for index, (seed, measured, theory) in enumerate(zip(seeds, empirical, predicted, strict=True)):
        label = f"seed {seed}, $R$ = {ranked_correlation(measured, theory):.3f}"
        look = {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}
        axes.plot(ranked(theory), ranked(measured), linestyle="none", alpha=0.8, label=label, **look)
    axes.plot([1e-8, 1], [1e-8, 1], color=GREY, linestyle="--", marker="", label="equality")
    axes.set(
        xscale="log",
        yscale="log",
        xlim=(3e-8, 1.5),
        ylim=(1e-7, 1.5),
        xlabel=r"predicted share $e_k^2\lambda_{x,k}^2$, sorted",
        ylabel=r"empirical share $(v_k^\top g)^2$, sorted",
    )
    axes.legend(fontsize=8, loc="lower right")
