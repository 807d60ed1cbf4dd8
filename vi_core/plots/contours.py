"""Figure of the contours of several functions of two parameters, at the same levels for comparison."""

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
    """Draw contours; the first function has solid lines with their levels written on them, the others dashed ones.

    Args:
        x, y: Grid of the two parameters, (X,) and (Y,).
        functions: Values on the grid by name, each (Y, X).
        levels: Values whose contours are drawn, ascending.
        point: Coordinates of a cross.
        axes: Labels of the horizontal and the vertical axis.
        title: Title of the figure.
        unit: Unit of the levels.
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
