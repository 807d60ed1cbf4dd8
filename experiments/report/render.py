"""From a page's records to one HTML file that needs no other: styles, script and figures lie inside."""

import math
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ..results.files import write_text
from .records import Check, Page, Quantity, Verdict

TEMPLATES = Path(__file__).resolve().parent / "templates"
SYMBOLS = {Verdict.PASS: "✓", Verdict.FAIL: "✗", Verdict.SKIPPED: "↷", Verdict.UNJUDGED: "–"}


def write_page(page: Page, path: Path) -> None:
    """Write `page` to `path`, completely or not at all."""
    write_text(path, environment().get_template("page.html.j2").render(page=page, symbols=SYMBOLS))


def environment() -> Environment:
    """Return the template engine: everything is escaped, and a name that does not exist is an error."""
    engine = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    engine.filters |= {
        "number": number,
        "seconds": seconds,
        "capitalize_first": capitalize_first,
        "breakable": breakable,
        "plain_decimal": plain_decimal,
    }
    engine.globals |= {"check_decimals": check_decimals, "decimals": decimals}
    return engine


def number(value: float | None, places: int | None = None) -> str:
    """Return a number with `places` decimals, or six digits; an en dash where there is none."""
    if value is None:
        return "–"
    text = f"{value:.6g}" if places is None else f"{value:.{places}f}"
    return text.replace("-", "−")


def check_decimals(check: Check) -> int:
    """Return the decimals at which a check's tolerance can be seen, and its expected number is not rounded."""
    return max(_places(check.tolerance) - 1, len(plain_decimal(check.expected).partition(".")[2]))


def plain_decimal(value: float) -> str:
    """Return a number without an exponent: 0.00006."""
    return f"{value:.8f}".rstrip("0").rstrip(".").replace("-", "−")


def decimals(quantity: Quantity) -> int | None:
    """Return the decimals at which an estimate's standard error can be seen; enough for six digits without one."""
    if quantity.se:
        return _places(quantity.se)
    largest = max((abs(v) for v in (quantity.value, quantity.exact) if v is not None), default=0.0)
    return max(0, 6 - max(1, math.floor(math.log10(largest)) + 1)) if largest >= 1e-3 else None


def _places(size: float) -> int:
    return min(8, max(1, 1 - math.floor(math.log10(size)))) if size > 0 else 1


def seconds(value: float) -> str:
    """Return a duration as people say it."""
    if value < 10:
        return f"{value:.1f} s"
    if value < 120:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min"


def breakable(name: str) -> Markup:
    """Return a name that may be broken after its underscores."""
    return Markup("_<wbr>").join(name.split("_"))


def capitalize_first(text: str) -> str:
    """Return a text with its first letter in upper case, and the others as they are."""
    return text[:1].upper() + text[1:]
