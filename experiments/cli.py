"""The command line: arguments in, exit code out.

Hydra composes the configuration and calls `job` once for each run of a sweep. Tasks that work on a finished folder,
and `resume=`, compose without Hydra's run folder, so that nothing new is created for them. Errors for the user are one
line; anything else is a defect and keeps its traceback. Torch is imported when a job starts, never for `--help`.
"""

import atexit
import gc
import logging
import re
import sys
from argparse import Namespace
from collections.abc import Sequence
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
from vi_core.storage.reading import read_yaml

from .config import hydra_adapter, schema
from .config.messages import configuration_groups, keys_of, one_line
from .config.places import CONF, PROGRAM
from .run.jobs import NEW_OBJECTS, Job, failures, finished_job, make_job, run_job
from .run.owner import discard, owned
from .run.streams import forgiving_streams

TASKS_ON_FOLDER = {
    "plot": "results.figures", "collect": "sweeps.collect",
    "report": "report.render", "truth": "results.truth", "export": "results.export",
    "docs_benchmarks": "benchmark.docs",
}  # fmt: skip
"""Tasks on a finished folder, and their modules, which are imported only where they are asked for."""
FOLDERS = ("run", "resume", "sweep.resume")
"""Settings that name a folder: all that stands after the equals sign is its path, whatever letters are in it."""
OWN_FOLDER = ("fit", "prior_predictive")
"""Tasks that make a folder of their own, as a run does."""
RECIPES = ("auto", "none")  # files of conf/recipe
TASKS = (*OWN_FOLDER, *TASKS_ON_FOLDER, "predict", "compare", "reproduce", "new_model")


def main() -> None:
    """Run the program on `sys.argv` and exit: 0, 1 for an error, 130 for Ctrl-C, 143 for SIGTERM."""
    gc.set_threshold(NEW_OBJECTS)
    atexit.register(gc.freeze)  # or Python looks through all that torch has made, several times, when it ends
    hydra_adapter.install()
    try:
        with forgiving_streams():
            dispatch(sys.argv[1:])
    except (LabError, HydraException, OmegaConfBaseException, OSError, YAMLError) as error:
        sys.exit(f"error: {one_line(error)}")
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(1 if failures else 0)


def dispatch(arguments: list[str]) -> None:
    """Choose between a job or sweep under Hydra, a task on a finished folder, and what only shows something."""
    options = [a for a in arguments if not is_override(a)]
    own_parts.know(hydra_adapter.own_folder(options))
    given = given_keys(arguments)
    check(given)
    overrides = [a for a in arguments if is_override(a) and a.partition("=")[0] not in FOLDERS]
    folders = {key: Path(given[key]) for key in FOLDERS if given.get(key, "null") != "null"}
    task, asked = given.get("task", "fit"), hydra_adapter.asked_of_hydra(options)
    if asked.help or asked.hydra_help or asked.info or asked.shell_completion:
        under_options(options, overrides)
    elif asked.cfg:
        show_settings(folders, overrides, options, asked)
    elif asked.multirun and (task != "fit" or "resume" in folders):
        what = f"resume={folders['resume']}" if task == "fit" else f"task={task}"
        raise ConfigError(f"{what} is no sweep; leave {'--multirun' if '--multirun' in options else '-m'} out.")
    elif task == "new_model":
        new_model(given)
    elif task == "predict":
        predict(given, folders.get("run"))
    elif task == "compare":
        compare(given, overrides, folders.get("run"))
    elif task == "reproduce":
        reproduce(overrides, folders.get("run"))
    elif task not in OWN_FOLDER:
        on_folder(task, overrides, folders.get("run"))
    elif "resume" in folders:
        resume(folders["resume"], overrides, options)
    else:
        overrides = with_recipe(given, overrides, options)
        if "sweep.resume" in folders:
            overrides += resumed_sweep(folders["sweep.resume"])
        under_options(options, for_all_parts(overrides) if asked.multirun else overrides)


def for_all_parts(overrides: list[str]) -> list[str]:
    """Return the overrides of a sweep in which a setting of a swept part goes to all parts that have it.

    Such as `estimator.num_samples=10` beside `estimator=pathwise,exact`: jobs whose part has no such setting leave it
    out (`settings.drop_unknown`), where Hydra would refuse the sweep.
    """
    swept = {key for key, value in given_keys(overrides).items() if re.search(r",|\bglob\(|\bchoice\(", value)}
    found = []
    for text in overrides:
        part, _, key = text.partition("=")[0].partition(".")
        several = part in swept and key in keys_of(f"{part}.") and "." not in key
        found.append(f"++{text}" if several else text)
    return found


