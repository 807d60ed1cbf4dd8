"""Figures over the steps of a run: the bound, and parameters or posterior expectations beside true and exact values.

The bound has two panels, the whole run and its last half: the left one shows the distance from the largest reference,
the right one the bound itself. Estimates of a bound are noisy and skewed, so that their median over replicates is above
their mean. Each replicate is therefore averaged over a window of its own records first; the median and the band are
over these averages. A bound that rises at every step was computed without noise: it is not smoothed, and its distance
from the highest value has a logarithmic axis.
"""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy import ndarray

from vi_core.plots.drawing import panels
from vi_core.plots.drawing.series import envelope, last_half, quantiles, robust_limits, smooth
from vi_core.plots.drawing.style import (
    BAND_ALPHA,
    DASHES,
    INK,
    PALETTE,
    blank,
    blank_panels,
    group_colors,
    legend_below,
    theme,
)

LINES = ((PALETTE[1], DASHES[0]), (INK, DASHES[1]))  # colours and dashes of known values


@theme()
def trajectories_figure(
    step: ndarray,
    series: dict[str, ndarray],
    *,
    truth: dict[str, float],
    exact: dict[str, float],
    solved: str = "exact posterior",
    scales: dict[str, float] | None = None,
    title: str = "",
) -> Figure:
    """Draw a panel for each quantity.

    Args:
        step: Recorded steps, (T,).
        series: Quantities by name, each (T, R).
        truth: Generating parameters by name, for the quantities that have one.
        exact: Exact values by name, for the quantities that have one.
        solved: What the exact values are.
        scales: The least range of an axis by name, such as a posterior deviation.
        title: Title of the figure; none if empty.
    """
    columns = 2 if len(series) == 4 else min(3, len(series))
    rows = math.ceil(len(series) / columns)
    figure = blank(1.2 + 2.5 * columns, 0.9 + 2.0 * rows, title)
    places = figure.subplots(rows, columns, squeeze=False).ravel()
    label = panels.replicates_label(np.stack([values[-1] for values in series.values()]), "estimate")
    for axes, (name, values) in zip(places, series.items(), strict=False):
        panels.draw_replicates(axes, step, values, color=PALETTE[0], label=label, band_label=panels.BAND_LABEL)
        known = {"true": truth.get(name), solved: exact.get(name)}
        lines = {line: value for line, value in known.items() if value is not None}
        for line, (color, dash) in zip(known, LINES, strict=True):
            if line in lines:
                axes.axhline(lines[line], color=color, linestyle=dash, linewidth=1.2, label=line)
        curves = quantiles(values)
        axes.set_ylim(*robust_limits(curves, [curves[1, 0], *lines.values()], (scales or {}).get(name, 0.0)))
        panels.show_steps(axes, step)
        axes.locator_params(nbins=5)
        axes.set(xlabel="step", ylabel=name)
    for axes in places[len(series) :]:
        axes.remove()
    return legend_below(figure)


@theme()
def bound_figure(
    step: ndarray,
    values: ndarray,
    *,
    name: str,
    window: int,
    references: dict[str, float],
    title: str = "",
    held_out: tuple[ndarray, ndarray] | None = None,
    noisy: bool = False,
) -> Figure:
    """Draw the bound of R replicates as a moving average, with references and held-out values.

    Args:
        step: Recorded steps, (T,).
        values: The bound at these steps, (T, R); NaN where a replicate has ended.
        name: Label of the axis, such as `ELBO (nats)`.
        window: Rows that are averaged, at least 1.
        references: Values of horizontal lines by name, such as the log evidence.
        title: Title of the figure; none if empty.
        held_out: Steps (H,) and values (H, R) of the bound on held-out data, whose medians are drawn as points.
        noisy: Whether the bound has noise even where it rises at every step, as averages over minibatches have.
    """
    if not noisy and panels.ascends(values):
        return _ascent_figure(step, values, name=name, references=references, title=title)
    centre, average = smooth(step, values, window)
    held_out = held_out or (np.empty(0), np.empty((0, 1)))
    anchor = panels.anchor_of(average, references)
    figure = blank(7.4, 3.5, title)
    whole, end = panels.bound_panels(figure, anchor, name=name)
    if values.shape[1] == 1 and window > 1:
        records = envelope(step, values[:, 0] - anchor.value)
        whole.plot(*records, color="#C6D9E6", linewidth=0.6, label=f"{name}, each record")
    label = panels.replicates_label(values[-1:], name if window == 1 else f"{name}, averaged")
    for axes, shift in ((whole, anchor.value), (end, 0.0)):
        shown = average - shift
        panels.draw_replicates(axes, centre, shown, color=PALETTE[0], label=label, band_label=panels.BAND_LABEL)
        _draw_held_out(axes, held_out[0], held_out[1] - shift)
        panels.draw_references(axes, references, shift=shift)
    curves, points, start = quantiles(average), quantiles(held_out[1])[1], last_half(step)[0]
    shown = np.concatenate([curves.ravel(), points, [*references.values()]])
    panels.show_whole_run(whole, step, shown - anchor.value, anchor.width)
    late = points[held_out[0] >= start]
    panels.show_last_half(end, step, curves[:, centre >= start], [*references.values(), *late])
    return legend_below(figure, title=panels.window_note(window))


