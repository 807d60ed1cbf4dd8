"""Figures of a sweep: the bound of its runs over their steps, the final bound over the numbers that were varied, and
the noise of gradient estimates by latent.

The noise is drawn as points, because the length of a bar on a logarithmic axis depends on where the axis begins.
"""

from collections.abc import Container
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter
from numpy import ndarray

from vi_core.plots.drawing import panels
from vi_core.plots.drawing.series import last_half, quantiles
from vi_core.plots.drawing.style import DASHES, GREY, INK, PALETTE, blank, group_colors, legend_below, theme

History = tuple[ndarray, ndarray]  # steps (T,) and values (T, R) of one job
MOST_BANDS = 6  # groups whose bands can be told apart
MOST_ENTRIES = 12  # of a legend, which names some labels of many
FAR = 15.0  # noise of the best group, in multiples of which the other ends lie for an axis that is not linear


@theme()
def sweep_figure(
    curves: dict[tuple[str, ...], list[History]],
    *,
    name: str,
    title: str = "",
    note: str = "",
    references: dict[str, float] | None = None,
) -> Figure:
    """Draw the bound of each group: the median and band over its jobs and replicates.

    The last-half panel shows the end of every group. Where one lies far from the best, its axis is that of the
    whole-run panel, so that a group that failed does not hide how the others differ.

    Args:
        curves: Jobs by the label that colours their group and, where there is a second one, the label that dashes it;
            each has steps (T,) and values (T, R).
        name: Label of the axis, such as `ELBO (nats)`.
        title: Title of the figure; none if empty.
        note: What the legend says of the curves, such as the window of a moving average.
        references: Values of horizontal lines by name.
    """
    references = references or {}
    groups = {labels: pool(jobs) for labels, jobs in curves.items()}
    finals = {labels: _final(values) for labels, (_, values) in groups.items()}
    best = groups[max(finals, key=finals.__getitem__)][1]
    anchor = panels.anchor_of(best, references)
    figure = blank(7.4, 3.6 + 0.1 * max(0, min(len(curves), MOST_ENTRIES) - 6), title)
    whole, end = panels.bound_panels(figure, anchor, name=name)
    ends = np.concatenate([quantiles(last_half(values)).ravel() for _, values in groups.values()])
    ends = np.concatenate([ends[np.isfinite(ends)], [*references.values()]])
    far = bool(references) and ends.size > 0 and float(np.ptp(ends)) > FAR * anchor.width
    for axes, shift in ((whole, anchor.value), (end, anchor.value if far else 0.0)):
        _draw_groups(axes, groups, shift)
        panels.draw_references(axes, references, shift=shift)
    longest = max((step for step, _ in groups.values()), key=lambda step: step[-1])
    shown = np.concatenate([*(quantiles(values).ravel() for _, values in groups.values()), [*references.values()]])
    panels.show_whole_run(whole, longest, shown - anchor.value, anchor.width)
    if far:
        panels.show_whole_run(end, last_half(longest), ends - anchor.value, anchor.width)
        end.set_ylabel(whole.get_ylabel())
    else:
        panels.show_last_half(end, longest, ends, ends)
    first = min(last_half(step)[0] for step, _ in groups.values())  # a group may have ended before the others
    panels.show_steps(end, np.array([first, longest[-1]]))
    bands = f"median and {panels.BAND_LABEL}" if len(groups) <= MOST_BANDS else "median"
    notes = [bands if any(values.shape[1] > 1 for _, values in groups.values()) else "", note]
    if (several := len(dict.fromkeys(labels[0] for labels in groups))) > MOST_ENTRIES:
        notes.append(f"{MOST_ENTRIES} of {several} curves are named")
    return legend_below(figure, title=", ".join(filter(None, notes)))


def _draw_groups(axes: Axes, groups: dict[tuple[str, ...], History], shift: float) -> None:
    """Draw each group in the colour of its first label, dashed by its second, with a legend entry for each label."""
    ended = {labels for labels, (_, values) in groups.items() if not np.isfinite(values).any()}
    found = looks([*groups])
    for labels, (step, values) in groups.items():
        if labels in ended:
            continue
        if len(groups) > MOST_BANDS:
            values = quantiles(values, (0.5,)).T
        color, dash = found[labels]
        panels.draw_replicates(axes, step, values - shift, color=color, label="", band_label="")
        axes.lines[-1].set(linestyle=dash, gid=", ".join(labels))
    _legend_entries(axes, [*groups], {labels[0] for labels in ended if len(labels) == 1})


