"""Standardised errors of Monte Carlo claims, and a bound over its number of samples."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy import ndarray

from vi_core.plots.drawing.style import BAND_ALPHA, DASHES, GREY, INK, PALETTE, blank, legend_below, themed


@themed
def errors_figure(names: Sequence[str], scores: ndarray, *, limit: float, title: str) -> Figure:
    """Draw one row for each claim, with its standardised error (N,) in a band of ± `limit`."""
    figure = blank(6.0, 1.2 + 0.17 * len(names), title)
    axes = figure.add_subplot()
    rows = np.arange(len(names))[::-1]
    axes.axvspan(
        -limit, limit, color=PALETTE[2], alpha=BAND_ALPHA / 2, linewidth=0, label=f"±{limit:g} standard errors"
    )
    axes.axvspan(-1, 1, color=PALETTE[2], alpha=BAND_ALPHA, linewidth=0, label="±1 standard error")
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.plot(scores, rows, "o", color=PALETTE[0], markersize=4, linestyle="none")
    reach = max(limit * 1.15, 1.05 * float(np.abs(scores).max(initial=0.0)))
    axes.set(xlabel="(estimate − exact) / standard error", xlim=(-reach, reach), ylim=(-1, len(names)))
    axes.set_yticks(rows, labels=list(names), fontsize=7.5)
    legend_below(figure)
    return figure


@themed
def importance_figure(
    importance: ndarray, bound: ndarray, se: ndarray, *, exact: ndarray, evidence: float, title: str
) -> Figure:
    """Draw a bound over K with bars of two standard errors; `exact` holds its values by quadrature for the first K."""
    figure = blank(5.4, 3.6, title)
    axes = figure.add_subplot()
    axes.errorbar(
        importance, bound, 2 * se, color=PALETTE[0], marker="o", markersize=4, capsize=3, label="IWELBO ± 2 se"
    )
    first = importance[: len(exact)]
    axes.plot(first, exact, "x", color=PALETTE[1], markersize=8, linestyle="none", label="by quadrature")
    axes.axhline(
        evidence, color=INK, linestyle=DASHES[0], linewidth=1.2, label=f"log p(x) = {evidence:.4f}".replace("-", "−")
    )
    axes.axhline(
        exact[0], color=GREY, linestyle=DASHES[1], linewidth=1.2, label=f"ELBO = {exact[0]:.4f}".replace("-", "−")
    )
    axes.set_xscale("log")
    axes.set_xticks(importance, labels=[str(k) for k in importance])
    axes.minorticks_off()
    axes.set(xlabel="samples K in the bound", ylabel="IWELBO (nats)")
    legend_below(figure)
    return figure
