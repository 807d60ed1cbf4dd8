"""Figure of a predictive check: replicated data sets over the observed one, and two of their statistics.

A model whose replicated data look unlike the observed ones does not describe them (Gelman, Meng, Stern 1996). Before a
fit, with draws from the prior, it shows what the model takes to be possible.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray

from vi_core.plots.drawing.style import PALETTE, blank, theme

CURVES = 30  # replicated data sets whose histograms are drawn
BINS = 30
TAIL = 3  # a Normal has 1 % beyond 1.2 widths
OBSERVED = {"color": "black", "linewidth": 1.4}


@theme()
def predictive_figure(data: dict[str, tuple[ndarray, ndarray]], *, title: str = "") -> Figure:
    """Draw a row for each observed variable: histograms, and means and deviations of the replicated data sets.

    Args:
        data: Observed numbers (N,) and replicated ones (S, N), by name of the variable.
        title: Title of the figure; none if empty.
    """
    figure = blank(7.5, 2.2 * len(data), title)
    panels = figure.subplots(len(data), 3, squeeze=False)
    for row, (name, (observed, replicated)) in zip(panels, data.items(), strict=True):
        histograms(row[0], observed, replicated, name)
        for panel, statistic, words in ((row[1], np.mean, "mean"), (row[2], np.std, "deviation")):
            values = statistic(replicated, axis=1)
            low, high = extent(values)
            panel.hist(values[(values >= low) & (values <= high)], BINS, color=PALETTE[0], alpha=0.6)
            panel.axvline(float(statistic(observed)), **OBSERVED)
            panel.set(xlabel=f"{words} of {name}", yticks=[])
    return figure


def extent(values: ndarray) -> tuple[float, float]:
    """Return the 1 % and 99 % quantile of numbers; of heavy tails no more than `TAIL` widths of the middle half."""
    low, first, third, high = np.quantile(values[np.isfinite(values)], [0.01, 0.25, 0.75, 0.99])
    reach = TAIL * (third - first)
    return (max(low, first - reach), min(high, third + reach)) if reach else (low, high)


def histograms(axes: Axes, observed: ndarray, replicated: ndarray, name: str) -> None:
    """Draw the histogram of the observed numbers over those of replicated sets."""
    low, high = extent(replicated)
    low, high = min(low, observed.min()), max(high, observed.max())
    bins = np.linspace(low, high if high > low else low + 1, BINS + 1).tolist()
    for i, values in enumerate(replicated[:CURVES]):
        label = "replicated" if i == 0 else None
        weights = np.full(len(values), 1 / len(values))
        axes.hist(values, bins, weights=weights, histtype="step", color=PALETTE[0], alpha=0.25, label=label)
    weights = np.full(len(observed), 1 / len(observed))
    axes.hist(observed, bins, weights=weights, histtype="step", label="observed", **OBSERVED)
    axes.set(xlabel=name, yticks=[], ylim=(0, 1.4 * axes.get_ylim()[1]))  # room for the legend
    axes.legend()
