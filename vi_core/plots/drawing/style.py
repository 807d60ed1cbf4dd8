"""Theme of every figure, applied in a context so that matplotlib's global settings never change, and writing to a file.

Fonts, sizes and lines are in theme.mplstyle, colours and dashes here. The palette is that of Okabe and
Ito 2008, which readers with any common colour vision can tell apart. A figure is written atomically, and with the same
bytes for the same figure.
"""

import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import matplotlib as mpl
import numpy as np
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from vi_core.errors import require
from vi_core.storage.files import replacing

PALETTE: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#4D4D4D")
DASHES: Final = ((0, (6, 2)), (0, (1.2, 1.4)), (0, (6, 2, 1.2, 2)), (0, (3, 1.5)))
INK: Final = "#262626"
GREY: Final = "#7A7A7A"
BAND_ALPHA: Final = 0.22  # opacity of the bands over replicates

FONTS: Final = (
    "font.size", "axes.titlesize", "axes.labelsize", "figure.titlesize", "xtick.labelsize", "ytick.labelsize",
    "legend.fontsize", "legend.title_fontsize",
)  # fmt: skip
STYLE: Final = mpl.rc_params_from_file(Path(__file__).with_name("theme.mplstyle"), use_default_template=False)


GREEK: Final = frozenset(
    "alpha beta gamma delta epsilon zeta eta theta kappa lambda mu nu xi pi rho sigma tau phi chi psi omega".split()  # noqa: SIM905
)


def symbol(name: str) -> str:
    r"""Return the name of a quantity in TeX's notation, such as $\mu$ for mu and $\theta_{3}$ for theta[3]; words stay.

    Names are a Greek letter or one Latin letter, with digits or letters below it; E[name] is an expectation.
    """
    if found := re.fullmatch(r"E\[(.+)\]", name):
        inner = symbol(found[1])
        return f"$\\mathrm{{E}}[{inner.strip('$')}]$" if inner.startswith("$") else name
    whole, dot, parameter = name.partition(".")
    if dot and parameter.isidentifier() and "$" in symbol(whole):
        return f"{symbol(whole)} {parameter}"
    found = re.fullmatch(r"([A-Za-z]+?)(\d+)?(?:_([A-Za-z0-9−+-]+))?(?:\[([\d,]+)\])?", name)
    if found is None or (found[1] not in GREEK and len(found[1]) > 1):
        return name
    letter = f"\\{found[1]}" if found[1] in GREEK else found[1]
    below = ",".join(filter(None, found.groups()[1:]))
    return f"${letter}_{{{below}}}$" if below else f"${letter}$"


class Look(NamedTuple):
    """What a user may choose of all figures.

    Attributes:
        style: A key of `STYLES`.
        width: Of every figure, in inches; None for that of the style.
        dpi: Pixels in an inch, of PNG files; None for that of the style.
        title: In place of each figure's own; None for that of the style.
    """

    style: str = "screen"
    width: float | None = None
    dpi: int | None = None
    title: str | None = None


STYLES: Final[dict[str, dict[str, Any]]] = {
    "screen": {},
    "paper": dict.fromkeys(FONTS, 8.0) | {"lines.linewidth": 1.1, "mathtext.fontset": "cm"},
    "slides": dict.fromkeys(FONTS, 14.0) | {"lines.linewidth": 2.2, "axes.linewidth": 1.2},
}
DPI: Final = {"screen": 120, "paper": 300, "slides": 150}
COLUMN, PAGE = 3.3, 6.8  # inches: widths of a figure on paper, in one column and across the page
FLATTEST = 0.75  # a figure that is made narrower keeps this share of its height at least
LOOK: ContextVar[Look] = ContextVar("LOOK", default=Look())  # noqa: B039, it cannot change


@contextmanager
def look(chosen: Look) -> Iterator[None]:
    """Context manager: figures are made and written as chosen inside."""
    token = LOOK.set(chosen)
    try:
        yield
    finally:
        LOOK.reset(token)


@contextmanager
def theme() -> Iterator[None]:
    """Context manager and, as `@theme()`, decorator: `STYLE` on matplotlib's own defaults is in force inside.

    The user's settings come back afterwards.
    """
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        mpl.rcParams.update(cast(Any, STYLES[LOOK.get().style]))
        yield


def blank(width: float, height: float, title: str) -> Figure:
    """Return an empty figure of `width` × `height` inches, or as the look has it, that lays out its own axes."""
    chosen = LOOK.get()
    own = {"paper": COLUMN if width <= 6.0 else PAGE, "slides": max(width, 9.0)}
    wanted = chosen.width or own.get(chosen.style, width)
    figure = Figure(figsize=(wanted, height * max(wanted / width, FLATTEST)), layout="constrained")
    shown = chosen.title if chosen.title is not None else "" if chosen.style == "paper" else title
    if shown:
        figure.suptitle(textwrap.fill(shown, int(wanted / letter())))
    return figure


def letter() -> float:
    """Return the mean width of a letter of legends and titles, in inches."""
    return 0.085 / 9.0 * float(mpl.rcParams["font.size"])


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
    widths = [0.55 + 0.88 * letter() * len(label) for label in labels]
    columns = _columns_that_fit(widths, figure.get_figwidth())
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
METADATA: Final[dict[str, dict[str, str | None]]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None},
    "svg": {"Date": None},
}


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure as PNG, PDF or SVG; the file appears under its name only when it is complete.

    Args:
        figure: The figure; its margins are fitted to its labels, which on paper are in TeX's notation.
        path: Where to, with the suffix .png, .pdf or .svg; missing folders are made.

    Returns:
        The path.

    Raises:
        ConfigError: For another suffix.
    """
    path, chosen = Path(path), LOOK.get()
    kind = path.suffix.removeprefix(".")
    known = ", ".join(METADATA)
    require(kind in METADATA, f"{path.name} is none of {known}; end the name of the figure in one of them.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished, theme():
        mpl.rcParams["svg.hashsalt"] = path.name
        if chosen.style == "paper":
            use_symbols(figure)
        dpi = chosen.dpi or DPI[chosen.style]
        lay_out(figure, dpi)
        figure.savefig(unfinished, format=kind, dpi=dpi, metadata=METADATA[kind])
    return path


def use_symbols(figure: Figure) -> None:
    """Put labels, titles and legends of a figure in TeX's notation, and spaces for the underscores of code names."""
    for text in figure.findobj(Text):
        shown = text.get_text()
        if shown and "$" not in shown:
            parts = map(symbol, shown.split(", "))
            text.set_text(", ".join(part if "$" in part else part.replace("_", " ") for part in parts))


def lay_out(figure: Figure, dpi: int) -> None:
    """Fit the margins of `figure` to its labels, once; `savefig` by itself would draw everything twice for that."""
    engine = figure.get_layout_engine()
    if engine is not None:
        figure.set_dpi(dpi)
        engine.execute(figure)
        figure.set_layout_engine("none")
