"""The command line: arguments in, exit code out.

Hydra composes the configuration and calls `job` once for each run of a sweep. Tasks that work on a finished folder,
and `resume=`, compose without Hydra's run folder, so that nothing new is created for them. Errors for the user are one
line; anything else is a defect and keeps its traceback. Torch is imported when a job starts, never for `--help`.
"""

import argparse
import logging
import os
import re
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from vi_core.errors import ConfigError, LabError, did_you_mean

from . import schema
from .messages import configuration_groups, one_line

PACKAGE = (__package__ or "experiments").rpartition(".experiments")[0]
CONFIG_MODULE = f"{PACKAGE}.conf" if PACKAGE else "conf"
TASKS = ("fit", "plot", "collect", "report", "reproduce", "docs_figures", "docs_benchmarks")
TASKS_WITHOUT_FOLDER = ("reproduce", "docs_figures")
log = logging.getLogger(__name__)
failures: list[str] = []
"""Jobs of this process that failed, and checks under strict=true."""


def main() -> None:
    """Run the program on `sys.argv` and exit: 0, 1 for an error, 130 for Ctrl-C, 143 for SIGTERM."""
    argparse.ArgumentParser.error = _refuse  # type: ignore[method-assign]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions through to here
    schema.register()
    OmegaConf.register_new_resolver("collector", lambda: f"{__package__}.callback.Collect", replace=True)
    OmegaConf.register_new_resolver("after", lambda number, last: int(number) + int(last) + 1, replace=True)
    try:
        dispatch(sys.argv[1:])
    except (LabError, HydraException, OmegaConfBaseException, OSError, YAMLError) as error:
        sys.exit(f"error: {one_line(error)}")
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(1 if failures else 0)


def _refuse(self: argparse.ArgumentParser, message: str) -> NoReturn:
    """Say in one line what Hydra's parser of options would say in twenty."""
    raise ConfigError(f"{message}; see --help.")


def dispatch(arguments: list[str]) -> None:
    """Choose between a job or sweep under Hydra and a task on a finished folder."""
    overrides = [a for a in arguments if is_override(a)]
    given = {a.partition("=")[0]: a.partition("=")[2] for a in overrides}
    if "" in given:
        raise ConfigError(f"={given['']} has no key; write key=value.")
    empty = [key for key in ("resume", "run", "sweep.resume") if given.get(key) == ""]
    if empty:
        raise ConfigError(f"{empty[0]}= is empty; give the folder of a run.")
    absent = [key for key in configuration_groups() if given.get(key) in ("", "null")]
    if absent:
        raise ConfigError(f"{absent[0]}={given[absent[0]]} names nothing; choose one with {absent[0]}=<name>.")
    task = given.get("task", "fit")
    if task not in TASKS:
        raise ConfigError(f"task={task} must be one of {', '.join(TASKS)}.{did_you_mean(task, TASKS)}")
    if task in TASKS_WITHOUT_FOLDER:
        reproduce(task, overrides)
    elif task != "fit":
        on_folder(task, overrides)
    elif given.get("resume", "null") != "null":
        resume(Path(given["resume"]), [a for a in overrides if not a.startswith("resume=")])
    else:
        if given.get("sweep.resume", "null") != "null":
            overrides += resumed_sweep(Path(given["sweep.resume"]))
        options = [a for a in arguments if not is_override(a)]
        sys.argv[1:] = options + overrides  # argparse wants them in this order
        compose_and_run()


def is_override(argument: str) -> bool:
    """Whether an argument sets something of the configuration, rather than an option of Hydra's."""
    return not argument.startswith("-") and ("=" in argument or argument.startswith("~"))


def compose_and_run() -> None:
    """Let Hydra compose and call the job; what it raises itself for malformed input becomes one line."""
    try:
        under_hydra()
    except (ValueError, AssertionError) as error:
        raise ConfigError(one_line(error)) from error


@hydra.main(version_base="1.3", config_path=f"pkg://{CONFIG_MODULE}", config_name="config")
def under_hydra(cfg: DictConfig) -> float:
    """Run one job in the folder that Hydra made for it; return its objective, NaN if it failed."""
    from .tasks.fit import Job

    context = HydraConfig.get()
    folder = Path(context.runtime.output_dir)
    swept = list(context.sweeper.get("params") or {})
    in_sweep = context.mode == RunMode.MULTIRUN
    overrides = cast(list[str], OmegaConf.to_container(context.overrides.task, resolve=False))
    job = Job(cfg, relative(folder), overrides, swept, in_sweep)
    found = finished_job(job) if in_sweep and cfg.sweep.resume else None
    if found is None:
        return run_job(job)
    logging.shutdown()
    shutil.rmtree(folder)
    return found


def run_job(job: Any) -> float:
    """Fit or compute; on an error record it beside the run, note the failure, and return NaN: a sweep goes on."""
    from .tasks.fit import failed_summary

    try:
        result = work_of(job)(job)
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
        from .tasks.benchmark import benchmark

        return benchmark
    if job.cfg.study is not None:
        from .tasks.study import study

        return study
    from .tasks.fit import fit

    return fit


