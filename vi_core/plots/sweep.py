"""Figure of the bound of the runs of a sweep over their steps, grouped by the value of the setting that it varied."""

import numpy as np
from matplotlib.figure import Figure
from numpy import ndarray

from vi_core.plots.drawing import panels
from vi_core.plots.drawing.series import last_half, quantiles, smooth
from vi_core.plots.drawing.style import blank, group_colors, legend_below, themed

History = tuple[ndarray, ndarray]  # steps (T,) and values (T, R) of one job


@themed
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
