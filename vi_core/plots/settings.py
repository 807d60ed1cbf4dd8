"""The final bound of several runs against a number that a sweep varied, with a statistic of each run below."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy import ndarray

from vi_core.plots.drawing.style import GREY, PALETTE, blank, legend_below, themed


@themed
def settings_figure(
    numbers: ndarray,
    finals: list[ndarray],
    *,
    name: str,
    xlabel: str,
    title: str = "",
    statistic: tuple[str, ndarray, float] | None = None,
) -> Figure:
    """Draw the best of `finals` (J arrays (R,)) at `numbers` (J,), and all of them as dots.

    `statistic` is a name, its values (J,) and the value that a fitting model would have; it has a panel of its own.
    """
    panels = 1 if statistic is None else 2
    figure = blank(6.0, 2.9 * panels + 0.4, title)
    axes = figure.subplots(panels, 1, squeeze=False, sharex=True).ravel()
    order = np.argsort(numbers)
    best = np.array([np.nanmax(values) for values in finals])
    axes[0].plot(numbers[order], best[order], color=PALETTE[0], marker="o", markersize=4, label="best replicate")
    for i, (number, values) in enumerate(zip(numbers, finals, strict=True)):
        others = np.full(len(values), number)
        label = "every replicate" if i == 0 else ""
        axes[0].plot(others, values, color=GREY, marker="_", markersize=7, linestyle="", zorder=1, label=label)
    axes[0].set(ylabel=f"final {name}")
    if statistic is not None:
        _draw_statistic(axes[1], numbers[order], statistic[1][order], statistic[0], statistic[2])
    axes[-1].set(xlabel=xlabel)
    if np.equal(numbers, np.round(numbers)).all():
        axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_below(figure)
    return figure


def _draw_statistic(axes: Axes, numbers: ndarray, values: ndarray, name: str, fitting: float) -> None:
    axes.plot(numbers, values, color=PALETTE[1], marker="o", markersize=4, label=f"{name}, best replicate")
    axes.axhline(fitting, color=GREY, linestyle="dashed", linewidth=1.2, label="a model that fits")
    axes.set(ylabel=name)
    axes.set_ylim(bottom=0)
