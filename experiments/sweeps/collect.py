"""`task=collect run=<sweep folder>`: one row a job in sweep.csv; bounds, final values and gradient noise in figures."""

import csv
import io
import logging
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from omegaconf import DictConfig
from yaml import YAMLError

from vi_core.archive import read_config, read_summary
from vi_core.errors import DataError, did_you_mean
from vi_core.reading import LOADER, check_yaml
from vi_core.training.history import History, read_history

from ..config.messages import one_line
from ..config.schema import config_hash, names
from ..results import methods
from ..results.drawing import drawing, write
from ..results.files import write_text
from ..results.posteriors import beside

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)
FINISHED = ("completed", "converged")
COMPOSED = "composed "  # begins the hash of settings in which references are left
UNREADABLE = (DataError, OSError, YAMLError, RecursionError, KeyError, TypeError, AttributeError, ValueError)
"""What reading a damaged file of a job raises."""


def run(cfg: DictConfig, folder: Path) -> bool:
    """Write sweep.csv and the figures of the sweep in `folder`; return whether every job finished.

    Args:
        cfg: Settings of the present command, of which it takes the node `plot`.
        folder: Of the sweep, in which each job has a folder by its number.

    Raises:
        DataError: Where there are no jobs, or plot.group_by names a key that was not swept.
    """
    jobs, keys = tabulate(folder)
    log.info("%s", report(jobs, keys))
    log.info("results %s", folder / "sweep.csv")
    if cfg.plot.enabled:
        for path in draw(folder, jobs, keys, cfg):
            log.info("figure  %s", path)
    return all(job["status"] in FINISHED for job in jobs)


