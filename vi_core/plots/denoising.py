"""Figures of a diffusion model: the terms of its bound over the step t, and generated points from noise to data."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray

from vi_core.plots.drawing.panels import number_text
from vi_core.plots.drawing.style import GREY, INK, PALETTE, blank, legend_below, themed


@themed
def terms_figure(mean: ndarray, se: ndarray, affine: ndarray, *, size: int, units: str, title: str = "") -> Figure:
    """Draw L_(t−1) for t = 2, ..., T with its standard error; L_0 and L_T, of other sizes and signs, are text.

    Args:
        mean: Estimates of L_0, L_1, ..., L_T, (T + 1,), in nats.
        se: Their standard errors, (T + 1,).
        affine: The same terms of the best affine denoiser, (T + 1,).
        size: Number of dimensions D of a data point, for the axis on the right.
        units: Label of the axis on the right, such as bits per dimension.
        title: Title of the figure; none if empty.
    """
    figure = blank(7.4, 3.9, title)
    axes = figure.subplots()
    t, inside = np.arange(2, len(mean)), slice(1, -1)
    look = {"fmt": "o", "markersize": 2.8, "linewidth": 0.8, "color": PALETTE[0]}
    axes.errorbar(t, mean[inside], se[inside], label=r"$L_{t-1}$, Monte Carlo ± standard error", **look)
    label = "best affine denoiser, closed form (exact on Gaussian data)"
    axes.plot(t, affine[inside], color=INK, linewidth=1.1, label=label)
    axes.set(xscale="log", yscale="log", xlabel="step t", ylabel=r"$L_{t-1}$ (nats)")
    bit = size * math.log(2)
    scales = (lambda nats: np.asarray(nats) / bit, lambda bits: np.asarray(bits) * bit)
    axes.secondary_yaxis("right", functions=scales).set_ylabel(units)
    lines = [f"sum over t > 1: {number_text(round(float(mean[inside].sum()), 4))}"]
    for name, i in (("$L_0$", 0), ("$L_T$", -1)):
        lines.append(f"{name} = {number_text(float(f'{mean[i]:.4g}'))} ± {se[i]:.1g}")
    axes.text(0.015, 0.04, "\n".join(lines), transform=axes.transAxes, ha="left", va="bottom")
    legend_below(figure)
    return figure


@themed
def reverse_figure(frames: ndarray, steps: Sequence[int], data: ndarray, *, title: str = "") -> Figure:
    """Draw points of the plane at several steps of the reverse process, a panel for each, and the data.

    All panels have the same limits, which hold the data and a standard Normal.

    Args:
        frames: States x_t of N points, (F, N, 2).
        steps: The F values of t; 0 is the generated sample.
        data: Points of the data set, (M, 2).
        title: Title of the figure; none if empty.
    """
    count = len(frames) + 1
    figure = blank(1.75 * count, 2.15 + (0.2 if title else 0), title)
    panels = figure.subplots(1, count, sharex=True, sharey=True)
    reach = 1.05 * max(3.0, float(np.abs(data).max()))
    for axes, points, step in zip(panels, frames, steps, strict=False):
        _scatter(axes, points, PALETTE[0], f"t = {step}" if step else "t = 0: generated")
    _scatter(panels[-1], data, GREY, "data")
    panels[0].set(xlim=(-reach, reach), ylim=(-reach, reach), ylabel="$x_2$")
    for axes in panels:
        axes.set(xlabel="$x_1$", aspect="equal")
    return figure


def _scatter(axes: Axes, points: ndarray, color: str, name: str) -> None:
    """Draw `points` (N, 2) as small dots under a name."""
    axes.plot(*points.T, ".", markersize=1.6, alpha=0.5, markeredgewidth=0, color=color)
    axes.set_title(name)
