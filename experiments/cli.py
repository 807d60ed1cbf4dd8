"""The command line: arguments in, exit code out.

Hydra composes the configuration and calls `job` once for each run of a sweep. Tasks that work on a finished folder,
and `resume=`, compose without Hydra's run folder, so that nothing new is created for them. Errors for the user are one
line; anything else is a defect and keeps its traceback. Torch is imported when a job starts, never for `--help`.
"""

import atexit
import gc
import logging
import shutil
import sys
from importlib import import_module
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from vi_core import own_parts
from vi_core.errors import ConfigError, LabError, did_you_mean
from vi_core.reading import read_yaml

from .config import hydra_adapter, schema
from .config.messages import configuration_groups, one_line
from .config.places import CONF, PROGRAM
from .run.jobs import Job, failures, finished_job, make_job, run_job

TASKS_ON_FOLDER = {
    "plot": "results.plot", "collect": "sweeps.collect", "report": "report.single", "docs_benchmarks": "benchmark.docs"
}  # fmt: skip
"""Tasks on a finished folder, and their modules, which are imported only where they are asked for."""
TASKS_WITHOUT_FOLDER = ("reproduce", "docs_figures")
TASKS = ("fit", *TASKS_ON_FOLDER, *TASKS_WITHOUT_FOLDER)
NEW_OBJECTS = 50_000  # between two looks for cycles of garbage: importing torch makes ten times as many


def main() -> None:
    """Run the program on `sys.argv` and exit: 0, 1 for an error, 130 for Ctrl-C, 143 for SIGTERM."""
    gc.set_threshold(NEW_OBJECTS)
    atexit.register(gc.freeze)  # or Python looks through all that torch has made, several times, when it ends
    hydra_adapter.install()
    try:
        dispatch(sys.argv[1:])
    except (LabError, HydraException, OmegaConfBaseException, OSError, YAMLError) as error:
        sys.exit(f"error: {one_line(error)}")
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(1 if failures else 0)


def dispatch(arguments: list[str]) -> None:
    """Choose between a job or sweep under Hydra and a task on a finished folder."""
    overrides = [a for a in arguments if is_override(a)]
    options = [a for a in arguments if not is_override(a)]
    own_parts.know(hydra_adapter.own_folder(options))
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
    if task == "fit" and "fidelity" in given:
        example = f"task=reproduce fidelity={given['fidelity']} 'reproduce.only=[{given.get('experiment', 'bbvi')}]'"
        raise ConfigError(f"fidelity={given['fidelity']} changes nothing of a single run; use {example}.")
    if task in TASKS_WITHOUT_FOLDER:
        reproduce(task, overrides)
    elif task != "fit":
        on_folder(task, overrides)
    elif given.get("resume", "null") != "null":
        resume(Path(given["resume"]), [a for a in overrides if not a.startswith("resume=")], options)
    else:
        if given.get("sweep.resume", "null") != "null":
            overrides += resumed_sweep(Path(given["sweep.resume"]))
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


@hydra.main(version_base="1.3", config_path=f"pkg://{CONF}", config_name="config")
def under_hydra(cfg: DictConfig) -> float:
    """Run one job in the folder that Hydra made for it; return its objective, NaN if it failed."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    job = make_job(cfg, folder)
    found = finished_job(job) if job.in_sweep and cfg.sweep.resume else None
    if found is None:
        return run_job(job)
    logging.shutdown()
    shutil.rmtree(folder)
    return found


def resume(folder: Path, arguments: list[str], options: list[str]) -> None:
    """Go on with an interrupted run, in its own folder and with its own settings."""
    path = folder / "config.yaml"
    if not path.is_file():
        raise LabError(f"resume={folder} is not the folder of a run: there is no config.yaml in it.")
    from vi_core.archive import read_config

    fixed = {*configuration_groups(), *schema.names("resume", False)} - schema.names("resume")
    whole = [a.partition("=")[0] for a in arguments if a.partition("=")[0] in fixed]
    if whole:
        raise ConfigError(f"{whole[0]}= cannot change when a run is resumed; trainer.steps= or optimizer.lr= can.")
    saved = OmegaConf.merge(OmegaConf.structured(schema.Root), OmegaConf.create(read_config(folder)))
    OmegaConf.set_struct(saved, True)
    chosen = [a for a in arguments if a.startswith("callback=")]
    cfg = OmegaConf.merge(saved, OmegaConf.from_dotlist([a for a in arguments if a not in chosen]))
    assert isinstance(cfg, DictConfig)
    if chosen:
        cfg.callbacks = hydra_adapter.chosen_callbacks(chosen, options)
    start_log(folder / "run.log")
    run_job(Job(cfg, folder, [*cfg.overrides, *arguments], swept_by_experiment(folder), resume=True))


def swept_by_experiment(folder: Path) -> list[str]:
    """Return the keys that the experiment of a run sweeps by itself, from what Hydra wrote when the run began."""
    path = folder / ".hydra" / "hydra.yaml"
    params = OmegaConf.select(OmegaConf.create(read_yaml(path)), "hydra.sweeper.params") if path.is_file() else None
    return list(params or {}) if OmegaConf.is_dict(params) else []


def on_folder(task: str, arguments: list[str]) -> None:
    """Run a task on the finished run or sweep that `run=` names."""
    with hydra.initialize_config_module(CONF, version_base="1.3"):
        cfg = hydra.compose("config", arguments, return_hydra_config=False)
    if cfg.run is None:
        raise ConfigError(f"task={task} needs a folder: run=<folder>.")
    start_log(None)
    run = import_module(f"{PROGRAM}.{TASKS_ON_FOLDER[task]}").run
    if run(cfg, Path(cfg.run)) is False:
        failures.append(cfg.run)


def reproduce(task: str, arguments: list[str]) -> None:
    """Run the experiments of the report page; what is no setting of the task itself goes to those that know it."""
    own = [a for a in arguments if a.partition("=")[0].split(".")[0] in ("task", "run", "fidelity", "reproduce")]
    with hydra.initialize_config_module(CONF, version_base="1.3"):
        cfg = hydra.compose("config", own)
    start_log(None)
    from .report import docs_figures
    from .report import reproduce as page

    run = page.run if task == "reproduce" else docs_figures.run
    if not run(cfg, [a for a in arguments if a not in own], main):
        failures.append(task)


def resumed_sweep(folder: Path) -> list[str]:
    """Return the overrides that put a sweep's new jobs into its old folder, after the old ones."""
    if not folder.is_dir():
        raise ConfigError(f"sweep.resume={folder} is not a folder; give the folder of an earlier sweep.")
    last = max((int(path.name) for path in folder.iterdir() if path.name.isdigit()), default=-1)
    return [f"hydra.sweep.dir={folder}", f"hydra.sweep.subdir='${{after:${{hydra.job.num}},{last}}}'"]


def start_log(path: Path | None) -> None:
    """Log plain lines to standard output, and to a file, as Hydra does for its jobs."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout)]
    if path is not None:
        handlers.append(logging.FileHandler(path))
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=handlers, force=True)
