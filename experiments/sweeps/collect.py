"""`task=collect run=<sweep folder>`: a row a job in sweep.csv, a row a group of seeds in groups.csv, figures."""

import csv
import io
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig
from yaml import YAMLError

from vi_core.errors import DataError
from vi_core.storage.archive import read_config, read_summary
from vi_core.storage.reading import LOADER, check_yaml
from vi_core.training.history import read_history

from ..config.messages import one_line
from ..config.schema import config_hash
from ..results.files import write_text
from ..results.verdict_lines import WORDS
from ..run.jobs import FINISHED
from .differences import Job, beside, settings, settings_in, swept_keys, value_of, warnings
from .groups import aggregated, groups_of
from .race import at_equal_time

log = logging.getLogger(__name__)
MOST_BESIDE = 4  # columns on the terminal for what differs without having been swept; sweep.csv has all
MOST_LINES = 40  # of the table on the terminal
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
    others = beside([job["settings"] for job in jobs], keys)
    log.info("%s", report(jobs, keys, others))
    for line in warnings(jobs, keys, others):
        log.warning("WARNING %s", line)
    log.info("results %s", folder / "sweep.csv")
    if cfg.plot.enabled:
        from .figures import draw  # matplotlib, only where something is drawn

        for path in draw(folder, jobs, keys, cfg):
            log.info("figure  %s", path)
    return all(job["status"] in FINISHED for job in jobs)


def tabulate(folder: Path) -> tuple[list[Job], list[str]]:
    """Write sweep.csv, and groups.csv where jobs differ in their seed; return the sweep's jobs and the swept keys.

    Raises:
        DataError: Where there are no jobs.
    """
    jobs = read_jobs(folder)
    keys = swept_keys(jobs)
    race(jobs, keys)
    others = beside([job["settings"] for job in jobs], keys)
    write_text(folder / "sweep.csv", csv_text([row(job, keys, others) for job in jobs]))
    if lines := group_rows(jobs, keys, others):
        write_text(folder / "groups.csv", csv_text(lines))
    return jobs, keys


def read_jobs(folder: Path) -> list[Job]:
    """Return what `jobs_in` does, each with its `settings` by path; raise `DataError` where there are no jobs."""
    if not folder.is_dir():
        raise DataError(f"run={folder} is not a folder; give the folder of a sweep.")
    found = jobs_in(folder)
    if not found:
        raise DataError(
            f"run={folder} holds no jobs; give the folder of a sweep, such as outputs/bbvi/multirun/<date>."
        )
    return [job | {"settings": settings_in(job["folder"])} for job in found]


def jobs_in(folder: Path) -> list[Job]:
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


def row(job: Job, keys: list[str], others: list[str]) -> dict[str, Any]:
    """Return a job's line of sweep.csv by column.

    Args:
        job: Its summary; one that failed has its error in place of results.
        keys: The swept keys, which have a column each.
        others: Settings that differ without having been swept, likewise.
    """
    chosen = settings(job)
    line: dict[str, Any] = {"job": job["job"], **{key: chosen.get(key, "") for key in keys}}
    line |= {path: job["settings"].get(path, "") for path in others} | {"status": job["status"]}
    if "checks" not in job:
        return line | {"error": job.get("error", "")}
    checks = job["checks"]
    if bound := job.get("objective"):
        line |= {"objective": bound["mean"], "objective_se": bound["se"]}
        line |= {"final": job["final"]["mean"], "final_se": job["final"]["se"]}
    noise = job.get("diagnostics", {}).get("gradient", {})
    line |= {f"gradient_sd_{when}": noise[when]["total"]["mean"] for when in ("start", "final") if when in noise}
    for when in ("start", "final"):
        networks = noise.get(when, {}).get("networks", {})
        line |= {f"gradient_sd_{when}[{name}]": value for name, value in networks.items()}
    for name, estimate in job["estimates"].items():
        line |= {f"E[{name}]": estimate["mean"], f"E[{name}].mc_error": estimate["mc_error"]}
        line |= {f"sd[{name}]": estimate["sd"]} if "sd" in estimate else {}
    line |= job.get("recovery", {}) | job.get("misfit", {})
    if bound:
        trust = (job.get("verdict") or {}).get("trust")
        line |= {"log_evidence": job["final"]["log_evidence"], "verdict": WORDS.get(trust or "", "")}
    line |= job.get("race", {})
    passed = sum(check["passed"] for check in checks)
    return line | {"checks_passed": passed, "checks": len(checks), "seconds": job["timing"]["total_s"]}


