"""Figure of observed counts beside the posterior predictive distribution, which shows where a model does not fit."""

import numpy as np
from matplotlib.figure import Figure
from numpy import ndarray

from vi_core.plots.drawing.style import PALETTE, blank, legend_below, themed

MOST_BARS = 60  # bars of the histogram; more counts share a bar


@themed
def counts_figure(
    counts: ndarray, probabilities: ndarray, misfit: dict[str, float], *, xlabel: str = "count", title: str = ""
) -> Figure:
    """Draw the histogram of counts and the predicted probabilities, both averaged over the same bars.

    Args:
        counts: Observed integers, (N,).
        probabilities: Predicted probabilities of the counts 0, ..., G − 1, (G,).
        misfit: Statistics for the legend: count_mean, count_variance, predictive_mean, predictive_variance and
            count_dispersion, as far as they are known.
        xlabel: Name of the count.
        title: Title of the figure; none if empty.
    """
    figure = blank(6.4, 3.9, title)
    axes = figure.subplots()
    width = max(1, -(-len(probabilities) // MOST_BARS))
    edges = np.arange(0, len(probabilities) + width, width) - 0.5
    observed = np.histogram(counts, edges)[0] / (len(counts) * width)
    bars = len(edges) - 1
    predicted = np.pad(probabilities, (0, bars * width - len(probabilities))).reshape(bars, width).mean(axis=1)
    axes.stairs(observed, edges, fill=True, color="#D9D9D9", label=_label("observed", "count", misfit))
    label = _label("posterior predictive", "predictive", misfit)
    axes.plot(edges[:-1] + width / 2, predicted, color=PALETTE[0], marker="o", markersize=2.5, label=label)
    axes.set(xlabel=xlabel, ylabel="probability", xlim=(edges[0], edges[-1]))
    axes.set_ylim(0, 1.06 * max(observed.max(), predicted.max()))
    dispersion = misfit.get("count_dispersion")
    note = "" if dispersion is None else f"variance within a component = {dispersion:.2f} times Poisson's"
    legend_below(figure, title=note)
    return figure


def _label(name: str, prefix: str, misfit: dict[str, float]) -> str:
    """Return the legend text of a curve: its name, with mean and variance where `misfit` has them."""
    if f"{prefix}_mean" not in misfit:
        return name
    return f"{name}: mean {misfit[f'{prefix}_mean']:.4g}, variance {misfit[f'{prefix}_variance']:.4g}"
