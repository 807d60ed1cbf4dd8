"""Writing of figures in the style that the node `plot` of the settings asks for."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)


@contextmanager
def drawing(plot: Any) -> Iterator[None]:
    """Context manager: figures that are made inside have the look of the settings."""
    from vi_core.plots.drawing.style import Look, look

    logging.getLogger("fontTools").setLevel(logging.ERROR)  # it has lines on each font of a PDF
    with look(Look(plot.style, plot.width, plot.dpi, plot.title)):
        yield


def write(figures: "Iterable[tuple[str, Figure]]", folder: Path, plot: Any) -> list[Path]:
    """Write the figures that `plot.only` names, or all, into a folder; return their paths.

    Args:
        figures: Name and figure, made as they are asked for.
        folder: Is made where it is missing.
        plot: The node of the settings.
    """
    from vi_core.plots.drawing.style import save

    folder.mkdir(parents=True, exist_ok=True)
    wanted, found, paths = set(plot.only), [], []
    with drawing(plot):
        for name, figure in figures:
            found.append(name)
            if not wanted or name in wanted:
                paths.append(save(figure, folder / f"{name}.{plot.format}"))
    if missing := sorted(wanted.difference(found)):
        log.warning("plot.only=%s: there is no such figure; these are %s", ",".join(missing), ", ".join(found))
    return paths
