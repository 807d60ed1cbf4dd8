"""Figures of the study `identities`: standardised errors of Monte Carlo claims, and the IWELBO over K."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy import ndarray

from vi_core.plots.drawing.style import BAND_ALPHA, DASHES, GREY, INK, PALETTE, blank, legend_below, themed


@themed
def errors_figure(names: Sequence[str], scores: ndarray, *, limit: float, title: str) -> Figure:
    """Draw one row for each claim, with its standardised error.

    Args:
        names: Labels of the N claims.
        scores: (estimate − exact) / standard error of each, (N,).
        limit: Half width of the shaded band, in standard errors.
        title: Title of the figure.
    """
    figure = blank(6.0, 1.2 + 0.17 * len(names), title)
    axes = figure.add_subplot()
    rows = np.arange(len(names))[::-1]
    bands = {f"±{limit:g} standard errors": (limit, BAND_ALPHA / 2), "±1 standard error": (1, BAND_ALPHA)}
    for label, (half, alpha) in bands.items():
        axes.axvspan(-half, half, color=PALETTE[2], alpha=alpha, linewidth=0, label=label)
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
    """Draw the IWELBO over K with bars of two standard errors.

    Args:
        importance: Values of K, (N,).
        bound: Estimates of the IWELBO, (N,), in nats.
        se: Their standard errors, (N,).
        exact: The same bound by quadrature for the first M values of K, (M,); the first is the ELBO.
        evidence: log p(x).
        title: Title of the figure.
    """
    figure = blank(5.4, 3.6, title)
    axes = figure.add_subplot()
    look = {"color": PALETTE[0], "marker": "o", "markersize": 4, "capsize": 3}
    axes.errorbar(importance, bound, 2 * se, label="IWELBO ± 2 se", **look)
    first = importance[: len(exact)]
    axes.plot(first, exact, "x", color=PALETTE[1], markersize=8, linestyle="none", label="by quadrature")
    for name, value, color, dash in (("log p(x)", evidence, INK, DASHES[0]), ("ELBO", exact[0], GREY, DASHES[1])):
        label = f"{name} = {value:.4f}".replace("-", "−")
        axes.axhline(value, color=color, linestyle=dash, linewidth=1.2, label=label)
    axes.set_xscale("log")
    axes.set_xticks(importance, labels=[str(k) for k in importance])
    axes.minorticks_off()
    axes.set(xlabel="samples K in the bound", ylabel="IWELBO (nats)")
    legend_below(figure)
    return figure
