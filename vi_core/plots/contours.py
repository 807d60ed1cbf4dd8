"""Contours of several functions of two parameters at the same levels."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy import ndarray

from vi_core.plots.drawing.style import DASHES, INK, PALETTE, blank, themed


@themed
def contour_figure(
    x: ndarray,
    y: ndarray,
    functions: dict[str, ndarray],
    levels: Sequence[float],
    *,
    point: tuple[float, ...],
    axes: tuple[str, str],
    title: str,
    unit: str,
) -> Figure:
    """Draw the contours of `functions`, each (len(y), len(x)), at `levels`, around `point`.

    The first function is solid and the others dashed; levels stand on the first one's lines.
    """
    figure = blank(5.4, 4.4, title)
    panel = figure.add_subplot()
    handles = []
    for (label, values), color, style in zip(functions.items(), PALETTE, ("solid", *DASHES), strict=False):
        contours = panel.contour(x, y, values, levels, colors=color, linestyles=[style], linewidths=1.4)
        handles.append(Line2D([], [], color=color, linestyle=style, label=label))
        if style == "solid":
            panel.clabel(contours, fmt=lambda level: f"{level:g}", fontsize=8)
    panel.plot(*point, marker="+", color=INK, markersize=9, linestyle="none")
    panel.set(xlabel=axes[0], ylabel=axes[1])
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), title=f"levels in {unit}")
    return figure
