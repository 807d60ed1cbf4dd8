"""Diffusion models: the terms of their bound against the step, and points on their way from noise to data."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray

from vi_core.plots.drawing.panels import number_text
from vi_core.plots.drawing.style import GREY, INK, PALETTE, blank, legend_below, themed


@themed
def terms_figure(
    mean: ndarray, se: ndarray, affine: ndarray, *, size: int, units: str, xlabel: str = "step t", title: str = ""
) -> Figure:
    """Draw L_(t−1) for t = 2, ..., T with its standard error; L_0 and L_T, of other sizes and signs, as text.

    `mean`, `se` and `affine` hold L_0, L_1, ..., L_T, each (T + 1,); `size` is D of the `units` on the right.
    """
    figure = blank(7.4, 3.9, title)
    axes = figure.subplots()
    t = np.arange(2, len(mean))
    inside = slice(1, -1)
    axes.errorbar(
        t, mean[inside], yerr=se[inside], fmt="o", markersize=2.8, linewidth=0.8, color=PALETTE[0],
        label=r"$L_{t-1}$, Monte Carlo ± standard error",
    )  # fmt: skip
    axes.plot(
        t, affine[inside], color=INK, linewidth=1.1, label="best affine denoiser, closed form (exact on Gaussian data)"
    )
    axes.set(xscale="log", yscale="log", xlabel=xlabel, ylabel=r"$L_{t-1}$ (nats)")
    bit = size * math.log(2)
    right = axes.secondary_yaxis(
        "right", functions=(lambda nats: np.asarray(nats) / bit, lambda bits: np.asarray(bits) * bit)
    )
    right.set_ylabel(units)
    total = f"sum over t > 1: {number_text(round(float(mean[inside].sum()), 4))}"
    ends = [
        f"{name} = {number_text(float(f'{mean[i]:.4g}'))} ± {se[i]:.1g}" for name, i in (("$L_0$", 0), ("$L_T$", -1))
    ]
    axes.text(0.015, 0.04, "\n".join([total, *ends]), transform=axes.transAxes, ha="left", va="bottom")
    legend_below(figure)
    return figure


@themed
def reverse_figure(frames: ndarray, steps: Sequence[int], data: ndarray, *, title: str = "") -> Figure:
    """Draw points of the plane as they walk back, a panel for each of `frames` (F, N, 2) at t = `steps`, and `data`.

    All panels have the limits of the data and of a standard Normal.
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
