"""One job: made from Hydra's configuration, run in its folder, noted where it failed.

Importing this module imports no torch, which `--help` can do without.
"""

import logging
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vi_core import own_parts
from vi_core.errors import ConfigError, LabError

from ..config.messages import lacks_memory, one_line
from ..config.places import PROGRAM, benchmark_module
from ..config.schema import config_hash
from .owner import forget_failure

log = logging.getLogger(__name__)
failures: list[str] = []  # jobs of this process that failed, and checks under strict=true
on_job_end: list[Callable[[], None]] = []  # called in this process after each job of a sweep
NEW_OBJECTS = 50_000  # between two looks for cycles of garbage: importing torch makes ten times as many
Summary = dict[str, Any]
FINISHED = ("completed", "converged")  # statuses of a job that is not to be done again
KINDS_OF_WORK = ("fit", "prior_predictive", "study")  # modules of this package, with a function of the same name


@dataclass
class Job:
    """A request for a run.

    Attributes:
        cfg: The settings as composed.
        folder: Where it writes its files.
        overrides: What the command line sets.
        swept: Keys that the experiment sweeps by itself.
        in_sweep: Whether it is one of several.
        resume: Whether it goes on with the run in its folder.
        batch: What it shared its training with, in a batched sweep.
    """

    cfg: DictConfig
    folder: Path
    overrides: list[str]
    swept: list[str]
    in_sweep: bool = False
    resume: bool = False
    batch: dict[str, Any] | None = None


def make_job(cfg: DictConfig, folder: Path) -> Job:
    """Return the job that Hydra's present configuration describes; the folder of `--config-dir` becomes known.

    Args:
        cfg: The settings as composed, without Hydra's own node.
        folder: Where the job writes its files.
    """
    context = HydraConfig.get()
    own_parts.know(Path(source.path) for source in context.runtime.config_sources if source.schema == "file")
    swept = list(context.sweeper.get("params") or {})
    overrides = cast(list[str], OmegaConf.to_container(context.overrides.task, resolve=False))
    return Job(cfg, relative(folder), overrides, swept, context.mode == RunMode.MULTIRUN)


def run_job(job: Job, work: Callable[[Job], Summary] | None = None) -> float:
    """Fit or compute; on an error record it beside the run and note the failure.

    Args:
        job: The request.
        work: What to do instead of what the experiment asks for; returns the summary.

    Returns:
        The objective that sweepers see; NaN for a job that failed.
    """
    if not job.resume:
        forget_failure(job.folder)
    try:
        result = (work or work_of(job))(job)
    except Exception as error:
        from .outcome import failed_summary

        sys.stderr.write(f"error: {one_line(error)}\n" if is_expected(error) else traceback.format_exc())
        failures.append(str(job.folder))
        failed_summary(job, error)
        return float("nan")
    missed = [check["name"] for check in result["checks"] if not check["passed"]] if job.cfg.strict else []
    if missed:
        of = len(result["checks"])
        sys.stderr.write(f"error: strict=true, and {len(missed)} of {of} checks failed: {missed[0]}\n")
    poor = job.cfg.strict and not result["checks"] and result.get("verdict", {}).get("trust") == "poor"
    if poor:
        sys.stderr.write("error: strict=true, and the verdict is DO NOT TRUST\n")
    if result["status"] == "diverged" or missed or poor:
        failures.append(str(job.folder))
    return objective(result)


def refused(folder: Path, error: Exception) -> float:
    """Say why a job of a sweep cannot run in its folder, and note the failure.

    Args:
        folder: Of the job, into which nothing is written.
        error: Why it may not be taken.

    Returns:
        NaN, the objective that a sweeper sees of a job that failed.
    """
    sys.stderr.write(f"error: {one_line(error)}\n")
    failures.append(str(folder))
    return float("nan")


def work_of(job: Job) -> Callable[[Job], Summary]:
    """Return what the job's experiment asks for: a fit, a study or the benchmark.

    Its module is imported here, and torch with it, so that `--help` and a refused command line do without.

    Raises:
        ConfigError: For the benchmark, where the program is installed as a package without it.
    """
    if job.cfg.benchmark is not None:
        return benchmark_module("task").benchmark
    kind = "study" if job.cfg.study is not None else job.cfg.task
    if kind not in KINDS_OF_WORK:
        raise ConfigError(f"task={kind} is none of {', '.join(KINDS_OF_WORK)} of a job.")
    return getattr(import_module(f"{PROGRAM}.run.{kind}"), kind)  # torch, once a job starts


def objective(result: Summary) -> float:
    """Return the final bound of a run, which sweepers need; NaN where it has none."""
    value = result.get("objective", {}).get("mean")
    return float("nan") if value is None else value


def is_expected(error: Exception) -> bool:
    """Whether an error is the user's to mend, and not a defect of the program."""
    return lacks_memory(error) or isinstance(error, (LabError, OmegaConfBaseException, OSError))


def take(earlier: dict[str, list[Summary]], config: dict[str, Any]) -> Summary | None:
    """Take the summary of a finished job with these settings out of `earlier`, and say so; None where none is left.

    Each finished job stands for one job of the sweep that goes on.
    """
    left = earlier.get(config_hash(config))
    if not left:
        return None
    other = left.pop(0)
    log.info("job %d is finished already: %s", other["job"], " ".join(other["overrides"]))
    return other


@cache
def earlier_jobs(folder: Path) -> dict[str, list[Summary]]:
    """Return the finished jobs of the sweep in `folder`, by the hash of their configuration, when this was first asked.

    What it returns is forgotten when another sweep begins.
    """
    from ..sweeps.collect import jobs_in

    found: dict[str, list[Summary]] = {}
    for job in jobs_in(folder):
        if job["status"] in FINISHED:
            found.setdefault(job["config_hash"], []).append(job)
    return found


def finished_job(job: Job) -> float | None:
    """Return the objective of a finished job of the same sweep with the same configuration, or None.

    Args:
        job: Of a sweep that goes on, in a folder beside those of the earlier jobs. Settings that cannot run have no
            finished job: running it says what is wrong.
    """
    from .settings import adapted

    try:
        config = adapted(job)
    except (LabError, OmegaConfBaseException):
        return None  # running the job will say what is wrong
    other = take(earlier_jobs(job.folder.parent.resolve()), config)
    return None if other is None else objective(other)


def relative(folder: Path) -> Path:
    """Return the folder as seen from here, if it lies below."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
