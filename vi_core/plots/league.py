"""Figure of the league: errors of means and deviations of each fit by posterior and method, and the verdict on it."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray

from vi_core.plots.drawing.style import GREY, PALETTE, blank_panels, legend_below, theme

GOOD_MEAN, GOOD_SD = (1e-3, 0.3), (0.7, 1.4)  # of a good fit: posterior deviations, and ratios of deviations
MEANS, RATIOS = (1e-2, 1e3), (0.02, 5.0)  # of the axes; points outside stand on their ends
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")


@theme()
def league_figure(records: Mapping[str, ndarray], *, title: str = "") -> Figure:
    """Draw one line for each posterior, with a mark for each fit: filled where the verdict trusts it.

    Args:
        records: Columns of the league's table, (N,) each.
        title: Above the figure.
    """
    names = list(dict.fromkeys(records["posterior"].tolist()))[::-1]
    figure, panels = blank_panels(7.5, 1.5 + 0.24 * len(names), title, 2)
    low, high = records["sd_low"], records["sd_high"]
    farthest = np.where(np.log(high) > -np.log(low), high, low)
    drawn = (
        ("largest error of a mean (posterior sd)", records["mean_error"], MEANS, GOOD_MEAN),
        ("sd of q / posterior sd, farthest from 1", farthest, RATIOS, GOOD_SD),
    )
    for axes, (label, values, ends, good) in zip(panels, drawn, strict=True):
        axes.axvspan(*good, color=PALETTE[2], alpha=0.12, linewidth=0, label="good")
        marks(axes, records, names, np.nan_to_num(values, nan=ends[1]).clip(*ends))
        axes.set_xscale("log")
        axes.set(xlabel=label, xlim=(ends[0] / 1.3, ends[1] * 1.3), ylim=(-1, len(names)))
        axes.set_yticks(range(len(names)), labels=names if axes is panels[0] else [], fontsize=6.5)
    look = {"color": GREY, "marker": "o", "markersize": 3.6, "linestyle": "none"}
    panels[0].plot([], [], label="filled: trusted", **look)
    panels[0].plot([], [], label="open: not trusted", markerfacecolor="none", **look)
    return legend_below(figure)


def marks(axes: Axes, records: Mapping[str, ndarray], names: list[str], values: ndarray) -> None:
    """Draw a mark for each fit at its value, in the line of its posterior, a little apart by method."""
    methods = list(dict.fromkeys(records["method"].tolist()))
    rows = np.array([names.index(name) for name in records["posterior"]])
    for i, method in enumerate(methods):
        height = 0.8 * ((i + 0.5) / len(methods) - 0.5)
        own, trusted = records["method"] == method, records["trust"] == "good"
        look = {"color": PALETTE[i % len(PALETTE)], "marker": MARKERS[i % len(MARKERS)], "markersize": 3.0}
        look |= {"linestyle": "none", "markeredgewidth": 0.7}
        axes.plot(values[own & trusted], rows[own & trusted] - height, **look)
        axes.plot(values[own & ~trusted], rows[own & ~trusted] - height, markerfacecolor="none", **look)
        axes.plot([], [], label=method.replace("_", " "), **look)
