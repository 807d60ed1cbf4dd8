"""`task=reproduce`: run every experiment that has a place on the report page, and write the page.

Each experiment is run by the command that a user types, in <run>/runs/<fidelity>/<experiment>; the page is
<run>/index.html. An experiment that has finished under the same settings and sources is not run again, so that the same
command continues after an interruption.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig

from vi_core.errors import DataError, require

from ..config.schema import FIDELITIES
from .plan import Plan, plans
from .read import read_row
from .records import Page, Row, Verdict
from .render import write_page
from .runner import Main, complaint, run_all

log = logging.getLogger(__name__)
FOLDER = Path("outputs/report")
TITLE = "vi-lab: the reports, reproduced"


def run(cfg: DictConfig, given: Sequence[str], main: Main) -> bool:
    """Run the experiments and write the page.

    Args:
        cfg: The program's configuration, with the group `reproduce`, `fidelity`, and `run`, the page's folder.
        given: Overrides for all experiments that know them.
        main: The program's entry point, which runs one command.

    Returns:
        Whether every command ended well; experiments that are skipped because data are missing count as well.

    Raises:
        ConfigError: For settings out of range, or that no experiment has.
    """
    require(cfg.reproduce.parallel >= 1, f"reproduce.parallel={cfg.reproduce.parallel} must be at least 1.")
    require(cfg.fidelity in FIDELITIES, f"fidelity={cfg.fidelity} must be one of {', '.join(FIDELITIES)}.")
    started = time.perf_counter()
    folder = Path(cfg.run) if cfg.run else FOLDER
    only = [cfg.reproduce.only] if isinstance(cfg.reproduce.only, str) else list(cfg.reproduce.only)
    chosen = plans(cfg.fidelity, only, given)
    runs = folder / "runs" / cfg.fidelity
    log.info("%d experiments, %d at a time, in %s", len(chosen), cfg.reproduce.parallel, runs)
    ended: list[str] = []

    def done(plan: Plan, seconds: float) -> None:
        ended.append(plan.name)
        verdict = row_of(plan, runs).verdict.value
        log.info("[%2d/%d] %-38s %-10s %5.0f s", len(ended), len(chosen), plan.name, verdict, seconds)

    run_all(main, chosen, runs, cfg.reproduce.parallel, done)
    rows = tuple(row_of(plan, runs) for plan in chosen)
    wall = time.perf_counter() - started
    page = Page(TITLE, rows, time.strftime("%Y-%m-%d %H:%M"), cfg.fidelity, wall)
    write_page(page, folder / "index.html")
    log.info("%s", ", ".join(f"{count} {verdict.value}" for verdict, count in page.counts.items()))
    log.info("page    %s", folder / "index.html")
    return not any(row.error and row.verdict is Verdict.FAIL for row in rows)


def row_of(plan: Plan, runs: Path) -> Row:
    """Return the page's row of a plan that has been run, with the complaint of a command that failed."""
    try:
        found = read_row(runs / plan.name, plan.command)
    except DataError:
        found = Row(name=plan.name, command=plan.command, jobs=())
    return replace(found, where=plan.where, says=plan.says, note=plan.note, error=complaint(plan, runs))
