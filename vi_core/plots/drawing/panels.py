"""Elements that several figures share: curves of replicates, reference lines, and the two panels of a bound.

A bound starts thousands of nats below its optimum and ends within its own noise, so it gets two panels.
`show_whole_run` puts it on an inverse hyperbolic sine scale: logarithmic far from zero, linear within a given width, so
that estimates on both sides of a reference have a place. `show_last_half` is an ordinary axis on what the end explores.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator
from numpy import ndarray

from vi_core.plots.drawing.series import envelope, last_half, quantiles, robust_limits, thin
from vi_core.plots.drawing.style import BAND_ALPHA, DASHES, GREY, INK

BAND_LABEL = "5–95 %"  # quantiles over replicates


class Anchor(NamedTuple):
    """Scale of the whole-run panel.

    Attributes:
        suffix: Text that the axis label gets, such as ` − log evidence`.
        value: Number that is subtracted from the bound.
        width: Half width of the linear part of the axis around zero, in nats.
    """

    suffix: str
    value: float
    width: float


def draw_replicates(axes: Axes, x: ndarray, values: ndarray, *, color: str, label: str, band_label: str) -> None:
    """Draw `values` (T, R) over `x` (T,): the line itself for R = 1, else the median and the 5–95 % band."""
    if values.shape[1] == 1:
        axes.plot(*envelope(x, values[:, 0]), color=color, linewidth=1.1, label=label)
        return
    rows = thin(len(x))
    low, median, high = quantiles(values[rows])
    axes.plot(x[rows], median, color=color, label=label)
    axes.fill_between(x[rows], low, high, color=color, alpha=BAND_ALPHA, linewidth=0, label=band_label)


def draw_each(axes: Axes, x: ndarray, values: ndarray, best: int, *, color: str, label: str) -> None:
    """Draw every replicate of `values` (T, R) as a thin line, and that of number `best` in colour."""
    others = [i for i in range(values.shape[1]) if i != best]
    for i in others:
        axes.plot(x, values[:, i], color=GREY, alpha=0.6, linewidth=0.6, label="other replicates" * (i == others[0]))
    axes.plot(x, values[:, best], color=color, label=f"{label}, the highest of {len(others) + 1}" if others else label)


def highest(values: ndarray) -> int:
    """Return the replicate of a bound (T, R) that ends highest."""
    return int(np.where(np.isfinite(values[-1]), values[-1], -np.inf).argmax())


def ascends(values: ndarray) -> bool:
    """Whether each replicate of a bound (T, R) rises at all its steps but for rounding, as one without noise does."""
    steps, sizes = np.diff(values, axis=0), 1 + np.abs(values[1:])
    known = np.isfinite(steps)
    return len(values) > 2 and bool(known.any()) and bool((steps[known] >= -1e-6 * sizes[known]).all())


def rounding(value: float) -> float:
    """Return half a unit in the last of the nine digits that a trace keeps of a number."""
    return 0.5 * 10.0 ** (math.floor(math.log10(max(abs(value), 1e-300))) - 8)


def draw_shortfall(axes: Axes, curves: dict[str, tuple[ndarray, ndarray, str]], *, unit: str) -> None:
    """Draw how far bounds are below the highest value of all, on a logarithmic axis with a floor at rounding.

    Args:
        axes: The panel.
        curves: Steps (T,), bounds (T, R) and the colour of each curve, by its label.
        unit: Of the bounds.
    """
    top = max(float(values[np.isfinite(values)].max()) for _, values, _ in curves.values())
    floor = rounding(top)
    for label, (step, values, color) in curves.items():
        draw_each(axes, step, np.maximum(top - values, floor), highest(values), color=color, label=label)
    axes.axhline(floor, color=GREY, linestyle=DASHES[1], linewidth=1.0, label="rounding of the trace")
    axes.set(yscale="log", xlabel="step", ylabel=f"distance{unit}", title="below the highest value")
    axes.set_ylim(bottom=floor / 3)
    if max(step[-1] / max(step[0], 1) for step, _, _ in curves.values()) >= 100:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(tick_text)


def replicates_label(last: ndarray, single: str) -> str:
    """Return the legend text of a line: `single` for R = 1, else what the median is over.

    `last` (S, R) holds the last row of each of S series; a replicate without a number in one of them ended early.
    """
    replicates = last.shape[1]
    if replicates == 1:
        return single
    ended = int((~np.isfinite(last)).any(axis=0).sum())
    return f"median of {replicates} replicates" + (f" ({ended} ended early)" if ended else "")


def window_note(window: int) -> str:
    """Return what a legend says about smoothing over `window` rows."""
    return f"moving average of {2 * (window // 2) + 1} records" if window > 1 else ""


def draw_references(axes: Axes, references: dict[str, float], *, shift: float) -> None:
    """Draw a dashed line at each of `references` minus `shift`; the legend gives the value itself."""
    for i, (name, value) in enumerate(references.items()):
        label = f"{name} = {number_text(value)}"
        dash = DASHES[i % len(DASHES)]
        axes.axhline(value - shift, color=(INK, GREY)[i % 2], linestyle=dash, linewidth=1.2, label=label)


def number_text(value: float) -> str:
    """Return `value` to seven digits, with a minus sign rather than a hyphen."""
    return f"{value:.7g}".replace("-", "−")


def anchor_of(values: ndarray, references: dict[str, float]) -> Anchor:
    """Return the anchor of a bound `values` (T, R): its largest reference, with the noise of the last half as width.

    Without references nothing is subtracted, and the width is the level that the bound ends at.
    """
    name = max(references, key=references.__getitem__, default="")
    value = references.get(name, 0.0)
    end = last_half(values)[np.isfinite(last_half(values))]
    level = float(np.median(end)) if end.size else value
    noise = float(np.percentile(np.abs(end - level), 90)) if end.size else 0.0
    largest = float(np.max(np.abs(values - value), initial=1e-4, where=np.isfinite(values)))
    width = max(noise if references else abs(level), 1e-8 * largest)
    return Anchor(f" − {name}" if references else "", value, width)


def bound_panels(figure: Figure, anchor: Anchor, *, name: str) -> tuple[Axes, Axes]:
    """Return labelled panels for the whole run and its last half; `name` of the bound is `ELBO` or `ELBO (nats)`."""
    whole, end = figure.subplots(1, 2)
    quantity, bracket, unit = name.partition(" (")
    whole.set(xlabel="step", ylabel=quantity + anchor.suffix + bracket + unit, title="whole run")
    end.set(xlabel="step", ylabel=name, title="last half")
    return whole, end


def show_whole_run(axes: Axes, step: ndarray, shown: ndarray, width: float) -> None:
    """Scale `axes` for a whole run that starts far from zero.

    Args:
        axes: The panel.
        step: Recorded steps, (T,).
        shown: All numbers that the axis has to hold.
        width: Half width of the linear part of the axis around zero.
    """
    places = np.arcsinh(shown[np.isfinite(shown)] / width)
    low, high = (float(places.min()), float(places.max())) if places.size else (-1.0, 1.0)
    margin = max(0.06 * (high - low), 0.1)
    low, high = low - margin, high + margin
    if max(-low, high) > math.asinh(10):
        axes.set_yscale("asinh", linear_width=width)
        axes.yaxis.set_major_locator(FixedLocator(asinh_ticks(low, high, width)))
        axes.yaxis.set_major_formatter(tick_text)
        axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(width * math.sinh(low), width * math.sinh(high))
    positive = step[step > 0]
    if positive.size and positive[-1] >= 100 * positive[0]:
        axes.set_xscale("symlog", linthresh=positive[0], linscale=0.5)
        axes.xaxis.set_major_formatter(tick_text)
    show_steps(axes, step)


def asinh_ticks(low: float, high: float, width: float) -> list[float]:
    """Return round numbers, sorted, whose places asinh(number / width) lie in [low, high] and leave room for labels.

    Zero comes first, then powers of ten from the largest down, then five and two times them.
    """
    largest = width * math.sinh(max(abs(low), abs(high)))
    powers = range(math.floor(math.log10(largest)), math.ceil(math.log10(width)) - 2, -1)
    sizes = [digit * 10.0**power for digit in (1, 5, 2) for power in powers]
    ticks: list[float] = []
    places: list[float] = []
    for number in [0.0, *(sign * size for size in sizes for sign in (-1, 1))]:
        place = math.asinh(number / width)
        if low <= place <= high and all(abs(place - other) >= 0.09 * (high - low) for other in places):
            ticks.append(number)
            places.append(place)
    return sorted(ticks)


def tick_text(number: float, _: object = None) -> str:
    """Return a tick's label: digits where they are short, else a power of ten; matplotlib adds the tick's position."""
    if number == 0 or 1e-3 <= abs(number) < 1e5:
        return number_text(number)
    power = math.floor(math.log10(abs(number)) + 1e-9)
    digit = round(abs(number) / 10.0**power)
    sign, factor = "-" if number < 0 else "", "" if digit == 1 else rf"{digit}\times "
    return f"${sign}{factor}10^{{{power}}}$"


def show_last_half(axes: Axes, step: ndarray, shown: ndarray, include: Iterable[float]) -> None:
    """Scale `axes` for the last half of a run: robust limits for what is `shown` there, and for `include` near it."""
    axes.set_ylim(*robust_limits(shown, include))
    show_steps(axes, last_half(step))


def show_steps(axes: Axes, step: ndarray) -> None:
    """Let the horizontal axis begin with the first step and end a little after the last."""
    if len(step) > 1:
        axes.set_xlim(step[0], step[-1] + 0.02 * (step[-1] - step[0]))
