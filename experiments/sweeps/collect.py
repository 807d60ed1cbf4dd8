"""`task=collect run=<sweep folder>`: one row a job in sweep.csv; bounds, final values and gradient noise in figures."""

import csv
import io
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig

from vi_core.archive import read_config, read_summary
from vi_core.errors import DataError, did_you_mean
from vi_core.training.history import read_history

from ..config.identity import config_hash
from ..config.schema import names
from ..results.files import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)
FINISHED = ("completed", "converged")


def run(cfg: DictConfig, folder: Path) -> bool:
    """Write sweep.csv and the figures of the sweep in `folder`; return whether every job finished."""
    jobs = read_jobs(folder)
    keys = swept_keys(jobs)
    write_text(folder / "sweep.csv", table(jobs, keys))
    log.info("%s", report(jobs, keys))
    log.info("results %s", folder / "sweep.csv")
    if cfg.plot.enabled:
        for path in draw(folder, jobs, keys, cfg):
            log.info("figure  %s", path)
    return all(job["status"] in FINISHED for job in jobs)


def read_jobs(folder: Path) -> list[dict[str, Any]]:
    """Return the summaries of a sweep's jobs in their order; a job that was redone counts once, the last time.

    Returns:
        For each job the content of its summary.json, with its number as `job` and its `folder`; one that left no
        summary has the status `killed`.

    Raises:
        DataError: Where the folder holds no jobs.
    """
    if not folder.is_dir():
        raise DataError(f"run={folder} is not a folder; give the folder of a sweep.")
    numbered = sorted((int(path.name), path) for path in folder.iterdir() if path.is_dir() and path.name.isdigit())
    found: dict[str, dict[str, Any]] = {}
    for number, path in numbered:
        if (path / "summary.json").exists():
            summary = read_summary(path)
        else:
            summary = {"status": "killed", **_configuration(path, number)}
        found[summary["config_hash"]] = {"job": number, "folder": path, **summary}
    if not found:
        raise DataError(
            f"run={folder} holds no jobs; give the folder of a sweep, such as outputs/bbvi/multirun/<date>."
        )
    return sorted(found.values(), key=lambda job: job["job"])


def _configuration(folder: Path, number: int) -> dict[str, Any]:
    """Return overrides and hash of a job that left no summary, from the configuration that it wrote when it began."""
    if not (folder / "config.yaml").exists():
        return {"overrides": [], "config_hash": f"job {number}"}
    config = read_config(folder)
    return {"overrides": config["overrides"], "config_hash": config_hash(config)}


def settings(job: dict[str, Any]) -> dict[str, str]:
    """Return a job's overrides by key, without those that change no number."""
    pairs = (text.lstrip("+~").partition("=")[::2] for text in job["overrides"])
    aside = names("identity", False)
    return {key: value for key, value in pairs if key.partition(".")[0] not in aside}


def swept_keys(jobs: list[dict[str, Any]]) -> list[str]:
    """Return the override keys whose values differ between jobs, in the order of the command line.

    Args:
        jobs: As `read_jobs` returns them.
    """
    every = [settings(job) for job in jobs]
    keys = list(dict.fromkeys(key for job in every for key in job))
    return [key for key in keys if len({job.get(key) for job in every}) > 1]


def row(job: dict[str, Any], keys: list[str]) -> dict[str, Any]:
    """Return a job's line of sweep.csv by column.

    Args:
        job: Its summary; one that failed has its error in place of results.
        keys: The swept keys, which have a column each.
    """
    chosen = settings(job)
    line: dict[str, Any] = {"job": job["job"], **{key: chosen.get(key, "") for key in keys}, "status": job["status"]}
    if "checks" not in job:
        return line | {"error": job.get("error", "")}
    checks = job["checks"]
    if "objective" in job:
        line |= {
            "objective": job["objective"]["mean"],
            "objective_se": job["objective"]["se"],
            "final": job["final"]["mean"],
        }
    noise = job.get("diagnostics", {}).get("gradient", {})
    line |= {f"gradient_sd_{when}": noise[when]["total"]["mean"] for when in ("start", "final") if when in noise}
    for name, estimate in job["estimates"].items():
        line |= {f"E[{name}]": estimate["mean"], f"E[{name}].se": estimate["se"]}
    line |= job.get("recovery", {}) | job.get("misfit", {})
    passed = sum(check["passed"] for check in checks)
    return line | {"checks_passed": passed, "checks": len(checks), "seconds": job["timing"]["total_s"]}


