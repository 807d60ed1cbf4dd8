"""How parameters or expectations move during a run, with what they should reach."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray

from vi_core.plots.drawing.panels import BAND_LABEL, draw_replicates, replicates_label, show_steps
from vi_core.plots.drawing.series import quantiles, robust_limits
from vi_core.plots.drawing.style import DASHES, INK, PALETTE, blank, legend_below, themed


@themed
def trajectories_figure(
    step: ndarray,
    series: dict[str, ndarray],
    *,
    truth: dict[str, float],
    exact: dict[str, float],
    xlabel: str = "step",
    title: str = "",
) -> Figure:
    """Draw a panel for each of `series`, (T, R) at `step` (T,).

    `truth` holds the parameters that generated the data and `exact` the exact posterior's value, for the names that
    have one.
    """
    columns = 2 if len(series) == 4 else min(3, len(series))
    rows = math.ceil(len(series) / columns)
    figure = blank(1.2 + 2.5 * columns, 0.9 + 2.0 * rows, title)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    label = replicates_label(np.stack([values[-1] for values in series.values()]), "estimate")
    for axes, (name, values) in zip(panels, series.items(), strict=False):
        draw_replicates(axes, step, values, color=PALETTE[0], label=label, band_label=BAND_LABEL)
        lines = [*_draw_line(axes, "true", truth.get(name)), *_draw_line(axes, "exact posterior", exact.get(name))]
        curves = quantiles(values)
        axes.set_ylim(*robust_limits(curves, [curves[1, 0], *lines]))
        show_steps(axes, step)
        axes.locator_params(nbins=5)
        axes.set(xlabel=xlabel, ylabel=name)
    for axes in panels[len(series) :]:
        axes.remove()
    legend_below(figure)
    return figure


def _draw_line(axes: Axes, label: str, value: float | None) -> list[float]:
    """Draw a horizontal line at `value` where there is one, and return the values drawn."""
    if value is None:
        return []
    color, dash = {"true": (PALETTE[1], DASHES[0]), "exact posterior": (INK, DASHES[1])}[label]
    axes.axhline(value, color=color, linestyle=dash, linewidth=1.2, label=label)
    return [value]
