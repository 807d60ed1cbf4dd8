"""Counts and what a fitted model predicts of them: the misfit is to be seen."""

import numpy as np
from matplotlib.figure import Figure
from numpy import ndarray

from vi_core.plots.drawing.style import PALETTE, blank, legend_below, themed

MOST_BARS = 60


@themed
def counts_figure(
    counts: ndarray, probabilities: ndarray, misfit: dict[str, float], *, xlabel: str = "count", title: str = ""
) -> Figure:
    """Draw the histogram of integer `counts` (N,) and the predicted `probabilities` (G,) of 0, ..., G − 1.

    Both are summed over the same bars, so that a wide bar compares with a wide bar; `misfit` stands in the legend.
    """
    figure = blank(6.4, 3.9, title)
    axes = figure.subplots()
    width = max(1, -(-len(probabilities) // MOST_BARS))
    edges = np.arange(0, len(probabilities) + width, width) - 0.5
    observed = np.histogram(counts, edges)[0] / (len(counts) * width)
    bars = len(edges) - 1
    predicted = np.pad(probabilities, (0, bars * width - len(probabilities))).reshape(bars, width).mean(axis=1)
    axes.stairs(observed, edges, fill=True, color="#D9D9D9", label=_label("observed", "count", misfit))
    axes.plot(
        edges[:-1] + width / 2,
        predicted,
        color=PALETTE[0],
        marker="o",
        markersize=2.5,
        label=_label("posterior predictive", "predictive", misfit),
    )
    axes.set(xlabel=xlabel, ylabel="probability", xlim=(edges[0], edges[-1]))
    axes.set_ylim(0, 1.06 * max(observed.max(), predicted.max()))
    dispersion = misfit.get("count_dispersion")
    note = "" if dispersion is None else f"variance within a component = {dispersion:.2f} times Poisson's"
    legend_below(figure, title=note)
    return figure


def _label(name: str, prefix: str, misfit: dict[str, float]) -> str:
    """Return the name of a curve with mean and variance where they are known."""
    if f"{prefix}_mean" not in misfit:
        return name
    return f"{name}: mean {misfit[f'{prefix}_mean']:.4g}, variance {misfit[f'{prefix}_variance']:.4g}"
