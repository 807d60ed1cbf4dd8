"""Rendering of a page's records to one HTML file, with styles, script and figures inside.

`task=report run=<folder>` renders the page of one finished run or sweep, report.html, in its own folder.
"""

import logging
import math
import re
import time
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from omegaconf import DictConfig

from ..results.files import write_text
from .read import read_row
from .records import Check, Page, Quantity, Verdict

log = logging.getLogger(__name__)
TEMPLATES = Path(__file__).resolve().parent / "templates"
MOST_PLACES = 8  # decimals of a shown number
SYMBOLS = {
    Verdict.PASS: "✓", Verdict.FAIL: "✗", Verdict.SKIPPED: "↷", Verdict.UNJUDGED: "–",
    Verdict.TRUSTED: "✓", Verdict.CORRECTED: "≈", Verdict.DISTRUSTED: "!",
}  # fmt: skip


def run(cfg: DictConfig, folder: Path) -> None:
    """Write report.html for the run or the sweep in `folder`; raise `DataError` where there is neither."""
    row = read_row(folder)
    path = folder / "report.html"
    write_page(Page(f"vi-lab: {row.name}", (row,), time.strftime("%Y-%m-%d %H:%M")), path)
    log.info("%s %s", row.verdict.value, row.name)
    log.info("page    %s", path)


def write_page(page: Page, path: Path) -> None:
    """Write a page to the HTML file `path`, atomically."""
    write_text(path, environment().get_template("page.html.j2").render(page=page, symbols=SYMBOLS))


def environment() -> Environment:
    """Return the template engine, which escapes everything and refuses names that do not exist."""
    strict = {"autoescape": True, "undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    engine = Environment(loader=FileSystemLoader(TEMPLATES), **strict)
    filters = (number, seconds, capitalize_first, breakable, plain_decimal)
    engine.filters |= {function.__name__: function for function in filters}
    engine.globals |= {"check_decimals": check_decimals, "decimals": decimals}
    return engine


def number(value: float | None, places: int | None = None) -> str:
    """Return a number with `places` decimals, or six digits; an en dash where there is none."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    text = f"{value:.6g}" if places is None else f"{value:.{places}f}"
    return text.replace("-", "−")


def check_decimals(check: Check) -> int:
    """Return the number of decimals that shows a check's tolerance and does not round its expected number."""
    return max(_places(check.tolerance) - 1, len(plain_decimal(check.expected).partition(".")[2]))


def plain_decimal(value: float) -> str:
    """Return a number without an exponent: 0.00006."""
    return f"{value:.{MOST_PLACES}f}".rstrip("0").rstrip(".").replace("-", "−")


def decimals(quantity: Quantity) -> int | None:
    """Return the number of decimals that shows the Monte Carlo error of a mean, or six digits where it has none."""
    if quantity.mc_error:
        return _places(quantity.mc_error)
    largest = max((abs(v) for v in (quantity.mean, quantity.exact) if v is not None), default=0.0)
    return max(0, 6 - max(1, math.floor(math.log10(largest)) + 1)) if largest >= 1e-3 else None


def _places(size: float) -> int:
    return min(MOST_PLACES, max(1, 1 - math.floor(math.log10(size)))) if size > 0 else 1


def seconds(value: float) -> str:
    """Return a duration in seconds or minutes, with a unit."""
    if value < 10:
        return f"{value:.1f} s"
    if value < 120:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min"


def breakable(name: str) -> Markup:
    """Return a name that a browser may break after its underscores, and before the words that follow a dot."""
    return Markup("<wbr>").join(re.split(r"(?<=_)|(?<=\.)(?=[a-z])", name))


def capitalize_first(text: str) -> str:
    """Return a text with its first letter in upper case, and the others as they are."""
    return text[:1].upper() + text[1:]
