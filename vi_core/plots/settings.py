"""Figure of the final bound of the runs of a sweep over the number that it varied, with a statistic of each below."""

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
    legend_below(figure)
    return figure


def _draw_statistic(axes: Axes, numbers: ndarray, values: ndarray, name: str, fitting: float) -> None:
    axes.plot(numbers, values, color=PALETTE[1], marker="o", markersize=4, label=f"{name}, best replicate")
    axes.axhline(fitting, color=GREY, linestyle="dashed", linewidth=1.2, label="a model that fits")
    axes.set(ylabel=name)
    axes.set_ylim(bottom=0)
