"""Theme of every figure, applied in a context so that matplotlib's global settings never change.

Fonts, sizes and lines are in theme.mplstyle, colours and dashes here. The palette is that of Okabe and
Ito 2008, which readers with any common colour vision can tell apart.
"""

import functools
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, ParamSpec

import matplotlib as mpl
import numpy as np
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

P = ParamSpec("P")

PALETTE: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#4D4D4D")
DASHES: Final = ((0, (6, 2)), (0, (1.2, 1.4)), (0, (6, 2, 1.2, 2)), (0, (3, 1.5)))
INK: Final = "#262626"
GREY: Final = "#7A7A7A"
BAND_ALPHA: Final = 0.22  # opacity of the bands over replicates

STYLE: Final = mpl.rc_params_from_file(Path(__file__).with_name("theme.mplstyle"), use_default_template=False)


@contextmanager
def theme() -> Iterator[None]:
    """Context manager: `STYLE` on matplotlib's own defaults is in force; the user's settings come back afterwards."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def themed(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Decorator: `draw` runs under the theme."""

    @functools.wraps(draw)
    def draw_in_theme(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with theme():
            return draw(*args, **kwargs)

    return draw_in_theme


def blank(width: float, height: float, title: str) -> Figure:
    """Return an empty figure of `width` × `height` inches that lays out its own axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    if title:
        figure.suptitle(textwrap.fill(title, int(width / 0.085)))
    return figure


def legend_below(figure: Figure, *, title: str = "") -> None:
    """Put one legend for all axes of `figure` under them, each label once, in as many columns as fit."""
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    handles, labels = list(entries.values()), list(entries)
    columns = _columns_that_fit([0.55 + 0.075 * len(label) for label in labels], figure.get_figwidth())
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, title=title or None)


def _columns_that_fit(widths: list[float], room: float) -> int:
    """Return the largest number of columns, filled one after the other, in which entries of `widths` take up `room`."""
    for columns in range(len(widths), 1, -1):
        if sum(part.max() for part in np.array_split(widths, columns)) <= room:
            return columns
    return 1


def group_colors(labels: Sequence[str]) -> list[str]:
    """Return a colour per label: dark to light in the order of the numbers, or the palette where one is a word."""
    try:
        numbers = [float(label) for label in labels]
    except ValueError:
        return [PALETTE[i % len(PALETTE)] for i in range(len(labels))]
    ranks = {number: rank for rank, number in enumerate(sorted(numbers))}
    shades = mpl.colormaps["viridis"]
    return [to_hex(shades(0.88 * ranks[number] / max(len(ranks) - 1, 1))) for number in numbers]
