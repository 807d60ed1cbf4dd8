"""Times of contenders: points with their quartiles on a logarithmic axis, and curves of cost.

Points and not bars: on a logarithmic axis a bar's length says nothing, as it depends on where the axis begins.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vi_core.plots.style import DASHES, INK, PALETTE, blank, legend_below, themed

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
COLUMNS = 2


class Timing(NamedTuple):
    """The median and the quartiles of one contender, at the place `at` of a curve."""

    label: str
    at: float | None
    median: float
    q1: float
    q3: float


Panels = Mapping[tuple[str, str], Sequence[Timing]]
"""(problem, unit) -> what was measured."""


@themed
def times_figure(panels: Panels) -> Figure:
    """Draw one panel for each problem, one row for each contender, the quickest on top; ours is filled."""
    rows = -(-len(panels) // COLUMNS)
    longest = max(len(timings) for timings in panels.values())
    figure = blank(9.6, 0.6 + rows * (0.85 + 0.21 * longest), "")
    grid = figure.subplots(rows, min(COLUMNS, len(panels)), squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    for axes, ((problem, unit), timings) in zip(grid.flat, panels.items(), strict=False):
        ordered = sorted(timings, key=lambda timing: -timing.median)
        for place, timing in enumerate(ordered):
            _draw_timing(axes, place, timing)
        axes.set_yticks(range(len(ordered)), [timing.label for timing in ordered], fontsize=8)
        axes.set(xscale="log", xlabel=unit, title=problem, ylim=(-0.6, len(ordered) - 0.3))
        _room([timing.median for timing in ordered], axes)
    return figure


def _draw_timing(axes: Axes, place: int, timing: Timing) -> None:
    own = timing.label.startswith("ours")
    color, median = PALETTE[0] if own else INK, timing.median
    axes.plot([timing.q1, timing.q3], [place, place], color=color, linewidth=2.2, alpha=0.5)
    axes.plot(median, place, "o", color=color, markersize=5.5, markerfacecolor=color if own else "white")
    text = f"{median:.3g}"
    axes.annotate(text, (median, place), xytext=(6, 3), textcoords="offset points", fontsize=7, color=color)


def _room(values: Sequence[float], axes: Axes) -> None:
    """Show at least a factor of four, with room for numbers on the right."""
    low, high = min(values), max(values)
    middle, factor = (low * high) ** 0.5, max(high / low, 4.0) ** 0.5
    axes.set_xlim(middle / factor / 1.35, middle * factor * 1.9)


@themed
def cost_figure(panels: Panels) -> Figure:
    """Draw one panel for each curve, with both axes logarithmic and the quartiles as bars."""
    rows = -(-len(panels) // COLUMNS)
    figure = blank(8.4, 0.5 + 2.9 * rows, "")
    grid = figure.subplots(rows, min(COLUMNS, len(panels)), squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    names = list(dict.fromkeys(timing.label for timings in panels.values() for timing in timings))
    for axes, ((problem, unit), timings) in zip(grid.flat, panels.items(), strict=False):
        for i, name in enumerate(names):
            mine = sorted((t for t in timings if t.label == name), key=lambda timing: timing.at or 0.0)
            if not mine:
                continue
            median, low, high = (np.array([getattr(t, key) for t in mine]) for key in ("median", "q1", "q3"))
            style = {"color": PALETTE[i % len(PALETTE)], "linestyle": ("solid", *DASHES)[i % 5], "capsize": 2}
            spread = [median - low, high - median]
            marker = MARKERS[i % len(MARKERS)]
            axes.errorbar([t.at for t in mine], median, spread, marker=marker, markersize=4, label=name, **style)
        axes.set(xscale="log", yscale="log", xlabel=problem.removeprefix("cost_"), ylabel=unit)
    legend_below(figure)
    return figure
