"""`task=report run=<folder>`: write one HTML page of a finished run or sweep, report.html, in its own folder."""

import logging
import time
from pathlib import Path

from omegaconf import DictConfig

from .read import read_row
from .records import Page
from .render import write_page

log = logging.getLogger(__name__)


def run(cfg: DictConfig, folder: Path) -> None:
    """Write report.html for the run or the sweep in `folder`; raise `DataError` where there is neither."""
    row = read_row(folder)
    path = folder / "report.html"
    write_page(Page(f"vi-lab: {row.name}", (row,), time.strftime("%Y-%m-%d %H:%M")), path)
    log.info("%s %s", row.verdict.value, row.name)
    log.info("page    %s", path)
