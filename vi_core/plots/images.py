"""Figures of images: a test set beside its reconstructions in rows, and generated images in a grid.

Pixels are in [0, 1], white ink on black. Each row or grid is put into one array, which draws in one call.
"""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray

from vi_core.plots.drawing.style import blank, themed

GAP = 1  # pixels between images
TILE = 0.64  # inches of an image


@themed
def image_figure(rows: dict[str, ndarray], *, title: str = "", columns: int = 10) -> Figure:
    """Draw rows of images with labels on the left.

    Args:
        rows: Images by label, each (N, H, W), with values in [0, 1].
        title: Title of the figure; none if empty.
        columns: How many images of each row are shown, from the first.
    """
    shown = max(min(columns, len(images)) for images in rows.values())
    margin = 0.3 + 0.078 * max(len(label) for label in rows)
    figure = blank(margin + TILE * shown, (TILE + 0.05) * len(rows) + _room(title), title)
    for axes, (label, images) in zip(figure.subplots(len(rows), 1, squeeze=False).ravel(), rows.items(), strict=True):
        _show(axes, mosaic(images[:columns], columns=shown))
        axes.set_ylabel(label, rotation=0, ha="right", va="center")
    return figure


@themed
def noise_figure(images: ndarray, *, columns: int = 8, title: str = "") -> Figure:
    """Draw generated `images` (N, H, W) in a grid."""
    columns = min(columns, len(images))
    figure = blank(TILE * columns, TILE * math.ceil(len(images) / columns) + _room(title), title)
    _show(figure.subplots(), mosaic(images, columns=columns))
    return figure


def mosaic(images: ndarray, *, columns: int) -> ndarray:
    """Return `images` (N, H, W) as one array of rows of `columns` images, with NaN in the gaps and the empty places."""
    count, height, width = images.shape
    rows = math.ceil(count / columns)
    tiles = np.full((rows * columns, height + GAP, width + GAP), np.nan)
    tiles[:count, :height, :width] = images
    grid = tiles.reshape(rows, columns, height + GAP, width + GAP).swapaxes(1, 2)
    return grid.reshape(rows * (height + GAP), columns * (width + GAP))[:-GAP, :-GAP]


def _room(title: str) -> float:
    """Return the height in inches that `title` takes."""
    return 0.28 if title else 0.05


def _show(axes: Axes, pixels: ndarray) -> None:
    """Show `pixels` (H, W) without ticks or frame."""
    axes.imshow(pixels, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set_visible(False)
