"""Theme of every figure, applied in a context so that matplotlib's global settings never change, and writing to a file.

Fonts, sizes and lines are in theme.mplstyle, colours and dashes here. The palette is that of Okabe and
Ito 2008, which readers with any common colour vision can tell apart. A figure is written atomically, and with the same
bytes for the same figure.
"""

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from vi_core.errors import require
from vi_core.files import replacing

PALETTE: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#4D4D4D")
DASHES: Final = ((0, (6, 2)), (0, (1.2, 1.4)), (0, (6, 2, 1.2, 2)), (0, (3, 1.5)))
INK: Final = "#262626"
GREY: Final = "#7A7A7A"
BAND_ALPHA: Final = 0.22  # opacity of the bands over replicates

STYLE: Final = mpl.rc_params_from_file(Path(__file__).with_name("theme.mplstyle"), use_default_template=False)


@contextmanager
def theme() -> Iterator[None]:
    """Context manager and, as `@theme()`, decorator: `STYLE` on matplotlib's own defaults is in force inside.

    The user's settings come back afterwards.
    """
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def blank(width: float, height: float, title: str) -> Figure:
    """Return an empty figure of `width` × `height` inches that lays out its own axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    if title:
        figure.suptitle(textwrap.fill(title, int(width / 0.085)))
    return figure


def blank_panels(width: float, height: float, title: str, columns: int = 1) -> tuple[Figure, Any]:
    """Return an empty figure of `width` × `height` inches, and the axes of its panels side by side, (columns,)."""
    figure = blank(width, height, title)
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def legend_below(figure: Figure, *, title: str = "") -> Figure:
    """Put one legend for all axes of `figure` under them, each label once, in as many columns as fit, and return it."""
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    handles, labels = list(entries.values()), list(entries)
    columns = _columns_that_fit([0.55 + 0.075 * len(label) for label in labels], figure.get_figwidth())
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, title=title or None)
    return figure


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


# Entries of a file that name a version or a time are left out.
METADATA: Final[dict[str, dict[str, str | None]]] = {"png": {"Software": None}, "pdf": {"CreationDate": None}}
DPI = 120  # pixels in an inch, of PNG files


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure as PNG or PDF; the file appears under its name only when it is complete.

    Args:
        figure: The figure; its margins are fitted to its labels.
        path: Where to, with the suffix .png or .pdf; missing folders are made.

    Returns:
        The path.

    Raises:
        ConfigError: For another suffix.
    """
    path = Path(path)
    kind = path.suffix.removeprefix(".")
    require(kind in METADATA, f"{path.name} is neither png nor pdf; end the name of the figure in .png or .pdf.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished, theme():
        lay_out(figure)
        figure.savefig(unfinished, format=kind, dpi=DPI, metadata=METADATA[kind])
    return path


def lay_out(figure: Figure) -> None:
    """Fit the margins of `figure` to its labels, once; `savefig` by itself would draw everything twice for that."""
    engine = figure.get_layout_engine()
    if engine is not None:
        figure.set_dpi(DPI)
        engine.execute(figure)
        figure.set_layout_engine("none")