def objective(result: dict[str, Any]) -> float:
    """Return the final bound of a run, which sweepers need; NaN where it has none."""
    value = result.get("objective", {}).get("mean")
    return float("nan") if value is None else value


def is_expected(error: Exception) -> bool:
    """Whether an error is the user's to mend, and not a defect of the program."""
    memory = isinstance(error, RuntimeError) and re.search("not enough memory|out of memory|allocate", str(error))
    return bool(memory) or isinstance(error, (LabError, OmegaConfBaseException, OSError, MemoryError))


def resume(folder: Path, arguments: list[str]) -> None:
    """Go on with an interrupted run, in its own folder and with its own settings."""
    path = folder / "config.yaml"
    if not path.is_file():
        raise LabError(f"resume={folder} is not the folder of a run: there is no config.yaml in it.")
    from .tasks.fit import Job

    fixed = {*configuration_groups(), "seed", "dtype", "replicates", "name", "parts", "overrides"}
    whole = [a.partition("=")[0] for a in arguments if a.partition("=")[0] in fixed]
    if whole:
        raise ConfigError(f"{whole[0]}= cannot change when a run is resumed; trainer.steps= or optimizer.lr= can.")
    saved = OmegaConf.merge(OmegaConf.structured(schema.Root), OmegaConf.load(path))
    OmegaConf.set_struct(saved, True)
    cfg = OmegaConf.merge(saved, OmegaConf.from_dotlist(arguments))
    assert isinstance(cfg, DictConfig)
    start_log(folder / "run.log")
    run_job(Job(cfg, folder, [*cfg.overrides, *arguments], [], resume=True))


def on_folder(task: str, arguments: list[str]) -> None:
    """Run a task on the finished run or sweep that `run=` names."""
    with hydra.initialize_config_module(CONFIG_MODULE, version_base="1.3"):
        cfg = hydra.compose("config", arguments, return_hydra_config=False)
    if cfg.run is None:
        raise ConfigError(f"task={task} needs a folder: run=<folder>.")
    start_log(None)
    if task == "plot":
        from .tasks.plot import run

        run(cfg, Path(cfg.run))
    elif task == "report":
        from .tasks.report import run

        run(Path(cfg.run))
    elif task == "docs_benchmarks":
        from .tasks.docs_benchmarks import run

        run(Path(cfg.run))
    else:
        from .tasks.collect import run as collect

        if not collect(cfg, Path(cfg.run)):
            failures.append(cfg.run)


def reproduce(task: str, arguments: list[str]) -> None:
    """Run the experiments of the report page; what is no setting of the task itself goes to those that know it."""
    own = [a for a in arguments if a.partition("=")[0].split(".")[0] in ("task", "run", "fidelity", "reproduce")]
    with hydra.initialize_config_module(CONFIG_MODULE, version_base="1.3"):
        cfg = hydra.compose("config", own)
    start_log(None)
    from .tasks import docs_figures
    from .tasks import reproduce as page

    run = page.run if task == "reproduce" else docs_figures.run
    if not run(cfg, [a for a in arguments if a not in own], CONFIG_MODULE):
        failures.append(task)


def resumed_sweep(folder: Path) -> list[str]:
    """Return the overrides that put a sweep's new jobs into its old folder, after the old ones."""
    if not folder.is_dir():
        raise ConfigError(f"sweep.resume={folder} is not a folder; give the folder of an earlier sweep.")
    last = max((int(path.name) for path in folder.iterdir() if path.name.isdigit()), default=-1)
    return [f"hydra.sweep.dir={folder}", f"hydra.sweep.subdir='${{after:${{hydra.job.num}},{last}}}'"]


def finished_job(job: Any) -> float | None:
    """Return the objective of a finished job of the same sweep with the same configuration, or None."""
    from .identity import config_hash
    from .tasks.collect import FINISHED, read_jobs
    from .tasks.fit import drop_foreign_settings
    from .tasks.study import drop_parts
    from .validate import plain

    try:
        drop_foreign_settings(job) if job.cfg.study is None else drop_parts(job)
        wanted = config_hash(plain(job.cfg))
    except (LabError, OmegaConfBaseException):
        return None  # running the job will say what is wrong
    for other in read_jobs(job.folder.parent):
        if other["config_hash"] == wanted and other["status"] in FINISHED:
            log.info("job %d is finished already: %s", other["job"], " ".join(other["overrides"]))
            return objective(other)
    return None


def relative(folder: Path) -> Path:
    """Return the folder as seen from here, if it lies below."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def start_log(path: Path | None) -> None:
    """Log plain lines to standard output, and to a file, as Hydra does for its jobs."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout)]
    if path is not None:
        handlers.append(logging.FileHandler(path))
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=handlers, force=True)