def race(jobs: list[Job], keys: list[str]) -> None:
    """Note what jobs had reached at equal time, where estimators or optimizers were swept and traces can be read."""
    raced = [job for job in jobs if "objective" in job]
    if not {"estimator", "optimizer"} & set(keys) or len({job["data"]["checksum"] for job in raced}) != 1:
        return
    with suppress(*UNREADABLE):
        traces = [read_history(job["folder"] / "trace.csv") for job in raced]
        for job, line in zip(raced, at_equal_time(raced, traces), strict=True):
            job["race"] = line


def group_rows(jobs: list[Job], keys: list[str], others: list[str]) -> list[dict[str, Any]]:
    """Return the lines of groups.csv; none where every group would be one job."""
    groups = groups_of(jobs, keys)
    if len(groups) == len(jobs):
        return []
    return [aggregated(group, [row(job, keys, others) for job in group.jobs], others) for group in groups]


def csv_text(rows: list[dict[str, Any]]) -> str:
    """Return lines as the text of a CSV file, with the columns that one of them has."""
    names = list(dict.fromkeys(name for line in rows for name in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def report(jobs: list[Job], keys: list[str], others: list[str]) -> str:
    """Return the sweep's table for the terminal, with what there is to say of it; the arguments are `table_lines`'s."""
    lines, hidden = table_lines(jobs, keys, others), len(others) - MOST_BESIDE
    left = len(lines) - 1 - MOST_LINES
    more = [f"... and {left} more lines, in the file"] if left > 0 else []
    note = [f"{hidden} more settings differ without having been swept, in sweep.csv"] if hidden > 0 else []
    over = "seeds" if lines[0][0] == "jobs" else "replicates"
    errors = [f"± is the standard error over {over}"] if any(" ± " in cell for line in lines for cell in line) else []
    return "\n".join(["", text_table(lines[: MOST_LINES + 1]), *more, *errors, *note])


def table_lines(jobs: list[Job], keys: list[str], others: list[str]) -> list[list[str]]:
    """Return the cells of a sweep's table, its head first: a line a job, or a group of seeds where there are several.

    Args:
        jobs: As `read_jobs` returns them.
        keys: The swept keys.
        others: Settings that differ without having been swept.
    """
    single = [row(job, keys, others) | {key: value_of(job, key) for key in keys} for job in jobs]
    grouped = group_rows(jobs, keys, others)
    rows, errors = (grouped, "{}.se") if grouped else (single, "{}_se")
    noise = ("gradient_sd_start", "gradient_sd_final")
    own = [key for key in keys if not grouped or key != "seed"]
    names = ["jobs" if grouped else "job", *own, *others[:MOST_BESIDE], "status"]
    raced = ("error", "error_in_time")
    numbers = [name for name in ("objective", "final", *noise, *raced, "seconds") if any(name in line for line in rows)]
    lines = [[*names, *numbers]]
    for line in rows:
        found = {name: None if name == "seconds" else line.get(errors.format(name)) for name in numbers}
        cells = [value_and_error(line.get(name, ""), found[name]) for name in numbers]
        lines.append([*(str(line.get(name, "")) for name in names), *cells])
    return lines


def text_table(lines: list[list[str]]) -> str:
    """Return cells as a text with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def value_and_error(value: Any, error: Any) -> str:
    """Return a cell with a number of six digits and, where it has one, its standard error."""
    text = f"{value:.6g}" if isinstance(value, float) else "" if value is None else str(value)
    return f"{text} ± {error:.2g}" if isinstance(error, float) and text else text