def looks(groups: list[tuple[str, ...]]) -> dict[tuple[str, ...], tuple[str, Any]]:
    """Return a colour and a line style for each group.

    Colours are those of the first labels, in the order of the numbers where they end in numbers, and line styles those
    of the second. Of single labels more than there are colours, those that share one are dashed.
    """
    first = list(dict.fromkeys(labels[0] for labels in groups))
    second = list(dict.fromkeys(labels[1] for labels in groups if len(labels) > 1))
    colors = group_colors([text.rpartition(" = ")[2] for text in first])
    styles = ("solid", *DASHES[1:], DASHES[0])  # the last is that of references
    found = {}
    for labels in groups:
        place = first.index(labels[0])
        turn = second.index(labels[1]) if len(labels) > 1 else colors[:place].count(colors[place])
        found[labels] = (colors[place], styles[turn % len(styles)])
    return found


def _legend_entries(axes: Axes, groups: list[tuple[str, ...]], ended: Container[str] = ()) -> None:
    """Give the legend an entry for each label, of many for some at even distances, with what it decides of the look."""
    found = looks(groups)
    first = list(dict.fromkeys(labels[0] for labels in groups))
    if len(first) > MOST_ENTRIES:
        first = [first[i] for i in np.linspace(0, len(first) - 1, MOST_ENTRIES).round().astype(int)]
    for labels, (color, dash) in ((labels, look) for labels, look in found.items() if labels[0] in first):
        text = f"{labels[0]} (diverged)" if labels[0] in ended else labels[0]
        axes.plot([], [], color=color, linestyle=dash if len(labels) == 1 else "solid", label=text)
    for labels, (_, dash) in found.items():
        if len(labels) > 1:
            axes.plot([], [], color=INK, linestyle=dash, label=labels[1])


def pool(jobs: list[History]) -> History:
    """Return the replicates of all `jobs`, (T, R) each, side by side on the steps that every job covers.

    The steps are those of the job with the fewest records there; the others are interpolated.
    """
    first, last = max(step[0] for step, _ in jobs), min(step[-1] for step, _ in jobs)
    grid = min((step[(step >= first) & (step <= last)] for step, _ in jobs), key=len)
    columns = [np.interp(grid, step, column) for step, values in jobs for column in values.T]
    return grid, np.stack(columns, axis=1)


