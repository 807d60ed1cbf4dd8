"""Figure of points in the plane, a map, with the mixture that was fitted to them."""

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from numpy import ndarray

from vi_core.plots.drawing.style import GREY, INK, PALETTE, blank, legend_below, themed

LONGEST = 5.2  # inches of the longer side of the map
ROOM = 1.5  # inches of title, axis labels and legend
NAMES = ("epicentre, posterior mean", "its uncertainty, 2 posterior deviations", "2 deviations of a place around it")


@themed
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
    figure = blank(max(width + 0.9, 4.6), height + ROOM, title)
    axes = figure.subplots()
    axes.scatter(*points.T, s=9, c=np.clip(shares @ colors, 0, 1), linewidths=0, alpha=0.8)
    for i, (centre, deviation, color) in enumerate(zip(centres, deviations, colors, strict=True)):
        _draw_component(axes, centre, deviation, spread, tuple(color), labelled=i == 0)
    axes.set(xlabel=xlabel, ylabel=ylabel, xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
    legend_below(figure)
    return figure


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
