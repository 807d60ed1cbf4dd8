"""Figures of studies: errors of claims, the IWELBO over K, contours, samples beside their law, relaxations."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy import ndarray

from vi_core.plots.drawing.style import BAND_ALPHA, DASHES, GREY, INK, PALETTE, blank_panels, legend_below, theme


@theme()
def errors_figure(names: Sequence[str], scores: ndarray, *, limit: float, title: str) -> Figure:
    """Draw one row for each claim, with its standardised error.

    Args:
        names: Labels of the N claims.
        scores: (estimate − exact) / standard error of each, (N,).
        limit: Half width of the shaded band, in standard errors.
        title: Title of the figure.
    """
    figure, (axes,) = blank_panels(6.0, 1.2 + 0.17 * len(names), title)
    rows = np.arange(len(names))[::-1]
    bands = {f"±{limit:g} standard errors": (limit, BAND_ALPHA / 2), "±1 standard error": (1, BAND_ALPHA)}
    for label, (half, alpha) in bands.items():
        axes.axvspan(-half, half, color=PALETTE[2], alpha=alpha, linewidth=0, label=label)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.plot(scores, rows, "o", color=PALETTE[0], markersize=4, linestyle="none")
    reach = max(limit * 1.15, 1.05 * float(np.abs(scores).max(initial=0.0)))
    axes.set(xlabel="(estimate − exact) / standard error", xlim=(-reach, reach), ylim=(-1, len(names)))
    axes.set_yticks(rows, labels=list(names), fontsize=7.5)
    return legend_below(figure)


@theme()
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
    figure, (axes,) = blank_panels(5.4, 3.6, title)
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
    return legend_below(figure)


@theme()
def contour_figure(
    x: ndarray,
    y: ndarray,
    functions: dict[str, ndarray],
    levels: Sequence[float],
    *,
    point: tuple[float, ...],
    axes: tuple[str, str],
    title: str,
    unit: str,
) -> Figure:
    """Draw contours; the first function has solid lines with their levels written on them, the others dashed ones.

    Args:
        x, y: Grid of the two parameters, (X,) and (Y,).
        functions: Values on the grid by name, each (Y, X).
        levels: Values whose contours are drawn, ascending.
        point: Coordinates of a cross.
        axes: Labels of the horizontal and the vertical axis.
        title: Title of the figure.
        unit: Unit of the levels.
    """
    figure, (panel,) = blank_panels(5.4, 4.4, title)
    for (label, values), color, style in zip(functions.items(), PALETTE, ("solid", *DASHES), strict=False):
        contours = panel.contour(x, y, values, levels, colors=color, linestyles=[style], linewidths=1.4)
        panel.plot([], [], color=color, linestyle=style, label=label)
        if style == "solid":
            panel.clabel(contours, fmt=lambda level: f"{level:g}", fontsize=8)
    panel.plot(*point, marker="+", color=INK, markersize=9, linestyle="none")
    panel.set(xlabel=axes[0], ylabel=axes[1])
    return legend_below(figure, title=f"levels in {unit}")


BINS = 40


@theme()
def histogram_figure(
    samples: dict[str, ndarray], density: tuple[ndarray, ndarray], *, xlabel: str, title: str
) -> Figure:
    """Draw histograms of samples over the exact density, and their errors.

    The right panel has the empirical distribution function minus the exact one, with the band that its largest value
    leaves with probability 0.05 (Kolmogorov: ±1.358/√N).

    Args:
        samples: Draws by name of the sampler, each (N,).
        density: Grid (G,), ascending, and the exact density on it, (G,).
        xlabel: Name of the variable.
        title: Title of the figure.
    """
    figure, (left, right) = blank_panels(8.4, 3.4, title, columns=2)
    grid, values = density
    edges = np.linspace(grid[0], grid[-1], BINS + 1)
    for (label, sample), color, dash in zip(samples.items(), PALETTE, ("solid", *DASHES), strict=False):
        left.hist(sample, edges, density=True, histtype="step", color=color, linestyle=dash, linewidth=1.4, label=label)
        ordered = np.sort(sample)
        empirical = np.arange(1, len(ordered) + 1) / len(ordered)
        right.plot(ordered, empirical - _cumulated(ordered, grid, values), color=color, linestyle=dash)
        for sign in (-1, 1):
            right.axhline(sign * 1.358 / np.sqrt(len(ordered)), color=GREY, linewidth=0.8, linestyle=DASHES[1])
    left.plot(grid, values, color=INK, linewidth=1.2, label="exact density")
    right.axhline(0, color=INK, linewidth=0.8)
    left.set(xlabel=xlabel, ylabel="density", xlim=(grid[0], grid[-1]))
    right.set(xlabel=xlabel, ylabel="error of the empirical CDF", title="dotted: 95 % of Kolmogorov's law")
    return legend_below(figure)


def _cumulated(points: ndarray, grid: ndarray, density: ndarray) -> ndarray:
    """Return the integral of `density` from grid[0] to each of `points`, by the trapezoid rule."""
    pieces = np.diff(grid) * (density[1:] + density[:-1]) / 2
    return np.interp(points, grid, np.concatenate([[0], np.cumsum(pieces)]))


ESTIMATORS = {"gumbel_softmax": "relaxed", "straight_through": "straight-through", "score_function": "score function"}


@theme()
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
    figure, (left, right) = blank_panels(8.4, 3.4, title, columns=2)
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
    return legend_below(figure)


@theme()
def temperature_figure(records: Mapping[str, ndarray], classes: int, *, title: str) -> Figure:
    """Draw the mean largest coordinate, and bias and deviation of each gradient estimator, over the temperature.

    Args:
        records: Arrays (T,): `temperatures`, `largest` with `largest_se`, `sampling_error`, and for each of
            `ESTIMATORS` its `..._bias` and `..._sd`, norms relative to the norm of the exact gradient.
        classes: Number of classes C.
        title: Title of the figure.
    """
    figure, (largest, bias, deviation) = blank_panels(10.2, 3.5, title, columns=3)
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
    return legend_below(figure)


@theme()
def score_figure(
    grid: tuple[ndarray, ndarray],
    curves: Mapping[str, ndarray],
    points: tuple[ndarray, Mapping[str, ndarray]],
    ratio: ndarray,
    *,
    title: str,
) -> Figure:
    """Draw the noise of the gradient in loc over s, and a map over (s, m) of which estimator has less in the scale.

    Args:
        grid: Values of s, (S,), and of m, (M,).
        curves: Exact deviations on the grid of s, (S,), by `total` and `path`.
        points: Values of s, (N,), and Monte Carlo deviations there, (N,), by the same names.
        ratio: log₁₀ of the path derivative's deviation over the total derivative's, (M, S).
        title: Title of the figure.
    """
    figure, (left, right) = blank_panels(8.8, 3.6, title, columns=2)
    names = {"total": "total derivative, with the score", "path": "path derivative, without"}
    for (kind, label), color, dash in zip(names.items(), PALETTE, ("solid", *DASHES), strict=False):
        left.plot(grid[0], curves[kind], color=color, linestyle=dash, label=label)
        left.plot(points[0], points[1][kind], "o", color=color, markersize=4, label="Monte Carlo" * (kind == "path"))
    reach = float(np.abs(ratio).max())
    mesh = right.pcolormesh(*grid, ratio, cmap="RdBu_r", vmin=-reach, vmax=reach, rasterized=True)
    figure.colorbar(mesh, ax=right, label="log₁₀ of path over total, in the scale")
    for axes in (left, right):
        axes.axvline(0.5**0.5, color=INK, linestyle=DASHES[1], linewidth=1.0)
        axes.set(xlabel="s, the scale of q")
    left.set(ylabel="deviation of the gradient in loc", ylim=(0, 3), title="dotted: s² = 1/2")
    right.set(ylabel="m, the mean of q", title="red: the score helps")
    return legend_below(figure)
