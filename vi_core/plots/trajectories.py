"""Figures over the steps of a run: the bound, and parameters or posterior expectations beside true and exact values.

The bound has two panels, the whole run and its last half: the left one shows the distance from the largest reference,
the right one the bound itself. Estimates of a bound are noisy and skewed, so that their median over replicates is above
their mean. Each replicate is therefore averaged over a window of its own records first; the median and the band are
over these averages.
"""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray

from vi_core.plots.drawing import panels
from vi_core.plots.drawing.series import envelope, last_half, quantiles, robust_limits, smooth
from vi_core.plots.drawing.style import DASHES, INK, PALETTE, blank, legend_below, theme

LINES = {"true": (PALETTE[1], DASHES[0]), "exact posterior": (INK, DASHES[1])}  # name -> colour and dashes


@theme()
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
    places = figure.subplots(rows, columns, squeeze=False).ravel()
    label = panels.replicates_label(np.stack([values[-1] for values in series.values()]), "estimate")
    for axes, (name, values) in zip(places, series.items(), strict=False):
        panels.draw_replicates(axes, step, values, color=PALETTE[0], label=label, band_label=panels.BAND_LABEL)
        known = {"true": truth.get(name), "exact posterior": exact.get(name)}
        lines = {label: value for label, value in known.items() if value is not None}
        for line, value in lines.items():
            color, dash = LINES[line]
            axes.axhline(value, color=color, linestyle=dash, linewidth=1.2, label=line)
        curves = quantiles(values)
        axes.set_ylim(*robust_limits(curves, [curves[1, 0], *lines.values()]))
        panels.show_steps(axes, step)
        axes.locator_params(nbins=5)
        axes.set(xlabel="step", ylabel=name)
    for axes in places[len(series) :]:
        axes.remove()
    return legend_below(figure)


@theme()
def bound_figure(
    step: ndarray,
    values: ndarray,
    *,
    name: str,
    window: int,
    references: dict[str, float],
    title: str = "",
    held_out: tuple[ndarray, ndarray] | None = None,
) -> Figure:
    """Draw the bound of R replicates as a moving average, with references and held-out values.

    Args:
        step: Recorded steps, (T,).
        values: The bound at these steps, (T, R); NaN where a replicate has ended.
        name: Label of the axis, such as `ELBO (nats)`.
        window: Rows that are averaged, at least 1.
        references: Values of horizontal lines by name, such as the log evidence.
        title: Title of the figure; none if empty.
        held_out: Steps (H,) and values (H, R) of the bound on held-out data, whose medians are drawn as points.
    """
    centre, average = smooth(step, values, window)
    held_out = held_out or (np.empty(0), np.empty((0, 1)))
    anchor = panels.anchor_of(average, references)
    figure = blank(7.4, 3.5, title)
    whole, end = panels.bound_panels(figure, anchor, name=name)
    if values.shape[1] == 1 and window > 1:
        records = envelope(step, values[:, 0] - anchor.value)
        whole.plot(*records, color="#C6D9E6", linewidth=0.6, label=f"{name}, each record")
    label = panels.replicates_label(values[-1:], name if window == 1 else f"{name}, averaged")
    for axes, shift in ((whole, anchor.value), (end, 0.0)):
        shown = average - shift
        panels.draw_replicates(axes, centre, shown, color=PALETTE[0], label=label, band_label=panels.BAND_LABEL)
        _draw_held_out(axes, held_out[0], held_out[1] - shift)
        panels.draw_references(axes, references, shift=shift)
    curves, points, start = quantiles(average), quantiles(held_out[1])[1], last_half(step)[0]
    shown = np.concatenate([curves.ravel(), points, [*references.values()]])
    panels.show_whole_run(whole, step, shown - anchor.value, anchor.width)
    late = points[held_out[0] >= start]
    panels.show_last_half(end, step, curves[:, centre >= start], [*references.values(), *late])
    return legend_below(figure, title=panels.window_note(window))


def _draw_held_out(axes: Axes, step: ndarray, values: ndarray) -> None:
    """Draw the median over replicates of held-out `values` (H, R) as points."""
    if len(step):
        axes.plot(step, quantiles(values)[1], "o", color=PALETTE[4], markersize=3.5, label="held out")
