"""Figure of calibration: histograms of ranks, one row for each family and one column for each parameter."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy import ndarray

from vi_core.plots.drawing.style import BAND_ALPHA, GREY, INK, PALETTE, blank, legend_below, theme

MOST_COLUMNS = 6  # parameters that are shown


@theme()
def rank_figure(records: Mapping[str, ndarray], bins: int, band: tuple[float, float], *, title: str = "") -> Figure:
    """Draw the counts of ranks in equal bins, with the band that holds 99 % of uniform ones.

    Args:
        records: Ranks (R,) by `family.parameter`, and `draws`, the largest rank.
        bins: Of each histogram.
        band: Counts between which those of uniform ranks lie.
        title: Above the figure.
    """
    names = [name for name in records if name != "draws"]
    families = list(dict.fromkeys(name.partition(".")[0] for name in names))
    parameters = list(dict.fromkeys(name.partition(".")[2] for name in names))[:MOST_COLUMNS]
    figure = blank(1.2 + 1.7 * len(parameters), 0.9 + 1.5 * len(families), title)
    panels = figure.subplots(len(families), len(parameters), squeeze=False, sharex=True, sharey="row")
    edges = np.linspace(0, 1, bins + 1)
    for row, family in zip(panels, families, strict=True):
        for axes, parameter in zip(row, parameters, strict=True):
            ranks = records[f"{family}.{parameter}"]
            axes.axhspan(*band, color=GREY, alpha=BAND_ALPHA, linewidth=0, label="99 % of uniform ranks")
            axes.axhline(len(ranks) / bins, color=INK, linewidth=0.8)
            counts = np.bincount(ranks * bins // (int(records["draws"]) + 1), minlength=bins)
            axes.stairs(counts, edges, fill=True, color=PALETTE[0], alpha=0.75)
            axes.set_xticks([0, 0.5, 1])
        row[0].set_ylabel(family.replace("_", " "), fontsize=7.5)
    for axes, parameter in zip(panels[0], parameters, strict=True):
        axes.set_title(parameter, fontsize=8.5)
    for axes in panels[-1]:
        axes.set_xlabel("rank of the truth (share)", fontsize=7.5)
    return legend_below(figure)
