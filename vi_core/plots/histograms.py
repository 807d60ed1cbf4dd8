"""Figure of samples of a univariate law beside its density, and of the error of their distribution functions."""

import numpy as np
from matplotlib.figure import Figure
from numpy import ndarray

from vi_core.plots.drawing.style import DASHES, GREY, INK, PALETTE, blank, themed

BINS = 40


@themed
def histogram_figure(
    samples: dict[str, ndarray], density: tuple[ndarray, ndarray], *, xlabel: str, title: str
) -> Figure:
    """Draw histograms of samples over the exact density, and their errors.

    The right panel has the empirical distribution function minus the exact one, with the band that its largest value
    leaves with probability 0.05 (Kolmogorov: ±1.358/√N).

    Args:
        samples: Draws by name of the sampler, each (N,).
        density: Grid (G,), ascending, and the exact density on it, (G,).
        xlabel: Name of the variable.
        title: Title of the figure.
    """
    figure = blank(8.4, 3.4, title)
    left, right = figure.subplots(1, 2)
    grid, values = density
    edges = np.linspace(grid[0], grid[-1], BINS + 1)
    for (label, sample), color, dash in zip(samples.items(), PALETTE, ("solid", *DASHES), strict=False):
        left.hist(sample, edges, density=True, histtype="step", color=color, linestyle=dash, linewidth=1.4, label=label)
        ordered = np.sort(sample)
        empirical = np.arange(1, len(ordered) + 1) / len(ordered)
        right.plot(ordered, empirical - _cumulated(ordered, grid, values), color=color, linestyle=dash)
        for sign in (-1, 1):
            right.axhline(sign * 1.358 / np.sqrt(len(ordered)), color=GREY, linewidth=0.8, linestyle=DASHES[1])
    left.plot(grid, values, color=INK, linewidth=1.2, label="exact density")
    right.axhline(0, color=INK, linewidth=0.8)
    left.set(xlabel=xlabel, ylabel="density", xlim=(grid[0], grid[-1]))
    right.set(xlabel=xlabel, ylabel="error of the empirical CDF", title="dotted: 95 % of Kolmogorov's law")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=len(samples) + 1)
    return figure


def _cumulated(points: ndarray, grid: ndarray, density: ndarray) -> ndarray:
    """Return the integral of `density` from grid[0] to each of `points`, by the trapezoid rule."""
    pieces = np.diff(grid) * (density[1:] + density[:-1]) / 2
    return np.interp(points, grid, np.concatenate([[0], np.cumsum(pieces)]))
