"""`task=docs_benchmarks run=<folder>`: write docs/benchmarks.md, and its figures, from a finished benchmark.

No number in that page is written by hand: the same folder gives the same page.
"""

import logging
import shutil
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from omegaconf import DictConfig

from vi_core.storage.archive import read_summary
from vi_core.storage.layout import BenchmarkFinding, fault
from vi_core.storage.reading import damaged

from ..results.files import write_text
from .problems import TITLES
from .results import Row, label, read_rows
from .task import TABLE

log = logging.getLogger(__name__)
TEMPLATES = Path(__file__).resolve().parent / "templates"
PAGE = Path("docs/benchmarks.md")
FIGURES = Path("docs/benchmarks")


def run(cfg: DictConfig, folder: Path) -> None:
    """Write the page of the benchmark in `folder`."""
    summary, rows = read_summary(folder), read_rows(folder / TABLE)
    if wrong := fault(summary, BenchmarkFinding):
        raise damaged(folder / "summary.json", wrong)
    figures = sorted((folder / "plots").glob("*.png"))
    FIGURES.mkdir(parents=True, exist_ok=True)
    for figure in figures:
        shutil.copyfile(figure, FIGURES / figure.name)
    write_text(PAGE, page(summary, rows, [figure.name for figure in figures]))
    log.info("page    %s", PAGE)


def page(summary: dict, rows: list[Row], figures: list[str]) -> str:
    """Return the text of the page."""
    engine = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    engine.filters |= {"figures": significant, "label": label, "words": words}
    problems = [
        (name, TITLES.get(name, name), [row for row in rows if row.problem == name])
        for name in dict.fromkeys(row.problem for row in rows)
    ]
    return engine.get_template("benchmarks.md.j2").render(
        machine=summary["machine"],
        checks=summary["checks"],
        unjudged=summary["unjudged"],
        commit=summary["environment"]["git_commit"],
        tables=[table for table in problems if table[2][0].at is None],
        curves=[table for table in problems if table[2][0].at is not None],
        drawn=figures,
    )


def significant(value: float | None, digits: int = 3) -> str:
    """Return a number with so many significant digits and no exponent; an en dash for none."""
    if value is None:
        return "–"
    rounded = float(f"{value:.{digits}g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 10 ** (digits - 1) else f"{rounded:#.{digits}g}"


def words(row: Row) -> str:
    """Return why a row has no number, or a remark on it, fit for a table."""
    text = f"{row.status}: {row.note}" if row.status != "ok" else row.note
    return text.replace("|", "/")
