"""Writing a figure to a file, completely or not at all, with the same bytes for the same figure."""

from pathlib import Path
from typing import Final

from matplotlib.figure import Figure

from vi_core.errors import require
from vi_core.files import replacing
from vi_core.plots.drawing.style import theme

METADATA: Final[dict[str, dict[str, str | None]]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None},
}
DPI = 120


def save(figure: Figure, path: str | Path) -> Path:
    """Write `figure` to `path`, as its suffix says (png or pdf), and return the path.

    The file appears under its name only when it is complete: it is written beside it and renamed.
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
    """Fit the margins of `figure` to its labels, once: `savefig` would draw everything for that, and then again."""
    engine = figure.get_layout_engine()
    if engine is not None:
        figure.set_dpi(DPI)
        engine.execute(figure)
        figure.set_layout_engine("none")