def table(jobs: list[dict[str, Any]], keys: list[str]) -> str:
    """Return sweep.csv: one line a job."""
    rows = [row(job, keys) for job in jobs]
    names = list(dict.fromkeys(name for line in rows for name in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def report(jobs: list[dict[str, Any]], keys: list[str]) -> str:
    """Return the sweep's table for the terminal."""
    rows = [row(job, keys) for job in jobs]
    noise = [name for name in ("gradient_sd_start", "gradient_sd_final") if any(name in line for line in rows)]
    names = ["job", *keys, "status", "objective", "final", *noise, "seconds"]
    lines = [names]
    for line in rows:
        cells = [line.get(name, "") for name in names]
        lines.append([f"{cell:.6g}" if isinstance(cell, float) else str(cell) for cell in cells])
    widths = [max(len(line[i]) for line in lines) for i in range(len(names))]
    shown = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join(["", *shown])


def rows_in(smoothing: int, curves: dict[str, list[Any]]) -> int:
    """Return how many rows of the coarsest trace the moving average covers."""
    intervals = [int(step[0]) for jobs in curves.values() for step, _ in jobs]
    return max(1, smoothing // max(intervals))


def bound_label(objectives: list[dict[str, Any]]) -> str:
    """Return the axis label of several runs' bounds, which need not be the same bound."""
    names = {objective["name"].upper() for objective in objectives}
    per = next((f" per {objective['per']}" for objective in objectives if objective["per"]), "")
    return (names.pop() if len(names) == 1 else "bound") + f"{per} (nats)"


def draw(folder: Path, jobs: list[dict[str, Any]], keys: list[str], cfg: DictConfig) -> list[Path]:
    """Draw the figures that apply to the sweep; return their paths."""
    from vi_core.plots.drawing.save import save

    if not keys:
        return []
    by = grouping(jobs, keys, cfg.plot.group_by)
    found = {
        "bound": overlay(jobs, by, cfg.plot.smoothing),
        "final": against_numbers(jobs, keys),
        "gradient_noise": gradient_noise(jobs, by),
    }
    return [save(drawn, folder / "plots" / f"{name}.{cfg.plot.format}") for name, drawn in found.items() if drawn]


def grouping(jobs: list[dict[str, Any]], keys: list[str], chosen: str | None) -> list[str]:
    """Return the swept keys whose values colour the figures: the chosen one; or all but the seed, or else the first.

    All are too many where their values make more groups than there are colours.
    """
    if chosen is not None:
        if chosen not in keys:
            hint = did_you_mean(chosen, keys)
            raise DataError(f"plot.group_by={chosen} was not swept.{hint} Swept: {', '.join(keys)}.")
        return [chosen]
    from vi_core.plots.drawing.style import PALETTE

    telling = [key for key in keys if key != "seed"]
    few = len({group(job, telling) for job in jobs}) <= len(PALETTE)
    return telling if telling and few else keys[:1]


def group(job: dict[str, Any], by: list[str]) -> str:
    """Return the group of a job: its values of the keys in `by`."""
    chosen = settings(job)
    return ", ".join(chosen.get(key, "default") for key in by)


def overlay(jobs: list[dict[str, Any]], by: list[str], smoothing: int) -> "Figure | None":
    """Return the bounds of all jobs that have a trace, in groups; None where none has."""
    from vi_core.plots.sweep import sweep_figure

    drawn = [job for job in jobs if "objective" in job and (job["folder"] / "trace.csv").exists()]
    if not drawn:
        return None
    curves: dict[str, list[Any]] = {}
    for job in drawn:
        trace = read_history(job["folder"] / "trace.csv")
        curves.setdefault(group(job, by), []).append((trace.step, trace.columns[trace.bound]))
    evidences = {job["final"]["log_evidence"] for job in drawn}
    shared = evidences.pop() if len(evidences) == 1 else None
    return sweep_figure(
        curves,
        name=bound_label([job["objective"] for job in drawn]),
        title=f"{drawn[0]['experiment']}: {len(drawn)} jobs",
        legend_title=", ".join(by),
        references={} if shared is None else {"log evidence": shared},
        window=rows_in(smoothing, curves),
    )


def gradient_noise(jobs: list[dict[str, Any]], by: list[str]) -> "Figure | None":
    """Return the noise of each latent's gradient, averaged over the jobs of a group; None where none was measured."""
    from vi_core.plots.gradient_noise import gradient_noise_figure

    measured: dict[str, list[Any]] = {}
    for job in (job for job in jobs if "gradient" in job.get("diagnostics", {})):
        measured.setdefault(group(job, by), []).append(job["diagnostics"]["gradient"])
    if not measured:
        return None
    groups = {
        label: {when: mean_of([one[when]["latents"] for one in every]) for when in ("start", "final")}
        for label, every in measured.items()
    }
    title = f"{jobs[0]['experiment']}: noise of each latent's gradient, unconstrained parameters"
    return gradient_noise_figure(groups, title=title, legend_title=", ".join(by))


def mean_of(tables: list[dict[str, float | None]]) -> dict[str, float]:
    """Average numbers by name over tables; NaN where one is missing."""
    numbers = [{name: float("nan") if value is None else value for name, value in table.items()} for table in tables]
    return {name: sum(table[name] for table in numbers) / len(numbers) for name in numbers[0]}


def against_numbers(jobs: list[dict[str, Any]], keys: list[str]) -> "Figure | None":
    """Return final bounds against the one swept number, with the dispersion of counts where jobs have it, else None."""
    from vi_core.plots.settings import settings_figure

    drawn = [job for job in jobs if "objective" in job]
    if len(keys) != 1 or len(drawn) < 3:
        return None
    try:
        numbers = np.array([float(settings(job)[keys[0]]) for job in drawn])
    except (KeyError, ValueError):
        return None
    dispersion = [job.get("misfit", {}).get("count_dispersion") for job in drawn]
    statistic = None if None in dispersion else ("variance of counts / Poisson's", np.array(dispersion, float), 1.0)
    return settings_figure(
        numbers,
        [np.array(job["final"]["values"], dtype=float) for job in drawn],
        name=f"{drawn[0]['final']['name'].upper()} (nats)",
        xlabel=keys[0],
        title=drawn[0]["experiment"],
        statistic=statistic,
    )