def _final(values: ndarray) -> float:
    """Return the median of the finite entries in the last tenth of `values` (T, R), or −∞ where there is none."""
    end = values[-max(1, len(values) // 10) :]
    end = end[np.isfinite(end)]
    return float(np.median(end)) if end.size else -np.inf


class Points(NamedTuple):
    """Final bounds of a curve's groups.

    Attributes:
        number: The swept number, (J,).
        mean, error: The final bound and its standard error, (J,); NaN where unknown.
    """

    number: ndarray
    mean: ndarray
    error: ndarray


@theme()
def numbers_figure(
    curves: dict[str, Points],
    *,
    name: str,
    xlabel: str,
    logarithmic: bool,
    title: str = "",
    note: str = "",
    evidence: float | None = None,
) -> Figure:
    """Draw final bounds with error bars against a number, a curve for each label.

    Args:
        curves: By label; a single one may have none.
        name: Label of the axis.
        xlabel: Name of the number.
        logarithmic: Whether the number's axis is.
        title: Title of the figure; none if empty.
        note: What the error bars are.
        evidence: The log evidence, which is drawn as a line, or None.
    """
    figure = blank(5.6, 3.7, title)
    axes = figure.subplots()
    for (text, points), (color, dash) in zip(curves.items(), looks([(t,) for t in curves]).values(), strict=True):
        style = {"color": color, "linestyle": dash, "marker": "o", "markersize": 4, "capsize": 2.5, "linewidth": 1.2}
        axes.errorbar(points.number, points.mean, np.nan_to_num(points.error), label=text or note, **style)
    if evidence is not None:
        panels.draw_references(axes, {"log evidence": evidence}, shift=0.0)
    if logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(panels.tick_text)
    elif all(np.equal(points.number, np.round(points.number)).all() for points in curves.values()):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel=xlabel, ylabel=name)
    return legend_below(figure, title=note if any(curves) else "")


@theme()
def heat_figure(
    values: ndarray,
    columns: list[str],
    rows: list[str],
    *,
    name: str,
    xlabel: str,
    ylabel: str,
    title: str = "",
    evidence: float | None = None,
) -> Figure:
    """Draw a number over two others as a map, the number itself in each cell.

    Args:
        values: The number, (rows, columns); NaN where there is none.
        columns, rows: Values of the two others.
        name: Name of the number.
        xlabel, ylabel: Names of the two others.
        title: Title of the figure; none if empty.
        evidence: The log evidence; where every value lies below it, the distance to it is drawn, on a log scale.
    """
    known, norm = np.isfinite(values), None
    if evidence is not None and bool((values[known] < evidence).all()):
        values, norm = evidence - values, LogNorm()
        name = "log evidence − " + name
    figure = blank(max(4.2, 0.75 * len(columns) + 2.2), max(3.0, 0.5 * len(rows) + 1.4), title)
    axes = figure.subplots()
    shades = mpl.colormaps["viridis_r" if norm else "viridis"].with_extremes(bad="#E5E5E5")
    drawn = axes.imshow(np.ma.masked_invalid(values), norm=norm, cmap=shades, origin="lower", aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        red, green, blue, _ = drawn.cmap(drawn.norm(value)) if known[row, column] else (1, 1, 1, 1)
        ink = "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.5 else INK
        text = f"{value:.3g}".replace("-", "−") if known[row, column] else "×"
        axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=7.5)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.grid(False)
    figure.colorbar(drawn, label=name)
    return figure


@theme()
def settings_figure(
    numbers: ndarray,
    finals: list[ndarray],
    *,
    name: str,
    xlabel: str,
    title: str = "",
    statistic: tuple[str, ndarray, float] | None = None,
) -> Figure:
    """Draw the best final bound of each run as a line, and those of all its replicates as dashes.

    Args:
        numbers: The setting of the J runs, (J,).
        finals: Final bounds of each run, J arrays (R,).
        name: Name of the bound.
        xlabel: Name of the setting.
        title: Title of the figure; none if empty.
        statistic: Name of a statistic, its values (J,), and the value that a model that fits would have; it is drawn
            in a panel of its own.
    """
    panels = 1 if statistic is None else 2
    figure = blank(6.0, 2.9 * panels + 0.4, title)
    axes = figure.subplots(panels, 1, squeeze=False, sharex=True).ravel()
    order = np.argsort(numbers)
    best = np.array([np.nanmax(values) for values in finals])
    axes[0].plot(numbers[order], best[order], color=PALETTE[0], marker="o", markersize=4, label="best replicate")
    for i, (number, values) in enumerate(zip(numbers, finals, strict=True)):
        look = {"color": GREY, "marker": "_", "markersize": 7, "linestyle": "", "zorder": 1}
        axes[0].plot(np.full(len(values), number), values, label="every replicate" if i == 0 else "", **look)
    axes[0].set(ylabel=f"final {name}")
    if statistic is not None:
        _draw_statistic(axes[1], numbers[order], statistic[1][order], statistic[0], statistic[2])
    axes[-1].set(xlabel=xlabel)
    if np.equal(numbers, np.round(numbers)).all():
        axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    return legend_below(figure)


def _draw_statistic(axes: Axes, numbers: ndarray, values: ndarray, name: str, fitting: float) -> None:
    axes.plot(numbers, values, color=PALETTE[1], marker="o", markersize=4, label=f"{name}, best replicate")
    axes.axhline(fitting, color=GREY, linestyle="dashed", linewidth=1.2, label="a model that fits")
    axes.set(ylabel=name)
    axes.set_ylim(bottom=0)


@theme()
def course_figure(
    panels_of: dict[str, dict[tuple[str, ...], list[tuple[ndarray, ndarray, ndarray]]]],
    *,
    xlabels: list[str],
    title: str = "",
    note: str = "",
) -> Figure:
    """Draw numbers of groups in the course of their runs, on logarithmic axes: a panel for each number.

    Args:
        panels_of: By the label of its vertical axis the curves of a panel, by their labels as in `sweep_figure`: each
            of jobs with places (T,), values (T,) and standard errors (T,), which are drawn as bars unless they are NaN.
        xlabels: Of the horizontal axes.
        title: Title of the figure; none if empty.
        note: What the legend says of the curves.
    """
    figure = blank(3.1 * len(panels_of) + 0.8, 3.7, title)
    axes_of = figure.subplots(1, len(panels_of), squeeze=False)[0]
    groups = list(dict.fromkeys(labels for curves in panels_of.values() for labels in curves))
    for axes, xlabel, (ylabel, curves) in zip(axes_of, xlabels, panels_of.items(), strict=True):
        for labels, jobs in curves.items():
            color, dash = looks(groups)[labels]
            for x, y, error in jobs:
                style = {"color": color, "linestyle": dash, "linewidth": 1.1}
                if bool(np.isfinite(error).any()):
                    axes.errorbar(x, y, np.nan_to_num(error), capsize=2, marker="o", markersize=2.5, **style)
                else:
                    axes.plot(x, y, **style)
        axes.set(xlabel=xlabel, ylabel=ylabel, xscale="log", yscale="log")
        axes.xaxis.set_major_formatter(panels.tick_text)
        axes.yaxis.set_major_formatter(panels.tick_text)
        low, high = axes.get_ylim()
        axes.yaxis.set_minor_formatter(panels.tick_text if high < 10 * low else NullFormatter())
    _legend_entries(axes_of[0], groups)
    return legend_below(figure, title=note)


MARKERS = ("o", "s", "^", "D", "v", "P", "X")
PANELS = {"start": "at the first parameters", "final": "at the last parameters"}

Noise = dict[str, dict[str, tuple[float, float]]]  # `start`, `final` -> latent -> √tr Cov of its gradient, its error
NO_NOISE = 1e-12  # of the largest noise: less than rounding leaves
FLOOR = 0.025  # where a 0 stands, as a share of the height
APART = 0.5  # of the way to the next latent that the groups of one stand in


@theme()
def gradient_noise_figure(groups: dict[str, Noise], *, of: str = "latent", title: str = "") -> Figure:
    """Draw each latent's noise on a logarithmic axis, one marker for each group, in panels for start and end.

    A latent without noise stands at the bottom, with a 0 above it.

    Args:
        groups: Noise by label of the group, with standard errors or NaN; latents that a group lacks are left out.
        of: What stands on the horizontal axis, a latent or a layer.
        title: Title of the figure; none if empty.
    """
    latents = list(dict.fromkeys(name for noise in groups.values() for name in noise["start"]))
    every = [mean for noise in groups.values() for table in noise.values() for mean, _ in table.values()]
    least = NO_NOISE * max((mean for mean in every if np.isfinite(mean)), default=0.0)
    figure = blank(7.4, 3.9, title)
    panels_of = figure.subplots(1, 2, sharey=True)
    middle, step = (len(groups) - 1) / 2, APART / max(len(groups), 3)
    for axes, (when, words) in zip(panels_of, PANELS.items(), strict=True):
        for i, (color, (label, noise)) in enumerate(zip(group_colors([*groups]), groups.items(), strict=True)):
            table = [noise[when].get(name, (np.nan, np.nan)) for name in latents]
            look = {"color": color, "markersize": 4.5, "fmt": MARKERS[i % len(MARKERS)]}
            _draw_noise(axes, np.arange(len(latents)) + step * (i - middle), np.array(table), least, look, label)
        axes.set(title=words, yscale="log", xlabel=of)
        axes.set_xticks(range(len(latents)), latents, rotation=90 if len(latents) > 8 else 0, fontsize=8)
        axes.margins(x=0.04, y=0.12)
    panels_of[0].yaxis.set_major_formatter(panels.tick_text)
    panels_of[0].set_ylabel("standard deviation of the gradient")
    return legend_below(figure)


def _draw_noise(axes: Axes, places: ndarray, table: ndarray, least: float, look: dict[str, Any], label: str) -> None:
    """Draw noise and standard errors, (L, 2), at `places` (L,); what is below `least` is 0, at `FLOOR`."""
    values, errors = table.T
    shown = np.where(values > least, values, np.nan)
    axes.errorbar(places, shown, np.nan_to_num(errors), label=label, capsize=2.5, linewidth=1.0, **look)
    for place in places[values <= least]:
        at = {"transform": axes.get_xaxis_transform(), "color": look["color"]}
        axes.plot(place, FLOOR, look["fmt"], markersize=look["markersize"], **at)
        axes.annotate("0", (place, FLOOR), (0, 4), at["transform"], "offset points", ha="center", color=look["color"])
