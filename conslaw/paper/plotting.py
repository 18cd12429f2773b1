"""One style for all figures: large enough letters, and colours that colour-blind readers can tell apart."""

import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = [
    "BLACK",
    "BLUE",
    "COLOURS",
    "GREEN",
    "GREY",
    "MARKERS",
    "ORANGE",
    "PURPLE",
    "RED",
    "SKY",
    "described",
    "ticks_at",
    "use_style",
    "with_spread",
]

# Okabe & Ito (2008).
BLUE, RED, GREEN, ORANGE, PURPLE, SKY, BLACK = (
    "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000",
)  # fmt: skip
GREY = "#888888"
COLOURS = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY, BLACK)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def use_style() -> None:
    """Set matplotlib's defaults for this project."""
    plt.rcdefaults()
    plt.rcParams.update(
        {
            "axes.grid": True,
            "axes.prop_cycle": cycler(color=COLOURS) + cycler(marker=MARKERS),
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlelocation": "left",
            "axes.titlesize": 11,
            "figure.constrained_layout.use": True,
            "figure.dpi": 100,
            "font.size": 10,
            "grid.alpha": 0.25,
            "legend.fontsize": 9,
            "legend.framealpha": 0.9,
            "lines.linewidth": 1.6,
            "lines.markersize": 5,
            "savefig.dpi": 150,
            "svg.fonttype": "none",
        }
    )


def with_spread(axes: Axes, x, y, **options) -> None:
    """Draw means over seeds with standard deviations (ddof = 0, as published).

    Args:
        axes: Where to draw.
        x: Shape (N,).
        y: Shape (N, seeds).
        **options: For `Axes.errorbar`.
    """
    y = np.asarray(y)
    axes.errorbar(x, y.mean(1), y.std(1), capsize=3, **options)


def ticks_at(axes: Axes, values) -> None:
    """Label a logarithmic x axis at the given values only, such as the widths that were trained.

    Args:
        axes: Axes whose x axis is logarithmic already.
        values: Where to put ticks, shape (N,).
    """
    axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.xaxis.minorticks_off()


def described(figure: Figure) -> str:
    """Say in words what a figure shows, for those who cannot see it: of each panel its title and its two axes.

    Args:
        figure: The figure. Its text may hold formulas, which stay as they are.

    Returns:
        One sentence for each panel that has a title.
    """
    sentences = []
    for axes in figure.axes:
        title = axes.get_title(loc="left") or axes.get_title()
        across, up = axes.get_xlabel(), axes.get_ylabel()
        shown = f": {up} against {across}" if across and up else ""
        sentences += [f"{title}{shown}."] if title else []
    return " ".join(" ".join(sentences).split())