def given_keys(arguments: list[str]) -> dict[str, str]:
    """Return the values that arguments set, by key."""
    return {a.partition("=")[0]: a.partition("=")[2] for a in arguments if is_override(a)}


def with_recipe(given: dict[str, str], overrides: list[str], options: list[str]) -> list[str]:
    """Return the overrides with what models of prior and likelihood bring along, and with the recipe of other models.

    The former are the parts of experiment=own where no experiment is chosen, and the model's data where no data set is.
    Other experiments have no recipe, so that `recipe=none` changes nothing there, and `recipe=auto` is added.
    """
    brought, own = [], given.get("experiment") == "own"
    others = [override for override in overrides if not override.startswith("recipe=")]
    if own or ("model" in given and "experiment" not in given):
        from .config.own_problem import fitting_recipe, recipe

        folders = hydra_adapter.own_folder(options)
        brought = recipe(given, folders) if "model" in given else []
        if (own or brought) and (fitting := fitting_recipe(given, folders)):
            return [*brought, *fitting, *others]
    if own or brought or given.get("recipe") not in RECIPES:
        return [*brought, *overrides]
    if given["recipe"] == "none":
        return others
    from .config.own_problem import check_recipe

    check_recipe(given.get("experiment", "bbvi").split(","))
    return [*others, f"+recipe={given['recipe']}"]


def check(given: dict[str, str]) -> None:
    """Refuse keys and values that have no meaning in any configuration."""
    if "" in given:
        raise ConfigError(f"={given['']} has no key; write key=value.")
    empty = [key for key in FOLDERS if given.get(key) == ""]
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


def under_options(options: list[str], overrides: list[str]) -> None:
    """Let Hydra do what the options say."""
    sys.argv[1:] = options + [with_new_key(a) for a in overrides]  # argparse wants them in this order
    compose_and_run()


def show_settings(folders: dict[str, Path], overrides: list[str], options: list[str], asked: Namespace) -> None:
    """Do what `--cfg` says: show the settings that a run would have, a resumed one those of its folder."""
    if "resume" not in folders:
        under_options(options, with_recipe(given_keys(overrides), overrides, options))
    elif asked.cfg != "job":
        raise ConfigError(f"--cfg {asked.cfg} shows settings of Hydra, without which resume= goes on; use --cfg job.")
    else:
        cfg = resumed_settings(folders["resume"], overrides, options)
        sys.stdout.write(hydra_adapter.show(cfg, asked))


def with_new_key(override: str) -> str:
    """Return an override of Hydra's that may add its key, where it is an argument of a model of the user's own."""
    return f"++{override}" if override.startswith("model.settings.") else override


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
    with owned(folder):  # by this process already, unless a launcher has given the job to another one
        job = make_job(cfg, folder)
        found = finished_job(job) if job.in_sweep and cfg.sweep.resume else None
        if found is None:
            return run_job(job)
        logging.shutdown()
        discard(folder)
        return found


def resume(folder: Path, arguments: list[str], options: list[str]) -> None:
    """Go on with an interrupted run, in its own folder and with its own settings."""
    cfg = resumed_settings(folder, arguments, options)
    with owned(folder):
        start_log(folder / "run.log")
        run_job(Job(cfg, folder, [*cfg.overrides, *arguments], swept_by_experiment(folder), resume=True))


def resumed_settings(folder: Path, arguments: list[str], options: list[str]) -> DictConfig:
    """Return the settings of the run in `folder`, with what the command line changes."""
    path = folder / "config.yaml"
    if not path.is_file():
        raise LabError(f"resume={folder} is not the folder of a run: there is no config.yaml in it.")
    from vi_core.storage.archive import read_config

    groups = {*configuration_groups(), "changes"} - {"callback"}
    whole = [a for a in arguments if a.partition("=")[0].partition("/")[0] in groups]
    if whole:
        key = whole[0].partition("=")[0]
        raise ConfigError(
            f"{key}= cannot change when a run is resumed; start a new run with {whole[0]}, or change trainer.steps=, "
            "trainer.stopping.* or optimizer.lr= alone."
        )
    saved = OmegaConf.merge(OmegaConf.structured(schema.Root), OmegaConf.create(read_config(folder)))
    OmegaConf.set_struct(saved, True)
    chosen = [a for a in arguments if a.startswith("callback=")]
    cfg = OmegaConf.merge(saved, OmegaConf.from_dotlist([a for a in arguments if a not in chosen]))
    assert isinstance(cfg, DictConfig)
    if chosen:
        cfg.callbacks = hydra_adapter.chosen_callbacks(chosen, options)
    return cfg


