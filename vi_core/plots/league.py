"""Figure of the league: the largest error of each fit by posterior and method, and what the verdict said."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy import ndarray

from vi_core.plots.drawing.style import GREY, INK, PALETTE, blank_panels, legend_below, theme

LIMIT = 0.3  # posterior deviations, the largest error of a good fit's means
LEAST, MOST = 1e-2, 1e3  # of the axis; points outside stand on its ends
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")


@theme()
def league_figure(records: Mapping[str, ndarray], *, title: str = "") -> Figure:
    """Draw one line for each posterior, with a mark for each fit: filled where the verdict trusts it.

    Args:
        records: Columns of the league's table, (N,) each.
        title: Above the figure.
    """
    names = list(dict.fromkeys(records["posterior"].tolist()))[::-1]
    methods = list(dict.fromkeys(records["method"].tolist()))
    figure, (axes,) = blank_panels(7.0, 1.5 + 0.19 * len(names), title)
    axes.axvspan(LEAST / 2, LIMIT, color=PALETTE[2], alpha=0.12, linewidth=0, label=f"error below {LIMIT:g}")
    rows = np.array([names.index(name) for name in records["posterior"]])
    error = np.nan_to_num(records["mean_error"], nan=MOST).clip(LEAST, MOST)
    for i, method in enumerate(methods):
        height = 0.6 * ((i + 0.5) / len(methods) - 0.5)
        own, trusted = records["method"] == method, records["trust"] == "good"
        look = {"color": PALETTE[i % len(PALETTE)], "marker": MARKERS[i % len(MARKERS)], "markersize": 3.6}
        look |= {"linestyle": "none", "markeredgewidth": 0.8}
        axes.plot(error[own & trusted], rows[own & trusted] - height, label=method, **look)
        axes.plot(error[own & ~trusted], rows[own & ~trusted] - height, markerfacecolor="none", **look)
    axes.axvline(LIMIT, color=INK, linewidth=0.8)
    axes.plot([], [], "o", color=GREY, markersize=3.6, linestyle="none", label="filled: trusted")
    axes.plot(
        [], [], "o", color=GREY, markerfacecolor="none", markersize=3.6, linestyle="none", label="open: not trusted"
    )
    axes.set_xscale("log")
    axes.set(
        xlabel="largest error of a mean (posterior deviations)", xlim=(LEAST / 1.3, MOST * 1.3), ylim=(-1, len(names))
    )
    axes.set_yticks(range(len(names)), labels=names, fontsize=6.5)
    return legend_below(figure)
