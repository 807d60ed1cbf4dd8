"""Figures of a sweep: the bound of its runs over their steps, the final bound over the number that was varied, and the
noise of gradient estimates by latent.

The noise is drawn as points, because the length of a bar on a logarithmic axis depends on where the axis begins.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy import ndarray

from vi_core.plots.drawing import panels
from vi_core.plots.drawing.series import last_half, quantiles, smooth
from vi_core.plots.drawing.style import GREY, PALETTE, blank, group_colors, legend_below, theme

History = tuple[ndarray, ndarray]  # steps (T,) and values (T, R) of one job


@theme()
def sweep_figure(
    curves: dict[str, list[History]],
    *,
    name: str,
    title: str = "",
    legend_title: str = "",
    window: int = 1,
    references: dict[str, float] | None = None,
) -> Figure:
    """Draw the bound of each group: the median and band over its jobs and replicates.

    The last-half panel is scaled for the group that ends best and those near it, so that a group that failed does not
    hide how the others differ.

    Args:
        curves: Jobs by label of their group; each has steps (T,) and values (T, R).
        name: Label of the axis, such as `ELBO (nats)`.
        title: Title of the figure; none if empty.
        legend_title: The setting that the groups differ in.
        window: Rows that are averaged in each job, at least 1.
        references: Values of horizontal lines by name.
    """
    references = references or {}
    groups = {label: pool([smooth(*job, window) for job in jobs]) for label, jobs in curves.items()}
    finals = {label: _final(values) for label, (_, values) in groups.items()}
    best = groups[max(finals, key=finals.__getitem__)][1]
    anchor = panels.anchor_of(best, references)
    figure = blank(7.4, 3.6, title)
    whole, end = panels.bound_panels(figure, anchor, name=name)
    for axes, shift in ((whole, anchor.value), (end, 0.0)):
        for color, (label, (step, values)) in zip(group_colors([*groups]), groups.items(), strict=True):
            panels.draw_replicates(axes, step, values - shift, color=color, label=label, band_label="")
        panels.draw_references(axes, references, shift=shift)
    longest = max((step for step, _ in groups.values()), key=lambda step: step[-1])
    shown = np.concatenate([*(quantiles(values).ravel() for _, values in groups.values()), [*references.values()]])
    panels.show_whole_run(whole, longest, shown - anchor.value, anchor.width)
    panels.show_last_half(end, longest, quantiles(last_half(best)), [*references.values(), *finals.values()])
    many = any(values.shape[1] > 1 for _, values in groups.values())
    notes = [legend_title, f"median and {panels.BAND_LABEL}" if many else "", panels.window_note(window)]
    return legend_below(figure, title=", ".join(filter(None, notes)))


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


MARKERS = ("o", "s", "^", "D", "v", "P", "X")
PANELS = {"start": "at the first parameters", "final": "at the last parameters"}

Noise = dict[str, dict[str, float]]  # `start` and `final` -> latent -> √tr Cov of its gradient


@theme()
def gradient_noise_figure(groups: dict[str, Noise], *, title: str = "", legend_title: str = "") -> Figure:
    """Draw each latent's noise on a logarithmic axis, one marker for each group, in panels for start and end.

    Args:
        groups: Noise by label of the group; latents that a group lacks are left out.
        title: Title of the figure; none if empty.
        legend_title: The setting that the groups differ in.
    """
    latents = list(next(iter(groups.values()))["start"])
    figure = blank(7.4, 3.9, title)
    panels = figure.subplots(1, 2, sharey=True)
    places = np.arange(len(latents))
    for axes, (when, words) in zip(panels, PANELS.items(), strict=True):
        for i, (color, (label, noise)) in enumerate(zip(group_colors([*groups]), groups.items(), strict=True)):
            values = [noise[when].get(name, np.nan) for name in latents]
            axes.plot(places, values, MARKERS[i % len(MARKERS)], color=color, markersize=4.5, label=label)
        axes.set(title=words, yscale="log", xlabel="latent")
        axes.set_xticks(places, latents, rotation=90 if len(latents) > 8 else 0, fontsize=8)
        axes.margins(x=0.04)
    panels[0].set_ylabel("standard deviation of the gradient")
    return legend_below(figure, title=legend_title)
