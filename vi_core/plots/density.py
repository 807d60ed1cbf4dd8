"""Figures of data with the model that was fitted to them: a density, counts, and points in the plane with a mixture."""

import math

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from numpy import ndarray

from vi_core.plots.drawing.series import BAND, quantiles
from vi_core.plots.drawing.style import BAND_ALPHA, DASHES, GREY, INK, PALETTE, blank_panels, legend_below, theme

MIN_BINS, MAX_BINS = 10, 200  # of the histogram


@theme()
def density_figure(data: ndarray, grid: ndarray, curves: dict[str, ndarray], *, title: str = "") -> Figure:
    """Draw the histogram of univariate data and densities over it.

    Args:
        data: Points, (N,).
        grid: Where the densities are known, (G,), ascending.
        curves: Densities by name, each (G,), or (G, R) for a median and a band over replicates; the first is solid.
        title: Title of the figure; none if empty.
    """
    figure, (axes,) = blank_panels(6.0, 3.8, title)
    heights = _draw_histogram(axes, data, (float(grid[0]), float(grid[-1])))
    for i, (name, curve) in enumerate(curves.items()):
        _draw_curve(axes, grid, curve.reshape(len(grid), -1), name, i)
    peak = max((np.nanmax(curve, initial=0.0, where=np.isfinite(curve)) for curve in curves.values()), default=0.0)
    tallest = float(np.max(heights, initial=0.0))
    axes.set(xlabel="x", ylabel="density", xlim=(grid[0], grid[-1]))
    axes.set_ylim(0.0, 1.06 * max(tallest, min(peak, 2 * tallest)))
    return legend_below(figure)


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
        axes.fill_between(
            grid, low, high, color=color, alpha=BAND_ALPHA, linewidth=0, label=f"5–95 % over {replicates} replicates"
        )
    label = name if replicates == 1 else f"{name}, median of {replicates} replicates"
    axes.plot(grid, median, color=color, linestyle=dash, linewidth=width, label=label)


MOST_BARS = 60  # bars of the histogram; more counts share a bar


@theme()
def counts_figure(
    counts: ndarray, probabilities: ndarray, misfit: dict[str, float], *, xlabel: str = "count", title: str = ""
) -> Figure:
    """Draw the histogram of counts and the predicted probabilities, both averaged over the same bars.

    Args:
        counts: Observed integers, (N,).
        probabilities: Predicted probabilities of the counts 0, ..., G − 1, (G,).
        misfit: Statistics for the legend: count_mean, count_variance, predictive_mean, predictive_variance and
            count_dispersion, as far as they are known.
        xlabel: Name of the count.
        title: Title of the figure; none if empty.
    """
    figure, (axes,) = blank_panels(6.4, 3.9, title)
    width = max(1, -(-len(probabilities) // MOST_BARS))
    edges = np.arange(0, len(probabilities) + width, width) - 0.5
    observed = np.histogram(counts, edges)[0] / (len(counts) * width)
    bars = len(edges) - 1
    predicted = np.pad(probabilities, (0, bars * width - len(probabilities))).reshape(bars, width).mean(axis=1)
    axes.stairs(observed, edges, fill=True, color="#D9D9D9", label=_label("observed", "count", misfit))
    label = _label("posterior predictive", "predictive", misfit)
    axes.plot(edges[:-1] + width / 2, predicted, color=PALETTE[0], marker="o", markersize=2.5, label=label)
    axes.set(xlabel=xlabel, ylabel="probability", xlim=(edges[0], edges[-1]))
    axes.set_ylim(0, 1.06 * max(observed.max(), predicted.max()))
    dispersion = misfit.get("count_dispersion")
    note = "" if dispersion is None else f"variance within a component = {dispersion:.2f} times Poisson's"
    return legend_below(figure, title=note)


def _label(name: str, prefix: str, misfit: dict[str, float]) -> str:
    """Return the legend text of a curve: its name, with mean and variance where `misfit` has them."""
    if f"{prefix}_mean" not in misfit:
        return name
    return f"{name}: mean {misfit[f'{prefix}_mean']:.4g}, variance {misfit[f'{prefix}_variance']:.4g}"


LONGEST = 5.2  # inches of the longer side of the map
ROOM = 1.5  # inches of title, axis labels and legend
NAMES = ("epicentre, posterior mean", "its uncertainty, 2 posterior deviations", "2 deviations of a place around it")


@theme()
def map_figure(
    points: ndarray,
    shares: ndarray,
    centres: ndarray,
    deviations: ndarray,
    *,
    spread: float,
    xlabel: str,
    ylabel: str,
    title: str = "",
) -> Figure:
    """Draw points, coloured by the component that they belong to, and the components.

    Each component has a cross at its centre, a filled ellipse of two posterior deviations of the centre, and a dashed
    circle of radius 2 `spread`, within which 86 % of its points lie.

    Args:
        points: Coordinates, (N, 2).
        shares: Responsibilities of the K components for each point, (N, K); the colours are mixed in these shares.
        centres: Posterior means of the centres, (K, 2).
        deviations: Posterior standard deviations of the centres, (K, 2).
        spread: Standard deviation of a point around its centre, in each coordinate.
        xlabel, ylabel: Labels of the axes.
        title: Title of the figure; none if empty.
    """
    colors = component_colors(len(centres))
    low, high = _limits(points)
    width, height = LONGEST * (high - low) / (high - low).max()
    figure, (axes,) = blank_panels(max(width + 0.9, 4.6), height + ROOM, title)
    axes.scatter(*points.T, s=9, c=np.clip(shares @ colors, 0, 1), linewidths=0, alpha=0.8)
    for i, (centre, deviation, color) in enumerate(zip(centres, deviations, colors, strict=True)):
        _draw_component(axes, centre, deviation, spread, tuple(color), labelled=i == 0)
    axes.set(xlabel=xlabel, ylabel=ylabel, xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
    return legend_below(figure)


def component_colors(count: int) -> ndarray:
    """Return a colour for each component, (K, 3): the palette's as far as it goes, else around the colour circle."""
    if count < len(PALETTE):
        return np.array([to_rgb(color) for color in PALETTE[:count]])
    return mpl.colormaps["turbo"](np.linspace(0.03, 0.97, count))[:, :3]


def _limits(points: ndarray) -> tuple[ndarray, ndarray]:
    """Return the corners of the map, with a margin."""
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.04 * np.maximum(high - low, 0.2 * (high - low).max() + 1e-12)
    return low - margin, high + margin


def _draw_component(
    axes: Axes, centre: ndarray, deviation: ndarray, spread: float, color: tuple[float, ...], *, labelled: bool
) -> None:
    """Draw centre, uncertainty and reach of one component; the first one has entries in the legend."""
    (cross, known, reach), place, size = NAMES if labelled else ("", "", ""), tuple(centre), 4 * spread
    axes.add_patch(Ellipse(place, size, size, fill=False, edgecolor=GREY, linestyle=(0, (4, 3)), label=reach))
    axes.add_patch(Ellipse(place, *(4 * deviation), facecolor=color, edgecolor=INK, zorder=3, label=known))
    axes.plot(*centre, marker="+", color=INK, markersize=6, markeredgewidth=0.9, linestyle="", zorder=4, label=cross)
