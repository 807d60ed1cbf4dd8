"""Figures of methods side by side on one problem: estimates and bound over the steps, and paths over the likelihood."""

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from numpy import ndarray

from vi_core.plots.drawing import panels
from vi_core.plots.drawing.style import GREY, INK, PALETTE, blank, blank_panels, group_colors, legend_below, theme

LEVELS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # of the contours, nats per point below the maximum
SHARE = 0.02  # nats that the boundary of an ellipse is from its centre, to second order
MARKS = 60  # along a path

History = tuple[ndarray, ndarray]  # steps (T,) and values (T, R)


@theme()
def methods_figure(
    series: dict[str, dict[str, History]],
    *,
    known: dict[str, dict[str, float]],
    first: int | None = None,
    title: str = "",
    legend_title: str = "",
) -> Figure:
    """Draw a column for each quantity: its beginning on a linear axis, and the whole run on a logarithmic one.

    Args:
        series: By quantity, the histories of each group by its label.
        known: Values of horizontal lines by quantity and name.
        first: The step at which the linear axis ends; None for the whole run on a linear axis alone.
        title: Title of the figure; none if empty.
        legend_title: The setting that the groups differ in.
    """
    rows = 1 if first is None else 2
    figure = blank(1.0 + 2.7 * len(series), 0.9 + 2.1 * rows, title)
    places = figure.subplots(rows, len(series), squeeze=False)
    for column, (name, groups) in zip(places.T, series.items(), strict=True):
        for axes in column:
            for (label, (step, values)), color in zip(groups.items(), group_colors([*groups]), strict=True):
                panels.draw_replicates(axes, step, values, color=color, label=label, band_label=panels.BAND_LABEL)
            for (line, value), color in zip(known.get(name, {}).items(), (INK, GREY), strict=False):
                axes.axhline(value, color=color, linestyle="dotted", linewidth=1.2, label=line)
            axes.set_ylabel(name)
        if first is not None:
            column[0].set_xlim(0, first)
            column[1].set_xscale("log")
            column[1].xaxis.set_major_formatter(panels.tick_text)
        column[-1].set_xlabel("step")
    return legend_below(figure, title=legend_title)


@theme()
def shortfall_figure(curves: dict[str, History], *, name: str, title: str = "", legend_title: str = "") -> Figure:
    """Draw how far bounds without noise are below the highest value of all, on a logarithmic axis."""
    figure, (axes,) = blank_panels(6.0, 3.6, title)
    colors = group_colors([*curves])
    named = {label: (*history, color) for (label, history), color in zip(curves.items(), colors, strict=True)}
    quantity, bracket, unit = name.partition(" (")
    panels.draw_shortfall(axes, named, unit=bracket + unit)
    axes.set(ylabel=f"highest {quantity} − {quantity}{bracket}{unit}", title="")
    return legend_below(figure, title=legend_title)


class Landscape(NamedTuple):
    """A function of two parameters, and the Fisher information on them at some points.

    Attributes:
        x, y: Grids, (X,) and (Y,).
        values: The function minus its maximum on the grid, (Y, X).
        names: Of the two parameters.
        start: Where all paths begin, (2,).
        directions: Of the first step by name, in the parameters, (2,).
        points: Centres of ellipses, (P, 2).
        information: There, (P, 2, 2).
    """

    x: ndarray
    y: ndarray
    values: ndarray
    names: tuple[str, str]
    start: ndarray
    directions: dict[str, ndarray]
    points: ndarray
    information: ndarray


@theme()
def paths_figure(
    land: Landscape, paths: dict[str, ndarray], *, optimum: tuple[float, float] | None, title: str = ""
) -> Figure:
    """Draw paths over the contours of a likelihood, with ellipses of the Fisher metric and the first directions.

    Args:
        land: The likelihood.
        paths: Points (T, 2) by label.
        optimum: Of the likelihood, where it is known.
        title: Title of the figure.
    """
    figure, (axes,) = blank_panels(6.4, 5.2, title)
    contours = axes.contour(land.x, land.y, -land.values, LEVELS, colors="#BDBDBD", linewidths=0.9)
    axes.clabel(contours, fmt=lambda level: f"{level:g}", fontsize=7)
    for (label, points), color in zip(paths.items(), group_colors([*paths]), strict=True):
        line = np.concatenate([land.start[None], points])
        marks = {"marker": "o", "markersize": 2.2, "markevery": max(1, len(line) // MARKS)}
        axes.plot(*line.T, color=color, linewidth=1.2, label=label, **marks)
    for i, (centre, matrix) in enumerate(zip(land.points, land.information, strict=True)):
        _draw_ellipse(axes, centre, matrix, label="Fisher metric around points of the last path" * (i == 0))
    reach = 0.12 * np.array([np.ptp(land.x), np.ptp(land.y)])
    for (label, direction), color in zip(land.directions.items(), PALETTE[3:], strict=False):
        arrow = direction / np.linalg.norm(direction / reach)
        look = {"arrowstyle": "-|>", "color": color, "linewidth": 1.6}
        axes.annotate("", land.start + arrow, tuple(land.start), arrowprops=look)
        axes.plot([], [], color=color, label=f"{label} ({direction[0]:+.4f}, {direction[1]:+.4f})".replace("-", "−"))
    if optimum is not None:
        axes.plot(*optimum, "+", color=INK, markersize=10, label="maximum", zorder=4)
    axes.set(xlabel=land.names[0], ylabel=land.names[1], xlim=land.x[[0, -1]], ylim=land.y[[0, -1]])
    return legend_below(figure, title="contours: nats per point below the maximum")


def _draw_ellipse(axes: Axes, centre: ndarray, matrix: ndarray, *, label: str) -> None:
    """Draw δ with ½ δᵀFδ = `SHARE` around the centre, (2,), for F (2, 2)."""
    sizes, vectors = np.linalg.eigh(matrix)
    widths = 2 * np.sqrt(2 * SHARE / sizes)
    angle = float(np.degrees(np.arctan2(vectors[1, 0], vectors[0, 0])))
    look = {"facecolor": "none", "edgecolor": INK, "linewidth": 0.9}
    axes.add_patch(Ellipse(tuple(centre), widths[0], widths[1], angle=angle, label=label, **look))
