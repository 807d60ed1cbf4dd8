"""Figures of single reports, drawn as they stand there beside what is right."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy import ndarray

from vi_core.plots.drawing.style import BAND_ALPHA, DASHES, PALETTE, blank_panels, legend_below, theme

CONTROL_VARIATES = {"naive": "plain score function", "as_written": "control variate as written", "right": "put right"}


@theme()
def control_variates_figure(records: Mapping[str, ndarray], *, title: str) -> Figure:
    """Draw the ELBO over the steps, and the deviation of E[mu] over runs, for three gradients.

    Args:
        records: `steps` (T,), and E[mu], E[tau] and the ELBO of R runs, (T, 3, R), by `CONTROL_VARIATES`.
        title: Title of the figure.
    """
    figure, (bound, noise) = blank_panels(8.4, 3.6, title, columns=2)
    steps = records["steps"]
    for (name, label), color, dash in zip(CONTROL_VARIATES.items(), PALETTE, ("solid", *DASHES), strict=False):
        low, middle, high = np.quantile(records[name][:, 2], [0.05, 0.5, 0.95], axis=1)
        line = {"color": color, "linestyle": dash}
        bound.plot(steps, middle, label=label, **line)
        bound.fill_between(steps, low, high, color=color, alpha=BAND_ALPHA, linewidth=0)
        noise.plot(steps, records[name][:, 0].std(axis=1, ddof=1), **line)
    late = np.stack([records[name][len(steps) // 4 :, 2] for name in CONTROL_VARIATES])
    low, high = np.quantile(late, 0.02), late.max()
    bound.set(ylabel="ELBO (nats)", ylim=(low, high + 0.1 * (high - low)), title="median and 90 % of the runs")
    noise.set(ylabel="deviation of E[mu] over the runs", yscale="log")
    for axes in (bound, noise):
        axes.set(xlabel="step")
    return legend_below(figure)
