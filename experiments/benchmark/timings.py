"""Times of contenders: points with their quartiles on a logarithmic axis, and curves of cost.

Points and not bars: on a logarithmic axis a bar's length says nothing, as it depends on where the axis begins.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from vi_core.plots.drawing.style import DASHES, INK, PALETTE, blank, legend_below, theme

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
COLUMNS = 2
OWN = "ours"
"""Labels of this program begin with it; its points are filled."""


class Timing(NamedTuple):
    """The median and the quartiles of one contender, at the place `at` of a curve."""

    label: str
    at: float | None
    median: float
    q1: float
    q3: float


Panels = Mapping[tuple[str, str], Sequence[Timing]]
"""(title of a panel or name of its horizontal axis, unit of its times) -> what was measured."""


@theme()
def times_figure(panels: Panels) -> Figure:
    """Draw one panel for each problem, one row for each contender, the quickest on top."""
    lengths = [len(timings) for timings in panels.values()]
    heights = [max(lengths[i : i + COLUMNS]) for i in range(0, len(lengths), COLUMNS)]
    figure = blank(10.0, sum(0.85 + 0.2 * height for height in heights), "")
    ratios = [height + 1.5 for height in heights]
    grid = figure.subplots(len(heights), min(COLUMNS, len(panels)), squeeze=False, height_ratios=ratios).ravel()
    for axes in grid[len(panels) :]:
        axes.remove()
    for axes, ((title, unit), timings) in zip(grid, panels.items(), strict=False):
        ordered = sorted(timings, key=lambda timing: -timing.median)
        for place, timing in enumerate(ordered):
            _draw_timing(axes, place, timing)
        axes.set_yticks(range(len(ordered)), [timing.label for timing in ordered], fontsize=8)
        axes.set(xlabel=unit, title=title, ylim=(-0.6, len(ordered) - 0.3))
        _show_times(axes, [timing.median for timing in ordered])
    return figure


def _draw_timing(axes: Axes, place: int, timing: Timing) -> None:
    own = timing.label.startswith(OWN)
    color, median = PALETTE[0] if own else INK, timing.median
    axes.plot([timing.q1, timing.q3], [place, place], color=color, linewidth=2.2, alpha=0.5)
    axes.plot(median, place, "o", color=color, markersize=5.5, markerfacecolor=color if own else "white")
    text = plain(median)
    axes.annotate(text, (median, place), xytext=(6, 3), textcoords="offset points", fontsize=7.5, color=color)


def plain(value: float) -> str:
    """Return a number with three digits and without an exponent."""
    return f"{float(f'{value:.3g}'):,.10g}"


def _show_times(axes: Axes, values: Sequence[float]) -> None:
    """Show at least a factor of four, with room for the numbers on the right, and few ticks."""
    axes.set_xscale("log")
    low, high = min(values), max(values)
    middle, factor = (low * high) ** 0.5, max(high / low, 4.0) ** 0.5
    left, right = middle / factor / 1.35, middle * factor ** (1.35) * 1.4
    ticks = [d * 10.0**p for p in range(-6, 9) for d in (1, 2, 5) if left <= d * 10.0**p <= right]
    if len(ticks) > 6:
        ticks = [10.0**p for p in range(-6, 9) if left <= 10.0**p <= right]
    if right >= 1e6:  # numbers so long would touch
        ticks = ticks[::2]
    axes.set_xticks(ticks, [plain(tick) for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(left, right)


@theme()
def cost_figure(panels: Panels) -> Figure:
    """Draw one panel for each curve, with both axes logarithmic and the quartiles as bars."""
    rows = -(-len(panels) // COLUMNS)
    figure = blank(8.4, 0.5 + 2.9 * rows, "")
    grid = figure.subplots(rows, min(COLUMNS, len(panels)), squeeze=False).ravel()
    for axes in grid[len(panels) :]:
        axes.remove()
    names = list(dict.fromkeys(timing.label for timings in panels.values() for timing in timings))
    for axes, ((xlabel, unit), timings) in zip(grid, panels.items(), strict=False):
        axes.set(xscale="log", yscale="log", xlabel=xlabel, ylabel=unit)
        for i, name in enumerate(names):
            _draw_curve(axes, [timing for timing in timings if timing.label == name], i)
        places = sorted({timing.at or 0.0 for timing in timings})
        if places[-1] / places[0] < 100:
            axes.set_xticks(places, [plain(place) for place in places])
            axes.xaxis.set_minor_locator(NullLocator())
    legend_below(figure)
    return figure


def _draw_curve(axes: Axes, timings: Sequence[Timing], number: int) -> None:
    if not timings:
        return
    points = sorted(timings, key=lambda timing: timing.at or 0.0)
    median, low, high = (np.array([getattr(point, key) for point in points]) for key in ("median", "q1", "q3"))
    style = {"color": PALETTE[number % len(PALETTE)], "marker": MARKERS[number % len(MARKERS)], "markersize": 4}
    dash = ("solid", *DASHES)[number % 5]
    spread = [median - low, high - median]
    axes.errorbar(
        [point.at or 0.0 for point in points], median, spread, linestyle=dash, capsize=2, label=points[0].label, **style
    )
