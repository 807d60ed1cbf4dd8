"""The bound of a run: all of it as a distance from the best reference, and its last half on the bound's own axis.

Estimates of a bound are noisy and skewed, so that their median over replicates is above their mean. Each replicate is
therefore averaged over a window of its own records first; the median and the band are over these averages.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray

from vi_core.plots.drawing.panels import (
    BAND_LABEL,
    anchor_of,
    bound_panels,
    draw_references,
    draw_replicates,
    replicates_label,
    show_last_half,
    show_whole_run,
    window_note,
)
from vi_core.plots.drawing.series import envelope, last_half, quantiles, smooth
from vi_core.plots.drawing.style import PALETTE, blank, legend_below, themed


@themed
def bound_figure(
    step: ndarray,
    values: ndarray,
    *,
    name: str,
    window: int,
    references: dict[str, float],
    xlabel: str = "step",
    title: str = "",
    held_out: tuple[ndarray, ndarray] | None = None,
) -> Figure:
    """Draw the bound called `name`, `values` (T, R) at `step` (T,), as a moving average over `window` rows.

    `references` are horizontal lines, by name. `held_out` holds the steps (H,) and values (H, R) of the bound on other
    data; their medians are drawn as points.
    """
    centre, average = smooth(step, values, window)
    held_out = held_out or (np.empty(0), np.empty((0, 1)))
    anchor = anchor_of(average, references)
    figure = blank(7.4, 3.5, title)
    whole, end = bound_panels(figure, anchor, name=name, xlabel=xlabel)
    if values.shape[1] == 1 and window > 1:
        records = envelope(step, values[:, 0] - anchor.value)
        whole.plot(*records, color="#C6D9E6", linewidth=0.6, label=f"{name}, each record")
    label = replicates_label(values[-1:], name if window == 1 else f"{name}, averaged")
    for axes, shift in ((whole, anchor.value), (end, 0.0)):
        draw_replicates(axes, centre, average - shift, color=PALETTE[0], label=label, band_label=BAND_LABEL)
        _draw_held_out(axes, held_out[0], held_out[1] - shift)
        draw_references(axes, references, shift=shift)
    curves, points, start = quantiles(average), quantiles(held_out[1])[1], last_half(step)[0]
    shown = np.concatenate([curves.ravel(), points, [*references.values()]])
    show_whole_run(whole, step, shown - anchor.value, anchor.width)
    show_last_half(end, step, curves[:, centre >= start], [*references.values(), *points[held_out[0] >= start]])
    legend_below(figure, title=window_note(window))
    return figure


def _draw_held_out(axes: Axes, step: ndarray, values: ndarray) -> None:
    """Draw the median over replicates of held-out `values` (H, R) as points."""
    if len(step):
        median = quantiles(values)[1]
        axes.plot(step, median, "o", color=PALETTE[4], markersize=3.5, label="held out")
