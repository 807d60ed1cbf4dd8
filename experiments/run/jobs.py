"""One job: made from Hydra's configuration, run in its folder, noted where it failed."""

import logging
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vi_core.errors import LabError

from ..config.messages import one_line
from ..config.places import benchmark_module

log = logging.getLogger(__name__)
failures: list[str] = []
"""Jobs of this process that failed, and checks under strict=true."""


def make_job(cfg: DictConfig, folder: Path) -> Any:
    """Return the job that Hydra's present configuration describes."""
    from .fit import Job

    context = HydraConfig.get()
    swept = list(context.sweeper.get("params") or {})
    overrides = cast(list[str], OmegaConf.to_container(context.overrides.task, resolve=False))
    return Job(cfg, relative(folder), overrides, swept, context.mode == RunMode.MULTIRUN)


def run_job(job: Any, work: Callable[[Any], dict[str, Any]] | None = None) -> float:
    """Fit or compute, or do other `work`; on an error record it beside the run, note the failure, and return NaN."""
    from .fit import failed_summary

    try:
        result = (work or work_of(job))(job)
    except Exception as error:
        sys.stderr.write(f"error: {one_line(error)}\n" if is_expected(error) else traceback.format_exc())
        failures.append(str(job.folder))
        failed_summary(job, error)
        return float("nan")
    missed = [check["name"] for check in result["checks"] if not check["passed"]]
    if job.cfg.strict and missed:
        sys.stderr.write(
            f"error: strict=true, and {len(missed)} of {len(result['checks'])} checks failed: {missed[0]}\n"
        )
    if result["status"] == "diverged" or (job.cfg.strict and missed):
        failures.append(str(job.folder))
    return objective(result)


def work_of(job: Any) -> Callable[[Any], dict[str, Any]]:
    """Return what the job's experiment asks for: a fit, a study or the benchmark."""
    if job.cfg.benchmark is not None:
        return benchmark_module("task").benchmark
    if job.cfg.study is not None:
        from .study import study

        return study
    from .fit import fit

    return fit


def objective(result: dict[str, Any]) -> float:
    """Return the final bound of a run, which sweepers need; NaN where it has none."""
    value = result.get("objective", {}).get("mean")
    return float("nan") if value is None else value


def is_expected(error: Exception) -> bool:
    """Whether an error is the user's to mend, and not a defect of the program."""
    memory = isinstance(error, RuntimeError) and re.search("not enough memory|out of memory|allocate", str(error))
    return bool(memory) or isinstance(error, (LabError, OmegaConfBaseException, OSError, MemoryError))


def finished_job(job: Any) -> float | None:
    """Return the objective of a finished job of the same sweep with the same configuration, or None."""
    from ..config.identity import config_hash
    from ..config.validate import plain
    from .fit import drop_foreign_settings
    from .study import drop_parts

    try:
        drop_foreign_settings(job) if job.cfg.study is None else drop_parts(job)
        wanted = config_hash(plain(job.cfg))
    except (LabError, OmegaConfBaseException):
        return None  # running the job will say what is wrong
    other = finished_jobs(job.folder.parent).get(wanted)
    if other is None:
        return None
    log.info("job %d is finished already: %s", other["job"], " ".join(other["overrides"]))
    return objective(other)


def finished_jobs(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the summaries of a sweep's finished jobs by the hash of their configuration."""
    from ..sweeps.collect import FINISHED, read_jobs

    return {job["config_hash"]: job for job in read_jobs(folder) if job["status"] in FINISHED}


def relative(folder: Path) -> Path:
    """Return the folder as seen from here, if it lies below."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
