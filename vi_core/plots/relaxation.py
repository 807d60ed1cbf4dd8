"""Figures of the Gumbel-softmax relaxation: its argmax beside direct draws, and bias and noise over temperatures."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy import ndarray

from vi_core.plots.drawing.style import BAND_ALPHA, DASHES, GREY, INK, PALETTE, blank, legend_below, themed

ESTIMATORS = {"gumbel_softmax": "relaxed", "straight_through": "straight-through", "score_function": "score function"}


@themed
def class_figure(
    counts: dict[str, ndarray], probabilities: ndarray, ratio: ndarray, location: float, *, title: str
) -> Figure:
    """Draw the shares of the C classes, and a histogram of the log-ratio of two coordinates over its logistic law.

    Args:
        counts: How often each class was drawn, (C,), by `direct` and by `relaxed`.
        probabilities: The exact law, (C,).
        ratio: Draws of τ (log z_C − log z_1), (N,).
        location: Location of their logistic law, log π_C − log π_1.
        title: Title of the figure.
    """
    figure = blank(8.4, 3.4, title)
    left, right = figure.subplots(1, 2)
    classes, width = np.arange(1, len(probabilities) + 1), 0.36
    labels = {"direct": "direct draws", "relaxed": "argmax of relaxed draws"}
    for i, (name, count) in enumerate(counts.items()):
        shift, total = (i - 0.5) * width, count.sum()
        left.bar(classes + shift, count / total, width, color=PALETTE[i], label=labels[name])
        error = 2 * np.sqrt(probabilities * (1 - probabilities) / total)
        where = {"linestyle": "none", "color": INK, "capsize": 3, "elinewidth": 1.0}
        label = "exact ± 2 standard errors" if i == 0 else None
        left.errorbar(classes + shift, probabilities, error, marker="_", markersize=14, label=label, **where)
    left.set(xlabel="class", ylabel="share of draws", xticks=classes)
    grid = np.linspace(location - 10, location + 10, 400)
    half = np.cosh((grid - location) / 2)
    right.hist(ratio, np.linspace(grid[0], grid[-1], 41), density=True, color=PALETTE[1], alpha=0.55)
    right.plot(grid, 0.25 / half**2, color=INK, label="exact logistic density")
    right.set(xlabel=f"τ (log z$_{{{classes[-1]}}}$ − log z$_1$)", ylabel="density")
    right.set_xlim(grid[0], grid[-1])
    legend_below(figure)
    return figure


@themed
def temperature_figure(records: Mapping[str, ndarray], classes: int, *, title: str) -> Figure:
    """Draw the mean largest coordinate, and bias and deviation of each gradient estimator, over the temperature.

    Args:
        records: Arrays (T,): `temperatures`, `largest` with `largest_se`, `sampling_error`, and for each of
            `ESTIMATORS` its `..._bias` and `..._sd`, norms relative to the norm of the exact gradient.
        classes: Number of classes C.
        title: Title of the figure.
    """
    figure = blank(10.2, 3.5, title)
    largest, bias, deviation = figure.subplots(1, 3)
    temperatures = records["temperatures"]
    error = 2 * records["largest_se"]
    largest.errorbar(temperatures, records["largest"], error, color=PALETTE[0], marker=".", capsize=2)
    for limit, text, align in ((1.0, "1, as τ → 0", "top"), (1 / classes, f"1/{classes}, as τ → ∞", "bottom")):
        largest.axhline(limit, color=GREY, linestyle=DASHES[0], linewidth=1.0)
        place = (temperatures[-1 if limit == 1 else 0], limit + (-0.01 if limit == 1 else 0.01))
        largest.text(*place, text, color=GREY, va=align, ha="right" if limit == 1 else "left", fontsize=8)
    styles = zip(ESTIMATORS.items(), PALETTE, ("solid", *DASHES), strict=False)
    for (name, label), color, dash in styles:
        bias.plot(temperatures, records[f"{name}_bias"], color=color, linestyle=dash, marker=".", label=label)
        deviation.plot(temperatures, records[f"{name}_sd"], color=color, linestyle=dash, marker=".")
    bias.fill_between(temperatures, 0, 2 * records["sampling_error"], color=GREY, alpha=BAND_ALPHA, linewidth=0)
    largest.set(ylabel="mean of the largest coordinate")
    bias.set(ylabel="relative bias of the gradient", title="grey: two errors of the score function")
    deviation.set(ylabel="relative deviation of one draw", ylim=(0, None))
    for axes in (largest, bias, deviation):
        axes.set(xscale="log", xlabel="temperature τ")
    legend_below(figure)
    return figure