def swept_by_experiment(folder: Path) -> list[str]:
    """Return the keys that the experiment of a run sweeps by itself, from what Hydra wrote when the run began."""
    path = folder / ".hydra" / "hydra.yaml"
    params = OmegaConf.select(OmegaConf.create(read_yaml(path)), "hydra.sweeper.params") if path.is_file() else None
    return list(params) if isinstance(params, DictConfig) else []


def on_folder(task: str, arguments: list[str], folder: Path | None) -> None:
    """Run a task on the finished run or sweep that `run=` names."""
    if folder is None:
        raise ConfigError(f"task={task} needs a folder: run=<folder>.")
    require_no_folder_of_hydra(task, arguments)
    with hydra.initialize_config_module(CONF, version_base="1.3"):
        cfg = hydra.compose("config", arguments, return_hydra_config=False)
    start_log(None)
    run = import_module(f"{PROGRAM}.{TASKS_ON_FOLDER[task]}").run
    if run(cfg, folder) is False:
        failures.append(str(folder))


def require_no_folder_of_hydra(task: str, arguments: list[str]) -> None:
    """Raise `ConfigError` for a folder that the task would not write to."""
    given = [key for key in given_keys(arguments) if key in ("hydra.run.dir", "hydra.sweep.dir")]
    if given:
        raise ConfigError(f"{given[0]} is for runs; task={task} writes to run=<folder>.")


def compare(given: dict[str, str], arguments: list[str], folder: Path | None) -> None:
    """Put the finished runs that `runs=` names side by side; `run=` is where the comparison is written."""
    runs = [Path(name.strip()) for name in given.get("runs", "").strip("[]").split(",") if name.strip()]
    if not runs:
        raise ConfigError("task=compare needs folders: runs=[<folder>,<folder>].")
    require_no_folder_of_hydra("compare", arguments)
    with hydra.initialize_config_module(CONF, version_base="1.3"):
        cfg = hydra.compose("config", [a for a in arguments if not a.startswith("runs=")])
    cfg.run = None if folder is None else str(folder)
    start_log(None)
    from .sweeps import compare as task

    task.run(cfg, runs)


def reproduce(arguments: list[str], folder: Path | None) -> None:
    """Run the experiments of the report page; what is no setting of the task itself goes to those that know it."""
    own = [a for a in arguments if a.partition("=")[0].split(".")[0] in ("task", "fidelity", "reproduce")]
    with hydra.initialize_config_module(CONF, version_base="1.3"):
        cfg = hydra.compose("config", own)
    cfg.run = None if folder is None else str(folder)
    start_log(None)
    from .report import reproduce as page

    if not page.run(cfg, [a for a in arguments if a not in own], main):
        failures.append("reproduce")


def predict(given: dict[str, str], folder: Path | None) -> None:
    """Predict the rows of the file `path=` by the run in `folder`."""
    require_only("predict", given, ("run", "path"), "task=predict run=<folder of a run> path=new.csv")
    start_log(None)
    from .results import predict as task

    assert folder is not None
    task.run(folder, Path(given["path"]))


def new_model(given: dict[str, str]) -> None:
    """Write a model to begin with to `path=`."""
    require_only("new_model", given, ("path",), "task=new_model path=my_model.py")
    start_log(None)
    from .run import new_model as task

    task.run(Path(given["path"]))


def require_only(task: str, given: dict[str, str], needed: Sequence[str], example: str) -> None:
    """Raise `ConfigError` unless a task is given what it needs and nothing else."""
    others = given.keys() - {"task", *needed}
    lacking = [key for key in needed if given.get(key, "null") in ("", "null")]
    if others or lacking:
        wrong = f"{min(others)} is not a setting of task={task}" if others else f"task={task} needs {lacking[0]}="
        raise ConfigError(f"{wrong}; write {example}.")


def resumed_sweep(folder: Path) -> list[str]:
    """Return the overrides that put a sweep's new jobs into its old folder, after the old ones."""
    if not folder.is_dir():
        raise ConfigError(f"sweep.resume={folder} is not a folder; give the folder of an earlier sweep.")
    names = [path.name for path in folder.iterdir() if path.name.isascii() and path.name.isdigit()]
    last = max(map(int, names), default=-1)
    place = hydra_adapter.quoted(str(folder))
    subdir = f"hydra.sweep.subdir='${{after:${{hydra.job.num}},{last}}}'"
    return [f"sweep.resume={place}", f"hydra.sweep.dir={place}", subdir]


def start_log(path: Path | None) -> None:
    """Log plain lines to standard output, and to a file, as Hydra does for its jobs."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout)]
    if path is not None:
        handlers.append(logging.FileHandler(path, encoding="utf-8"))
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=handlers, force=True)
