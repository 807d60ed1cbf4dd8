"""Writing a figure to a file, atomically, and with the same bytes for the same figure."""

from pathlib import Path
from typing import Final

from matplotlib.figure import Figure

from vi_core.errors import require
from vi_core.files import replacing
from vi_core.plots.drawing.style import theme

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
