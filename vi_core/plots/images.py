"""Figures of images and of a diffusion model: reconstructions in rows, generated images in a grid, images in the plane
of two latents, the terms of the bound over the step t, and generated points from noise to data.

Pixels are in [0, 1]: white ink on black, or red, green and blue. Each row or grid of images is put into one array,
which draws in one call.
"""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy import ndarray

from vi_core.plots.drawing.panels import number_text
from vi_core.plots.drawing.style import GREY, INK, PALETTE, blank, blank_panels, legend_below, theme

GAP = 1  # pixels between images
TILE = 0.64  # inches of a side of a square image; another one gets the same area
CLASS_COLORS = (  # "muted" of Tol 2021, ten colours that readers with any common colour vision can tell apart
    "#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499", "#8C8C8C",
)  # fmt: skip
FLATTEST = 4.0  # largest ratio of the sides of the place that an image gets


@theme()
def image_figure(rows: dict[str, ndarray], *, title: str = "", columns: int = 10) -> Figure:
    """Draw rows of images with labels on the left.

    Args:
        rows: Images by label, each (N, H, W) or (N, H, W, 3), with values in [0, 1].
        title: Title of the figure; none if empty.
        columns: How many images of each row are shown, from the first.
    """
    shown = max(min(columns, len(images)) for images in rows.values())
    margin = 0.5 + 0.088 * max(len(part) for label in rows for part in label.split(", "))
    width, height = _tile(next(iter(rows.values())))
    figure = blank(margin + width * shown, (height + 0.05) * len(rows) + _room(title), title)
    for axes, (label, images) in zip(figure.subplots(len(rows), 1, squeeze=False).ravel(), rows.items(), strict=True):
        _show(axes, mosaic(images[:columns], columns=shown))
        axes.set_ylabel(label.replace(", ", ",\n"), rotation=0, ha="right", va="center")
    return figure


@theme()
def noise_figure(images: ndarray, *, columns: int = 8, title: str = "") -> Figure:
    """Draw generated `images`, (N, H, W) or (N, H, W, 3), in a grid."""
    columns, (width, height) = min(columns, len(images)), _tile(images)
    figure = blank(width * columns, height * math.ceil(len(images) / columns) + _room(title), title)
    _show(figure.subplots(), mosaic(images, columns=columns))
    return figure


def mosaic(images: ndarray, *, columns: int) -> ndarray:
    """Return images as one array of rows of `columns` images, with nothing in the gaps and the empty places.

    Nothing is NaN between grey images (N, H, W), and transparent between coloured ones (N, H, W, 3), whose mosaic has
    the opacity as a fourth number of each pixel.
    """
    if images.ndim == 4:
        images = np.concatenate([images.clip(0, 1), np.ones_like(images[..., :1])], axis=-1)
    count, height, width, *colours = images.shape
    rows = math.ceil(count / columns)
    tiles = np.full((rows * columns, height + GAP, width + GAP, *colours), 0.0 if colours else np.nan)
    tiles[:count, :height, :width] = images
    grid = tiles.reshape(rows, columns, height + GAP, width + GAP, *colours).swapaxes(1, 2)
    return grid.reshape(rows * (height + GAP), columns * (width + GAP), *colours)[:-GAP, :-GAP]


def _tile(images: ndarray) -> tuple[float, float]:
    """Return width and height in inches of an image, whose area is that of a square one."""
    ratio = min(max(images.shape[2] / images.shape[1], 1 / FLATTEST), FLATTEST)
    return TILE * math.sqrt(ratio), TILE / math.sqrt(ratio)


def _room(title: str) -> float:
    """Return the height in inches that `title` takes."""
    return 0.28 if title else 0.05


def _show(axes: Axes, pixels: ndarray) -> None:
    """Show `pixels` (H, W), or (H, W, 4) with their opacity, without ticks or frame."""
    axes.imshow(pixels, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set_visible(False)


@theme()
def plane_figure(points: ndarray, classes: Sequence[str], *, labels: tuple[str, str], title: str = "") -> Figure:
    """Draw points of the plane in a colour for each class, whose name stands at the median of its points, too.

    Args:
        points: (N, 2).
        classes: Of the N points, at most 20.
        labels: Of the axes.
        title: Title of the figure; none if empty.
    """
    figure, (axes,) = blank_panels(5.6, 5.0, title)
    found, names = np.array(classes), sorted(set(classes), key=lambda name: (len(name), name))
    size = float(np.clip(140 / math.sqrt(len(points)), 2.5, 6.0))
    for place, name in enumerate(names):
        color, marker = CLASS_COLORS[place % len(CLASS_COLORS)], "os"[place // len(CLASS_COLORS)]
        own, look = points[found == name], {"markersize": size, "markeredgewidth": 0.3, "markeredgecolor": "white"}
        axes.plot(*own.T, marker, color=color, label=name, **look)
        text = axes.text(*np.median(own, axis=0), name, color=color, weight="bold", ha="center", va="center", size=13)
        text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
    axes.set(xlabel=labels[0], ylabel=labels[1])
    axes.set_aspect("equal", adjustable="datalim")
    figure.legend(loc="outside right center", title="class", handlelength=1.0)
    return figure


@theme()
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
    figure, (axes,) = blank_panels(7.4, 3.9, title)
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
    return legend_below(figure)


@theme()
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
