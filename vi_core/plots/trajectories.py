"""Figure of parameters or posterior expectations over the steps of a run, beside their true and exact values."""

import math

import numpy as np
from matplotlib.figure import Figure
from numpy import ndarray

from vi_core.plots.drawing.panels import BAND_LABEL, draw_replicates, replicates_label, show_steps
from vi_core.plots.drawing.series import quantiles, robust_limits
from vi_core.plots.drawing.style import DASHES, INK, PALETTE, blank, legend_below, themed

LINES = {"true": (PALETTE[1], DASHES[0]), "exact posterior": (INK, DASHES[1])}  # name -> colour and dashes


@themed
def trajectories_figure(
    step: ndarray,
    series: dict[str, ndarray],
    *,
    truth: dict[str, float],
    exact: dict[str, float],
    title: str = "",
) -> Figure:
    """Draw a panel for each quantity.

    Args:
        step: Recorded steps, (T,).
        series: Quantities by name, each (T, R).
        truth: Generating parameters by name, for the quantities that have one.
        exact: Values of the exact posterior by name, for the quantities that have one.
        title: Title of the figure; none if empty.
    """
    columns = 2 if len(series) == 4 else min(3, len(series))
    rows = math.ceil(len(series) / columns)
    figure = blank(1.2 + 2.5 * columns, 0.9 + 2.0 * rows, title)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    label = replicates_label(np.stack([values[-1] for values in series.values()]), "estimate")
    for axes, (name, values) in zip(panels, series.items(), strict=False):
        draw_replicates(axes, step, values, color=PALETTE[0], label=label, band_label=BAND_LABEL)
        known = {"true": truth.get(name), "exact posterior": exact.get(name)}
        lines = {label: value for label, value in known.items() if value is not None}
        for line, value in lines.items():
            color, dash = LINES[line]
            axes.axhline(value, color=color, linestyle=dash, linewidth=1.2, label=line)
        curves = quantiles(values)
        axes.set_ylim(*robust_limits(curves, [curves[1, 0], *lines.values()]))
        show_steps(axes, step)
        axes.locator_params(nbins=5)
        axes.set(xlabel="step", ylabel=name)
    for axes in panels[len(series) :]:
        axes.remove()
    return legend_below(figure)
