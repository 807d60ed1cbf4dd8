"""`task=compare runs=[<folder>,<folder>,...]`: finished runs side by side, as a table, comparison.csv and a page.

Each has the settings in which they differ, its final bound, the log evidence, the density of held-out data, the
verdict, and seconds. The folder of a sweep stands for all of its jobs.
"""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig

from vi_core.errors import ConfigError, DataError
from vi_core.plots.drawing.style import save
from vi_core.storage.archive import read_run

from ..config.schema import config_hash
from ..report.read import figures
from ..report.records import Page, Row
from ..report.render import write_page
from ..results.files import write_text
from ..results.verdict_lines import WORDS
from ..run.jobs import FINISHED
from .collect import csv_text, read_jobs, text_table, value_and_error
from .differences import Job, flat, unequal
from .figures import overlay

log = logging.getLogger(__name__)
MOST_KEYS = 6  # settings in the table on the terminal; comparison.csv has all
TOLD_APART = 3  # settings by which the legend of the figure names a run


class Number(NamedTuple):
    """A number of a run.

    Attributes:
        value: In nats.
        error: Its standard error, or None.
        how: Where it comes from.
    """

    value: float | None
    error: float | None
    how: str


def run(cfg: DictConfig, folders: Sequence[Path]) -> None:
    """Compare the runs in some folders; write comparison.csv, the figure and comparison.html to a folder of their own.

    Raises:
        ConfigError: For fewer than two runs.
        DataError: Where a folder holds neither a finished run nor a sweep, or a run that is no fit.
    """
    jobs = [job for folder in folders for job in runs_in(folder)]
    if len(jobs) < 2:
        raise ConfigError("task=compare needs at least two runs: runs=[<folder>,<folder>].")
    place = Path("outputs", "compare", time.strftime("%Y-%m-%d_%H-%M-%S")) if cfg.run is None else Path(cfg.run)
    keys = unequal([job["settings"] for job in jobs])
    rows = [row(job, keys) for job in jobs]
    place.mkdir(parents=True, exist_ok=True)
    write_text(place / "comparison.csv", csv_text(rows))
    lines = shown(rows, keys[:MOST_KEYS])
    log.info("\n%s", text_table(lines))
    if len(keys) > MOST_KEYS:
        log.info("%d more settings differ, in comparison.csv", len(keys) - MOST_KEYS)
    for line in (notes := cautions(jobs)):
        log.warning("WARNING %s", line)
    if cfg.plot.enabled and (figure := overlay(jobs, keys, [keys[:TOLD_APART] or ["seed"]], cfg.plot.smoothing)):
        log.info("figure  %s", save(figure, place / "plots" / f"bound.{cfg.plot.format}"))
    told = Row(
        name="comparison", command="", jobs=(), figures=tuple(figures(place / "plots")), note=" ".join(notes),
        keys=tuple(keys), overview=tuple(map(tuple, lines)),
    )  # fmt: skip
    title = f"{len(jobs)} runs side by side"
    write_page(Page(title, (told,), time.strftime("%Y-%m-%d %H:%M")), place / "comparison.html")
    log.info("results %s", place / "comparison.csv")
    log.info("page    %s", place / "comparison.html")


def runs_in(folder: Path) -> list[Job]:
    """Return the run in a folder, or the finished jobs of the sweep in it, with their settings by path."""
    if (folder / "config.yaml").exists() or not folder.is_dir():
        config, summary = read_run(folder)
        if "objective" not in summary:
            raise DataError(f"{folder} holds a study, which fits nothing; compare the folders of fits.")
        return [summary | {"folder": folder, "settings": flat(config), "config_hash": config_hash(config)}]
    return [job for job in read_jobs(folder) if "objective" in job]


def evidence(job: Job) -> Number:
    """Return the log evidence: in closed form, of a checked reference, or by the importance weights of the verdict."""
    final, modes = job["final"], (job.get("verdict") or {}).get("modes") or []
    if final["log_evidence"] is not None:
        return Number(final["log_evidence"], None, "closed form")
    if (reference := final.get("reference_log_evidence")) is not None:
        return Number(reference, final.get("reference_error"), "reference")
    if modes:
        return Number(modes[0]["log_evidence"], None, "importance sampling")
    return Number(None, None, "")


def held_out(job: Job) -> Number:
    """Return the log density of a held-out data point: by importance sampling, predictive, or its bound."""
    found = job["diagnostics"]
    if likelihood := found.get("likelihood"):
        return Number(-likelihood["nll"], likelihood["se"], "importance sampling")
    if predictive := found.get("held_out"):
        return Number(predictive["mean"], predictive["se"], "log predictive density")
    if job["final"].get("method") == "held-out data":
        return Number(job["final"]["mean"], job["final"]["se"], job["final"]["name"].upper())
    return Number(None, None, "")


def row(job: Job, keys: Sequence[str]) -> dict[str, Any]:
    """Return a run's line of comparison.csv by column; `keys` are the settings in which the runs differ."""
    final, trust = job["final"], (job.get("verdict") or {}).get("trust")
    line: dict[str, Any] = {"run": str(job["folder"]), "experiment": job["experiment"]}
    line |= {key: job["settings"].get(key, "") for key in keys}
    line |= {"status": job["status"], "bound": final["name"], "final": final["mean"], "final_se": final["se"]}
    for name, number in (("log_evidence", evidence(job)), ("held_out", held_out(job))):
        line |= {name: number.value, f"{name}_se": number.error, f"{name}_by": number.how}
    return line | {"verdict": WORDS.get(trust or "", ""), "seconds": job["timing"]["total_s"]}


def shown(rows: list[dict[str, Any]], keys: Sequence[str]) -> list[list[str]]:
    """Return the table for readers, its head first; what no run has is left out."""
    heads = {"run": "run", "experiment": "experiment", **dict(zip(keys, keys, strict=True))}
    heads |= {"final": "final bound", "log_evidence": "log evidence", "held_out": "held out", "verdict": "verdict"}
    heads = {name: head for name, head in heads.items() if any(line[name] not in (None, "") for line in rows)}
    if len({line["experiment"] for line in rows}) == 1:
        del heads["experiment"]
    cells = [[value_and_error(line[name], line.get(f"{name}_se")) for name in heads] for line in rows]
    return [[*heads.values(), "seconds"], *([*c, f"{r['seconds']:.3g}"] for c, r in zip(cells, rows, strict=True))]


def cautions(jobs: Sequence[Job]) -> list[str]:
    """Return what keeps numbers of the runs from being compared, a line each."""
    lines = []
    if len({job["data"]["checksum"] for job in jobs}) > 1:
        lines.append("The runs have different data, so that their bounds and evidences are not comparable.")
    if any(job.get("up_to") for job in jobs) and len({job["settings"].get("model") for job in jobs}) > 1:
        lines.append("A bound lacks constants that its program drops, and compares with no other model's.")
    if any(job["status"] not in FINISHED for job in jobs):
        lines.append("A run did not finish.")
    return lines