def _ascent_figure(step: ndarray, values: ndarray, *, name: str, references: dict[str, float], title: str) -> Figure:
    """Draw a bound without noise: the whole run, and how far it is below its highest value, down to rounding."""
    anchor = panels.anchor_of(values, references)
    figure = blank(7.4, 3.5, title)
    whole, end = panels.bound_panels(figure, anchor, name=name)
    quantity, bracket, unit = name.partition(" (")
    best = panels.highest(values)
    panels.draw_each(whole, step, values - anchor.value, best, color=PALETTE[0], label=quantity)
    panels.draw_references(whole, references, shift=anchor.value)
    shown = np.concatenate([quantiles(values).ravel(), [*references.values()]])
    panels.show_whole_run(whole, step, shown - anchor.value, anchor.width)
    panels.draw_shortfall(end, {quantity: (step, values, PALETTE[0])}, unit=bracket + unit)
    return legend_below(figure)


@theme()
def records_figure(
    runs: dict[str, tuple[ndarray, ndarray]], *, name: str, windows: dict[str, int], title: str = ""
) -> Figure:
    """Draw a panel for each run: the bound of one replicate as it was recorded, and its moving average.

    Args:
        runs: Steps and bounds, (T,) each, by the panel's title.
        name: Label of the axis.
        windows: Rows that are averaged, by the panel's title.
        title: Title of the figure; none if empty.
    """
    figure, places = blank_panels(1.0 + 2.9 * len(runs), 3.2, title, columns=len(runs))
    for axes, (label, (step, values)) in zip(places, runs.items(), strict=True):
        axes.plot(*envelope(step, values), color="#C6D9E6", linewidth=0.6, label="each record of one replicate")
        centre, average = smooth(step, values[:, None], windows[label])
        axes.plot(centre, average[:, 0], color=PALETTE[0], label=panels.window_note(windows[label]))
        axes.set_ylim(*robust_limits(values[len(values) // 20 :], average[len(average) // 20 :, 0]))
        panels.show_steps(axes, step)
        axes.locator_params(axis="x", nbins=5)
        axes.set(xlabel="step", ylabel=name if axes is places[0] else "", title=label)
    return legend_below(figure)


@theme()
def epochs_figure(
    curves: dict[str, ndarray],
    *,
    name: str,
    title: str = "",
    legend_title: str = "",
    held_out: tuple[ndarray, ndarray] | None = None,
) -> Figure:
    """Draw training bounds averaged over each epoch, all data points counting once, against epochs.

    Args:
        curves: By label, averages (E, J) of J runs.
        name: Label of the axis.
        title: Title of the figure; none if empty.
        legend_title: What the labels are values of.
        held_out: Epochs (H,) and values (H,) of held-out data.
    """
    figure, (axes,) = blank_panels(6.0, 3.6, title)
    for (label, averages), color in zip(curves.items(), group_colors([*curves]), strict=True):
        epochs = np.arange(1, len(averages) + 1)
        axes.plot(epochs, np.median(averages, axis=1), color=color, marker="o", markersize=3, label=label)
        if averages.shape[1] > 1:
            band = {"color": color, "alpha": BAND_ALPHA, "linewidth": 0}
            axes.fill_between(epochs, averages.min(axis=1), averages.max(axis=1), label="range of runs", **band)
    if held_out is not None:
        axes.plot(*held_out, "o", color=PALETTE[4], markersize=3.5, label="held out")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="epoch", ylabel=name)
    return legend_below(figure, title=legend_title)


def _draw_held_out(axes: Axes, step: ndarray, values: ndarray) -> None:
    """Draw the median over replicates of held-out `values` (H, R) as points."""
    if len(step):
        axes.plot(step, quantiles(values)[1], "o", color=PALETTE[4], markersize=3.5, label="held out")
