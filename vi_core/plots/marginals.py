"""Figure of the posterior: marginals of q beside the exact ones, and for two latents the contours of both joints.

Below each marginal stands the difference of the densities. A q that is a per cent too narrow cannot be told from the
exact posterior in the densities themselves, and can be there.
"""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray

from vi_core.plots.drawing import panels
from vi_core.plots.drawing.series import quantiles
from vi_core.plots.drawing.style import BAND_ALPHA, DASHES, INK, PALETTE, blank, legend_below, theme

COLUMNS = 4
MASSES = (0.99, 0.9, 0.5)  # that the contours hold
SHOWN = 8  # replicates whose contours are drawn
EXACT = {"color": INK, "linestyle": DASHES[0], "linewidth": 1.2}

Marginals = dict[str, tuple[ndarray, ndarray]]  # label of a q -> its grid (G,) and densities there (G, R)
Exact = tuple[ndarray, ndarray] | None  # grid (G,) and density there (G,)
Joint = tuple[ndarray, ndarray, ndarray]  # x (X,), y (Y,), and densities (R, Y, X)


@theme()
def marginals_figure(
    marginals: dict[str, tuple[Marginals, Exact]],
    *,
    notes: dict[str, str] | None = None,
    joint: tuple[dict[str, Joint], ndarray | None] | None = None,
    title: str = "",
) -> Figure:
    """Draw a panel for each scalar, with the differences from the exact density under it, and the joint densities.

    Args:
        marginals: By name of the scalar, the densities of one or several q and the exact one.
        notes: A line above the panel by name of the scalar, such as how wide q is.
        joint: Of the first two scalars, densities of each q by label, and the exact one (Y, X) on
            the grid of the first.
        title: Title of the figure; none if empty.
    """
    count = len(marginals) + (joint is not None)
    columns, compared = min(COLUMNS, count), any(exact is not None for _, exact in marginals.values())
    rows = -(-count // columns)
    figure = blank(1.0 + 2.5 * columns, 0.7 + (2.9 if compared else 2.1) * rows, title)
    cells = figure.add_gridspec(rows, columns)
    for i, (name, (fitted, exact)) in enumerate(marginals.items()):
        place = cells[divmod(i, columns)]
        if compared:
            inner = place.subgridspec(2, 1, height_ratios=(3, 1))
            upper = figure.add_subplot(inner[0])
            lower = figure.add_subplot(inner[1], sharex=upper)
            _draw_differences(lower, fitted, exact)
            upper.tick_params(labelbottom=False)
        else:
            upper = lower = figure.add_subplot(place)
        _draw_marginal(upper, fitted, exact)
        upper.set_title((notes or {}).get(name, ""), fontsize=8.5)
        lower.set_xlabel(name)
        if i % columns == 0:
            upper.set_ylabel("density")
            lower.set_ylabel("q − exact" if compared else "density")
    if joint is not None:
        _draw_joint(figure.add_subplot(cells[divmod(count - 1, columns)]), *joint, names=tuple(marginals)[:2])
    figure.align_ylabels()
    return legend_below(figure, title="below: q − exact, as a share of the exact density's peak" if compared else "")


def _draw_marginal(axes: Axes, fitted: Marginals, exact: Exact) -> None:
    for (name, (grid, density)), color in zip(fitted.items(), PALETTE, strict=False):
        label = panels.replicates_label(density[-1:], name)
        label = label if label == name else f"{name}, {label}"
        panels.draw_replicates(axes, grid, density, color=color, label=label, band_label=panels.BAND_LABEL)
    if exact is not None:
        axes.plot(*exact, label="exact posterior", **EXACT)
    axes.set_ylim(bottom=0)
    axes.locator_params(axis="x", nbins=5)


def _draw_differences(axes: Axes, fitted: Marginals, exact: Exact) -> None:
    """Draw q − exact as a share of the exact density's peak."""
    axes.axhline(0, **EXACT)
    if exact is None:
        return
    for (grid, density), color in zip(fitted.values(), PALETTE, strict=False):
        against = np.interp(grid, *exact, left=0.0, right=0.0)
        low, median, high = quantiles((density - against[:, None]) / exact[1].max())
        axes.plot(grid, median, color=color, linewidth=1.1)
        axes.fill_between(grid, low, high, color=color, alpha=BAND_ALPHA, linewidth=0)
    axes.yaxis.set_major_formatter(_per_cent)
    axes.locator_params(axis="y", nbins=4)


def _per_cent(value: float, _: object = None) -> str:
    return f"{100 * value:.3g} %".replace("-", "−")


def _draw_joint(axes: Axes, fitted: dict[str, Joint], exact: ndarray | None, *, names: tuple[str, ...]) -> None:
    """Draw regions of highest density that hold `MASSES`, of the first replicates and of the exact posterior."""
    for (x, y, planes), color in zip(fitted.values(), PALETTE, strict=False):
        shown = planes[:SHOWN]
        look = {"linewidths": 1.4 if len(shown) == 1 else 0.6, "alpha": 1.0 if len(shown) == 1 else 0.6}
        for plane in shown:
            _contours(axes, x, y, plane, colors=color, **look)
    if exact is not None:
        x, y, _ = next(iter(fitted.values()))
        _contours(axes, x, y, exact, colors=INK, linestyles=[DASHES[0]], linewidths=1.2)
    axes.set(xlabel=names[0], ylabel=names[1])
    axes.set_title(f"regions of {', '.join(f'{100 * mass:g}' for mass in MASSES[::-1])} %", fontsize=8.5)
    axes.locator_params(nbins=5)


def _contours(axes: Axes, x: ndarray, y: ndarray, plane: ndarray, **look: Any) -> None:
    """Draw the contours of a density (Y, X) within which `MASSES` of it lie."""
    ordered = np.sort(plane.ravel())[::-1]
    held = np.cumsum(ordered) * (x[1] - x[0]) * (y[1] - y[0])
    places = [place for place in np.searchsorted(held, MASSES) if place < len(ordered)]
    if places:
        axes.contour(x, y, plane, np.unique(ordered[places]), **look)
