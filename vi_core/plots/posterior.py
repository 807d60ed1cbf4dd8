"""Figure of a fit: the bound of each replicate over the steps, and the marginal of each latent under q."""

import math

import numpy as np
from matplotlib.figure import Figure
from numpy import ndarray

from vi_core.plots.drawing.style import PALETTE, blank, theme

MOST_PANELS = 11  # marginals that one figure shows
COLUMNS = 4
BINS = 40


@theme()
def posterior_figure(step: ndarray, bound: ndarray, draws: dict[str, ndarray], best: int, *, title: str = "") -> Figure:
    """Draw the bound, and histograms of draws from q.

    Args:
        step: (T,).
        bound: (T, R), in nats.
        draws: Draws of each latent, (S, *event), of which the first 11 scalars are drawn.
        best: The replicate that the draws are of.
        title: Title of the figure; none if empty.
    """
    scalars = [
        (name if value.ndim == 1 else f"{name}[{i}]", column)
        for name, value in draws.items()
        for i, column in enumerate(value.reshape(len(value), -1).T)
    ][:MOST_PANELS]
    rows = math.ceil((len(scalars) + 1) / COLUMNS)
    figure = blank(2.3 * COLUMNS, 1.9 * rows, title)
    axes = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for replicate, values in enumerate(bound.T):
        chosen = replicate == best
        color, width = (PALETTE[0], 1.4) if chosen else ("#B0B0B0", 0.8)
        axes[0].plot(step, values, color=color, linewidth=width, zorder=2 if chosen else 1)
    late = bound[len(bound) // 10 :]
    finite = late[np.isfinite(late)]
    if finite.size:
        axes[0].set_ylim(np.quantile(finite, 0.005), finite.max() + 0.05 * np.ptp(finite) + 1e-9)
    axes[0].set(xlabel="step", ylabel="bound (nats)")
    for panel, (name, column) in zip(axes[1:], scalars, strict=False):
        panel.hist(column, BINS, density=True, color=PALETTE[0], alpha=0.6)
        panel.set(xlabel=name, yticks=[])
    for panel in axes[len(scalars) + 1 :]:
        panel.set_visible(False)
    return figure
