"""The bound of several runs, grouped by the value of a key that a sweep varied."""

import numpy as np
from matplotlib.figure import Figure
from numpy import ndarray

from vi_core.plots.drawing.panels import (
    BAND_LABEL,
    anchor_of,
    bound_panels,
    draw_references,
    draw_replicates,
    show_last_half,
    show_whole_run,
    window_note,
)
from vi_core.plots.drawing.series import last_half, quantiles, smooth
from vi_core.plots.drawing.style import blank, group_colors, legend_below, themed

History = tuple[ndarray, ndarray]


@themed
def sweep_figure(
    curves: dict[str, list[History]],
    *,
    name: str,
    xlabel: str = "step",
    title: str = "",
    legend_title: str = "",
    window: int = 1,
    references: dict[str, float] | None = None,
) -> Figure:
    """Draw the bound called `name` for each group of `curves`: the median and band over its jobs and replicates.

    Each job is a pair of steps (T,) and values (T, R), averaged over `window` rows. The last-half panel is scaled for
    the group that ends best and those near it, so that one that failed does not hide how the others differ.
    """
    references = references or {}
    groups = {label: pool([smooth(*job, window) for job in jobs]) for label, jobs in curves.items()}
    finals = {label: _final(values) for label, (_, values) in groups.items()}
    best = groups[max(finals, key=finals.__getitem__)][1]
    anchor = anchor_of(best, references)
    figure = blank(7.4, 3.6, title)
    whole, end = bound_panels(figure, anchor, name=name, xlabel=xlabel)
    for axes, shift in ((whole, anchor.value), (end, 0.0)):
        for color, (label, (step, values)) in zip(group_colors([*groups]), groups.items(), strict=True):
            draw_replicates(axes, step, values - shift, color=color, label=label, band_label="")
        draw_references(axes, references, shift=shift)
    longest = max((step for step, _ in groups.values()), key=lambda step: step[-1])
    shown = np.concatenate([*(quantiles(values).ravel() for _, values in groups.values()), [*references.values()]])
    show_whole_run(whole, longest, shown - anchor.value, anchor.width)
    show_last_half(end, longest, quantiles(last_half(best)), [*references.values(), *finals.values()])
    many = any(values.shape[1] > 1 for _, values in groups.values())
    notes = [legend_title, f"median and {BAND_LABEL}" if many else "", window_note(window)]
    legend_below(figure, title=", ".join(filter(None, notes)))
    return figure


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
