"""Figure of a fitted density over the histogram of the data, beside the density that generated them."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray

from vi_core.plots.drawing.series import BAND, quantiles
from vi_core.plots.drawing.style import BAND_ALPHA, DASHES, PALETTE, blank, legend_below, themed

MIN_BINS, MAX_BINS = 10, 200  # of the histogram


@themed
def density_figure(data: ndarray, grid: ndarray, curves: dict[str, ndarray], *, title: str = "") -> Figure:
    """Draw the histogram of univariate data and densities over it.

    Args:
        data: Points, (N,).
        grid: Where the densities are known, (G,), ascending.
        curves: Densities by name, each (G,), or (G, R) for a median and a band over replicates; the first is solid.
        title: Title of the figure; none if empty.
    """
    figure = blank(6.0, 3.8, title)
    axes = figure.subplots()
    heights = _draw_histogram(axes, data, (float(grid[0]), float(grid[-1])))
    for i, (name, curve) in enumerate(curves.items()):
        _draw_curve(axes, grid, curve.reshape(len(grid), -1), name, i)
    peak = max((np.nanmax(curve, initial=0.0, where=np.isfinite(curve)) for curve in curves.values()), default=0.0)
    tallest = float(np.max(heights, initial=0.0))
    axes.set(xlabel="x", ylabel="density", xlim=(grid[0], grid[-1]))
    axes.set_ylim(0.0, 1.06 * max(tallest, min(peak, 2 * tallest)))
    legend_below(figure)
    return figure


def _draw_histogram(axes: Axes, data: ndarray, limits: tuple[float, float]) -> ndarray:
    """Draw the density of `data` (N,) within `limits` in grey; return the heights of its bars.

    Bars are 2 (interquartile range) / N^(1/3) wide, after Freedman and Diaconis 1981.
    """
    low, high = np.percentile(data, [25, 75])
    count = (limits[1] - limits[0]) * len(data) ** (1 / 3) / max(2 * (high - low), 1e-300)
    bars, edges = np.histogram(data, math.ceil(min(max(count, MIN_BINS), MAX_BINS)), limits)
    heights = bars / (len(data) * np.diff(edges))
    axes.stairs(heights, edges, fill=True, color="#D9D9D9", label=f"data, {len(data)} points")
    return heights


def _draw_curve(axes: Axes, grid: ndarray, curve: ndarray, name: str, index: int) -> None:
    """Draw the density called `name`, (G, R): solid if it is the first, else dashed."""
    color = PALETTE[index % len(PALETTE)]
    dash, width = ("solid", 1.8) if index == 0 else (DASHES[(index - 1) % len(DASHES)], 1.3)
    low, median, high = quantiles(curve, BAND)
    replicates = curve.shape[1]
    if replicates > 1:
        axes.fill_between(grid, low, high, color=color, alpha=BAND_ALPHA, linewidth=0, label=f"{name}, 5–95 %")
    label = name if replicates == 1 else f"{name}, median of {replicates} replicates"
    axes.plot(grid, median, color=color, linestyle=dash, linewidth=width, label=label)