def tabulate(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Write sweep.csv; return the sweep's jobs and the swept keys. Raises `DataError` where there are no jobs."""
    jobs = read_jobs(folder)
    keys = swept_keys(jobs)
    write_text(folder / "sweep.csv", table(jobs, keys))
    return jobs, keys


def read_jobs(folder: Path) -> list[dict[str, Any]]:
    """Return what `jobs_in` does; raise `DataError` where the folder holds no jobs."""
    if not folder.is_dir():
        raise DataError(f"run={folder} is not a folder; give the folder of a sweep.")
    found = jobs_in(folder)
    if not found:
        raise DataError(
            f"run={folder} holds no jobs; give the folder of a sweep, such as outputs/bbvi/multirun/<date>."
        )
    return found


def jobs_in(folder: Path) -> list[dict[str, Any]]:
    """Return the summaries of a sweep's jobs in their order.

    A job that did not finish, and was redone when the sweep went on, counts once, the last time.

    Returns:
        For each job the content of its summary.json, with its number as `job` and its `folder`. One that left no
        summary has the status `killed`, one whose summary cannot be read `damaged`.
    """
    found: list[dict[str, Any]] = []
    for job in (job for number, path in numbered(folder) if (job := read_job(number, path)) is not None):
        if (redone := next((other for other in found if is_redone(other, job)), None)) is not None:
            found.remove(redone)
        found.append(job)
    return found


def numbered(folder: Path) -> list[tuple[int, Path]]:
    """Return the folders of a sweep's jobs, whose names are numbers, in their order."""
    named = [path for path in folder.iterdir() if path.is_dir() and path.name.isdigit()]
    for path in named:
        if not path.name.isascii():
            log.warning("%s is left out: the folder of a job is called 0, 1, 2, ...", path)
    return sorted((int(path.name), path) for path in named if path.name.isascii())


def read_job(number: int, folder: Path) -> dict[str, Any] | None:
    """Return one job as `jobs_in` does; None for one that was killed before Hydra had written what it is."""
    job: dict[str, Any] = {"job": number, "folder": folder}
    if not (folder / "summary.json").exists():
        begun = read_begun(folder)
        return begun and job | {"status": "killed"} | begun
    try:
        return job | read_summary(folder)
    except (DataError, OSError, RecursionError) as error:
        log.warning("%s", one_line(error))
        unknown = {"overrides": [], "config_hash": f"job {number}"}
        return job | {"status": "damaged", "error": one_line(error)} | (read_begun(folder) or unknown)


def read_begun(folder: Path) -> dict[str, Any] | None:
    """Return overrides and hash of a job from what was written when it began; None where that cannot be read.

    Before the job itself, Hydra writes settings in which references are left. Their hash compares with no other.
    """
    with suppress(*UNREADABLE):
        config = read_config(folder)
        return {"overrides": list(config["overrides"]), "config_hash": config_hash(config)}
    with suppress(*UNREADABLE):
        return {"overrides": [*map(str, plain_yaml(folder, "overrides"))], "config_hash": composed_hash(folder)}
    return None


def is_redone(job: dict[str, Any], later: dict[str, Any]) -> bool:
    """Whether a job that did not finish has the settings of a later one, of another start of the sweep.

    Args:
        job: Of the earlier number. Where only Hydra's files are left of it, their hashes are compared.
        later: Of the later number; two jobs of one start may have the same settings, and are both kept.
    """
    if job["status"] in FINISHED:
        return False
    known = job["config_hash"]
    other = composed_hash(later["folder"]) if known.startswith(COMPOSED) else later["config_hash"]
    return known == other and start_of(job) != start_of(later)


def composed_hash(folder: Path) -> str:
    """Return the hash of the settings of a job as Hydra wrote them, or what equals no other where they are missing."""
    with suppress(*UNREADABLE):
        return COMPOSED + config_hash(plain_yaml(folder, "config"))
    return f"{COMPOSED}{folder}"


def start_of(job: dict[str, Any]) -> int | None:
    """Return the number of the first job that was begun when this one was, by one process; None if not known."""
    with suppress(*UNREADABLE):
        return job["job"] - plain_yaml(job["folder"], "hydra")["hydra"]["job"]["num"]
    return None


def plain_yaml(folder: Path, name: str) -> Any:
    """Return what Hydra wrote to a file when a job began."""
    return yaml.load(check_yaml(folder / ".hydra" / f"{name}.yaml"), LOADER)


def settings(job: dict[str, Any]) -> dict[str, str]:
    """Return a job's overrides by key, without those that change no number: where it writes, what it draws."""
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
    if bound := job.get("objective"):
        line |= {"objective": bound["mean"], "objective_se": bound["se"], "final": job["final"]["mean"]}
    noise = job.get("diagnostics", {}).get("gradient", {})
    line |= {f"gradient_sd_{when}": noise[when]["total"]["mean"] for when in ("start", "final") if when in noise}
    for name, estimate in job["estimates"].items():
        line |= {f"E[{name}]": estimate["mean"], f"E[{name}].mc_error": estimate["mc_error"]}
        line |= {f"sd[{name}]": estimate["sd"]} if "sd" in estimate else {}
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
    cells = ([line.get(name, "") for name in names] for line in rows)
    lines = [names, *([f"{x:.6g}" if isinstance(x, float) else str(x) for x in line] for line in cells)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(["", *("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)])


def bound_label(objectives: list[dict[str, Any]]) -> str:
    """Return the axis label of several runs' bounds, which need not be the same bound."""
    names = {objective["name"].upper() for objective in objectives}
    per = next((f" per {objective['per']}" for objective in objectives if objective["per"]), "")
    return (names.pop() if len(names) == 1 else "bound") + f"{per} (nats)"


def draw(folder: Path, jobs: list[dict[str, Any]], keys: list[str], cfg: DictConfig) -> list[Path]:
    """Draw the figures that apply to the sweep; return their paths."""
    if not keys:
        return []
    with drawing(cfg.plot):
        return write(made(jobs, keys, cfg.plot), folder / "plots", cfg.plot)


def made(jobs: list[dict[str, Any]], keys: list[str], plot: Any) -> "list[tuple[str, Figure]]":
    """Return name and figure of all that apply to the sweep."""
    by = grouping(jobs, keys, plot.group_by)
    found = {
        "bound": overlay(jobs, by, plot.smoothing),
        "final": against_numbers(jobs, keys),
        "gradient_noise": gradient_noise(jobs, by),
        "posterior": marginals(jobs, by),
        **side_by_side(jobs, by, plot),
    }
    return [(name, figure) for name, figure in found.items() if figure]


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
    """Return the bounds of all jobs that have a trace, in groups; None where none has.

    Args:
        jobs: As `read_jobs` returns them.
        by: The keys whose values make a group.
        smoothing: Window of the moving average, in steps.
    """
    from vi_core.plots.sweep import sweep_figure

    traced = [(job, trace) for job in jobs if "objective" in job and (trace := trace_of(job["folder"]))]
    if not traced:
        return None
    curves: dict[str, list[Any]] = {}
    for job, trace in traced:
        curves.setdefault(group(job, by), []).append((trace.step, trace.columns[trace.bound]))
    drawn, coarsest = [job for job, _ in traced], max(int(trace.step[0]) for _, trace in traced)
    evidences = {job["final"]["log_evidence"] for job in drawn}
    shared = evidences.pop() if len(evidences) == 1 else None
    return sweep_figure(
        curves,
        name=bound_label([job["objective"] for job in drawn]),
        title=f"{drawn[0]['experiment']}: {len(drawn)} jobs",
        legend_title=", ".join(by),
        references={} if shared is None else {"log evidence": shared},
        window=max(1, smoothing // coarsest),
    )


def marginals(jobs: list[dict[str, Any]], by: list[str]) -> "Figure | None":
    """Return the marginals of one job of each group beside the exact posterior, where all have the same one."""
    groups: dict[str, list[Path]] = {}
    for job in jobs:
        if any(row.get("exact_sd") for row in job.get("estimates", {}).values()) and job["status"] in FINISHED:
            groups.setdefault(group(job, by), []).append(job["folder"])
    return beside(groups, f"{jobs[0]['experiment']}: q of the groups beside the exact posterior")


def side_by_side(jobs: list[dict[str, Any]], by: list[str], plot: Any) -> "dict[str, Figure]":
    """Return the figures of jobs that solve one problem by several methods."""
    groups: dict[str, list[Any]] = {}
    for job in jobs:
        if job["status"] in FINISHED and "objective" in job and (trace := trace_of(job["folder"])):
            groups.setdefault(group(job, by), []).append((job, trace))
    look = {"first": plot.steps, "smoothing": plot.smoothing}
    return methods.figures(groups, title=jobs[0]["experiment"], by=", ".join(by), **look)


def trace_of(folder: Path) -> History | None:
    """Return what a job recorded; None where there is no trace, or one that cannot be read, which is said."""
    try:
        return read_history(folder / "trace.csv") if (folder / "trace.csv").exists() else None
    except (DataError, OSError, ValueError) as error:
        log.warning("%s", one_line(error))
        return None


def gradient_noise(jobs: list[dict[str, Any]], by: list[str]) -> "Figure | None":
    """Return the noise of each latent's gradient, averaged over the jobs of a group; None where none was measured."""
    from vi_core.plots.sweep import gradient_noise_figure

    measured: dict[str, list[Any]] = {}
    for job in jobs:
        if noise := job.get("diagnostics", {}).get("gradient"):
            measured.setdefault(group(job, by), []).append(noise)
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
    from vi_core.plots.sweep import settings_figure

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
