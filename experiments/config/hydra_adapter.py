"""Everything that touches the insides of Hydra, OmegaConf and argparse, each with its reason.

Hydra stays below 1.4 for this module's sake. No other module names `hydra._internal` or `omegaconf._utils`, or replaces
an attribute of another package.
"""

import argparse
import os
import pickle
import re
import warnings
from argparse import Namespace
from collections.abc import Sequence
from contextlib import nullcontext
from copy import copy
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import hydra
import hydra._internal.hydra as hydras_runs
import yaml
from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import get_overrides_dirname
from hydra._internal.core_plugins import basic_launcher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.config_store import ConfigNode, ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.core.utils import run_job as run_hydra_job
from hydra.plugins.config_source import ConfigResult
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf._utils import get_omega_conf_dumper

from vi_core.errors import ConfigError
from vi_core.storage.files import explained, file_and_name
from vi_core.storage.reading import check_yaml

from ..run.jobs import on_job_end, refused, relative
from ..run.owner import Occupied, given_folder, owned, refuse_results
from .places import CONF
from .plugins import PLUGINS, is_ours
from .schema import Root

MOST_NAME = 60  # letters of a sweep's name that is made of several
HYDRAS_CHOICE, HYDRAS_LOADER = Plugins.instantiate_sweeper, FileConfigSource.load_config
HYDRAS_LOG = basic_launcher.__name__  # of the logger that says which job begins
HYDRAS_LAUNCHER = Plugins.instantiate_launcher


def install() -> None:
    """Prepare Hydra for this program, before it composes anything.

    `argparse.ArgumentParser.error` is replaced, as Hydra builds its parser itself, which prints twenty lines of usage.
    `FileConfigSource.load_config` is replaced, as PyYAML expands anchors without a bound.
    `Plugins.instantiate_sweeper` and `instantiate_launcher` are replaced, as Hydra takes both from its own packages
    alone. Its `run_job` is replaced where a single run and the launcher call it, as it writes into a folder before the
    program has a say.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions through to the command line
    argparse.ArgumentParser.error = _refuse  # type: ignore[method-assign]
    Plugins.instantiate_sweeper = choose_sweeper  # type: ignore[method-assign]
    Plugins.instantiate_launcher = choose_launcher  # type: ignore[method-assign]
    hydras_runs.run_job = basic_launcher.run_job = run_in_own_folder
    Plugins.instance()  # which loads its modules anew, so that its class is another than the one that is imported here
    SourcesRegistry.instance().resolve("file").load_config = _load_checked  # type: ignore[method-assign]
    register_schema()
    OmegaConf.register_new_resolver("after", lambda number, last: int(number) + int(last) + 1, replace=True)
    OmegaConf.register_new_resolver("filed", lambda key, *, _root_: filed_name(_root_), replace=True)


def _load_checked(self: FileConfigSource, config_path: str) -> ConfigResult:
    """Load a YAML file of the user's, once it is known that no anchor in it grows beyond all bounds."""
    path = Path(self.path, self._normalize_file_name(config_path))
    if path.exists():
        check_yaml(path)
    return HYDRAS_LOADER(self, config_path)


def _refuse(self: argparse.ArgumentParser, message: str) -> NoReturn:
    raise ConfigError(f"{message}; see --help.")


def register_schema() -> None:
    """Make the schema known to Hydra under the name that `conf/config.yaml` starts from, and launchers and sweepers.

    `ConfigNode.__deepcopy__` is set, as Hydra copies its store of schemas, with all that is in it, at every look at a
    group: hundreds of times for `--help`. A schema is copied once more when it is loaded, so that copies of the store
    can share it.
    """
    ConfigNode.__deepcopy__ = lambda self, memo: copy(self)  # type: ignore[attr-defined]
    store = ConfigStore.instance()
    store.store(name="root", node=Root)
    for path, node in PLUGINS.items():
        group, _, name = path.partition("/")
        store.store(group=f"hydra/{group}", name=name, node=node, provider="vi-lab")


def run_in_own_folder(*, config: DictConfig, job_dir_key: str, job_subdir_key: str | None, **rest: Any) -> JobReturn:
    """Run a job as Hydra does, in a folder that this process owns before anything is written to it.

    A job of a sweep whose folder is not to be had fails, and the others run.
    """
    folder = job_folder(config, job_dir_key, job_subdir_key)
    keys = {"job_dir_key": job_dir_key, "job_subdir_key": job_subdir_key}
    try:
        with owned(folder, refuse_results), explained(folder):
            return run_with_log(config=config, **keys, **rest)
    except Occupied as error:
        if job_subdir_key is None:
            raise
        result = JobReturn(overrides=list(config.hydra.overrides.task), status=JobStatus.COMPLETED)
        result.return_value = refused(folder, error)
        return result
    finally:
        for call in on_job_end:
            call()


def run_with_log(**job: Any) -> JobReturn:
    """Run a job as Hydra does; where its log file cannot be opened, raise the error of the operating system."""
    try:
        return run_hydra_job(**job)
    except ValueError as error:  # of logging, which says no more than that a handler cannot be made
        raise error.__cause__ if isinstance(error.__cause__, OSError) else error from None


def job_folder(config: DictConfig, key: str, subkey: str | None) -> Path:
    """Return the folder in which Hydra will run a job; its own node has to be known for that."""
    hydras, before = HydraConfig.instance(), HydraConfig.instance().cfg
    try:
        hydras.set_config(config)
        names = [name for name in (key, subkey) if name is not None]
        return relative(Path(*(given_folder(OmegaConf.select(config, name), name) for name in names)).absolute())
    finally:
        hydras.cfg = before


def choose_sweeper(
    plugins: Plugins, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
) -> Sweeper:
    """Return Hydra's sweeper, or this program's: for batches, for grids in other processes, for searches; as an owner.

    Raises:
        LabError: Where the sweep cannot run.
    """
    from ..sweeps.owned_sweeper import OwnedSweeper

    context: dict[str, Any] = {"hydra_context": hydra_context, "task_function": task_function, "config": config}
    grid_of_workers = is_ours(config.hydra.launcher._target_) and is_basic(config)
    if config.sweep.batched or grid_of_workers:
        sweeper = _batched(config)
        sweeper.setup(**context)
    elif is_ours(config.hydra.sweeper._target_):
        sweeper = _made(config.hydra.sweeper)
        sweeper.setup(**context)
    else:
        sweeper = HYDRAS_CHOICE(plugins, **context)
    return OwnedSweeper(sweeper, config, jobs_of(hydra_context, config))


def choose_launcher(
    plugins: Plugins, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
) -> Launcher:
    """Return the launcher that `hydra/launcher` names, one of this program or what Hydra finds."""
    context: dict[str, Any] = {"hydra_context": hydra_context, "task_function": task_function, "config": config}
    if not is_ours(config.hydra.launcher._target_):
        return HYDRAS_LAUNCHER(plugins, **context)
    launcher = _made(config.hydra.launcher)
    launcher.setup(**context)
    return launcher


def _made(node: DictConfig) -> Any:
    """Return a launcher or a sweeper of this program with the settings in its node."""
    content: Any = OmegaConf.to_container(node, resolve=True)
    module, _, name = content.pop("_target_").rpartition(".")
    return getattr(import_module(module), name)(**content)


def _batched(config: DictConfig) -> Sweeper:
    if not is_basic(config):
        raise ConfigError("sweep.batched=true goes through grids, with a sweeper of its own; leave hydra/sweeper out.")
    if not is_local(config) and not is_ours(config.hydra.launcher._target_):
        known = ", ".join(path.partition("/")[2] for path in PLUGINS if path.startswith("launcher/"))
        raise ConfigError(f"sweep.batched=true needs a launcher of {known}; choose one, or leave hydra/launcher out.")
    from ..sweeps.batched_sweeper import BatchedSweeper  # torch, only where it is used

    return BatchedSweeper()


def is_basic(config: DictConfig) -> bool:
    """Whether a sweep goes through a grid."""
    return config.hydra.sweeper._target_.endswith(".BasicSweeper")


def is_local(config: DictConfig) -> bool:
    """Whether the jobs of a sweep run in this process, one after the other."""
    return config.hydra.launcher._target_.endswith(".BasicLauncher")


def context_of(config: DictConfig, folders: Sequence[Path]) -> HydraContext:
    """Return what composes jobs of a sweep in a process that Hydra has not started, and make it known to Hydra.

    Args:
        config: Of the sweep.
        folders: With YAML files of the user's, as `--config-dir` names one.
    """
    path = create_config_search_path(f"pkg://{CONF}")
    for folder in folders:
        path.prepend("command-line", f"file://{folder}", SearchPathQuery(provider="schema"))
    GlobalHydra.instance().clear()
    started = hydras_runs.Hydra.create_main_hydra2(config.hydra.job.name, path)
    return HydraContext(config_loader=started.config_loader, callbacks=Callbacks(config))


def grid(overrides: Sequence[Override], max_batch_size: int | None) -> list[list[list[str]]]:
    """Return the overrides of each job of a grid, in batches, as Hydra's own sweeper makes them.

    Args:
        overrides: Parsed; those that sweep have several values.
        max_batch_size: Most jobs of a batch, null for one batch of all.
    """
    return BasicSweeper.split_arguments(list(overrides), max_batch_size)  # it is no public function


def jobs_of(context: HydraContext, config: DictConfig) -> int:
    """Return how many jobs a sweep over a grid has; 0 for other sweepers, which decide on the way."""
    if not config.hydra.sweeper._target_.endswith(".BasicSweeper"):
        return 0
    texts: Any = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
    params = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    return len(grid(OverridesParser.create(context.config_loader).parse_overrides([*params, *texts]), None)[0])


def pin(config: DictConfig, settings: Sequence[str]) -> None:
    """Let every job of a sweep have settings of Hydra's that are decided for the sweep as a whole."""
    texts: Any = OmegaConf.to_container(config.hydra.overrides.hydra, resolve=False)
    given = {text.lstrip("+~").partition("=")[0] for text in texts}
    with read_write(config):
        for text in settings:
            if text.partition("=")[0] not in given:
                config.hydra.overrides.hydra.append(text)


def quoted(text: str) -> str:
    """Return a text as a value that Hydra reads as that text, whatever commas, brackets, quotes or blanks are in it.

    Raises:
        ConfigError: Where there is none: `${` begins a reference also in quotes, and settings are written in UTF-8.
    """
    if "${" in text or "\0" in text or text != text.encode(errors="replace").decode():
        raise ConfigError(f"{text!a} cannot be the folder of a sweep: it has ${{ or is not UTF-8; rename the folder.")
    return QuotedString(text=text, quote=Quote.single).with_quotes()


def asked_of_hydra(options: Sequence[str]) -> Namespace:
    """Return what Hydra's parser, which is no public function, makes of the options."""
    return get_args_parser().parse_args(list(options))


def show(config: DictConfig, options: Namespace) -> str:
    """Return what `--cfg job` shows of a configuration that Hydra has not composed, or its node `--package`."""
    node = OmegaConf.select(config, options.package) if options.package not in (None, "_global_") else config
    return OmegaConf.to_yaml(node, resolve=options.resolve) if OmegaConf.is_config(node) else f"{node}\n"


def overrides_dirname(overrides: Sequence[Override], settings: Any) -> str:
    """Return `hydra.job.override_dirname` of a job that Hydra has not composed itself."""
    return get_overrides_dirname(list(overrides), **settings)  # it is no public function


def part_settings(group: str, name: str, folders: Sequence[Path] = ()) -> dict[str, Any]:
    """Return the plain settings of a part, as its YAML file and those that it starts from have them.

    The file is found on Hydra's search path: among the program's own, or in the folder of `--config-dir`; while Hydra
    composes nothing yet, in `folders`.
    """
    composing = GlobalHydra.instance().is_initialized()
    place = nullcontext() if composing else hydra.initialize_config_module(CONF, version_base="1.3")
    with place, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "In '.*': Defaults list is missing `_self_`")  # it is no whole run's
        path = [f"hydra.searchpath=['file://{folder.absolute()}']" for folder in folders]
        node = OmegaConf.select(hydra.compose(f"{group}/{name}", path), group)
    content = OmegaConf.to_container(node, resolve=False) if OmegaConf.is_dict(node) else {}
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items() if not isinstance(value, dict)}


def filed_name(root: DictConfig) -> str:
    """Return the name of a run: that of its experiment, or of the model where the command line replaces model or data.

    A sweep over experiments or models has the names of all of them.

    Args:
        root: The whole configuration, with Hydra's node where that is still there.
    """
    node = root.hydra if "hydra" in root else HydraConfig.get()
    choices: Any = node.runtime.choices
    overrides = list(node.overrides.task)
    for group in ("experiment", "model"):
        values = next((text.partition("=")[2] for text in overrides if text.startswith(f"{group}=")), "")
        if re.fullmatch(r"[\w,-]+", values) and "," in values:
            return values.replace(",", "+")[:MOST_NAME]
    if not replaced(choices, overrides):
        return choices.experiment
    path = next((text.partition("=")[2] for text in overrides if text.startswith("model.path=")), "")
    stem = file_and_name(path.strip("'\""))[0].stem if choices.model == "file" else choices.model
    return stem if re.fullmatch(r"[\w-]+", stem) else choices.model


def replaced(choices: Any, overrides: Sequence[str]) -> bool:
    """Whether the command line chooses another model or data set than the experiment has.

    Args:
        choices: Names of the parts, and of the experiment, of a job.
        overrides: Its command line.
    """
    given = {text.lstrip("+~").partition("=")[0] for text in overrides} & {"model", "dataset"}
    return bool(given) and any(choices[group] != own_choices(choices.experiment)[group] for group in given)


@lru_cache(maxsize=64)
def own_choices(experiment: str) -> dict[str, str]:
    """Return the names of the parts that an experiment has by itself."""
    composing = GlobalHydra.instance().is_initialized()
    place = nullcontext() if composing else hydra.initialize_config_module(CONF, version_base="1.3")
    with place:
        composed = hydra.compose("config", [f"experiment={experiment}"], return_hydra_config=True)
    return dict(composed.hydra.runtime.choices)


def own_folder(options: Sequence[str]) -> list[Path]:
    """Return the folder that `--config-dir` among the options names, if one does, by Hydra's parser."""
    if not any(option.startswith("-") and "c" in option for option in options):  # making the parser takes a while
        return []
    folder = asked_of_hydra(options).config_dir
    return [Path(folder)] if folder else []


def chosen_callbacks(overrides: Sequence[str], options: Sequence[str]) -> DictConfig:
    """Return the callbacks that `callback=<name>` chooses for a resumed run, which Hydra does not compose."""
    path = [f"hydra.searchpath=['file://{folder.absolute()}']" for folder in own_folder(options)]
    with hydra.initialize_config_module(CONF, version_base="1.3"):
        return hydra.compose("config", [*path, *overrides]).callbacks


FastDumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # PyYAML may be built without libyaml


class _Dumper(FastDumper):
    """OmegaConf's dumper, by the library in C, in a fifth of the time; it folds long texts elsewhere."""


_Dumper.add_representer(str, get_omega_conf_dumper().str_representer)  # it quotes what OmegaConf would read otherwise


def yaml_text(content: Any) -> str:
    """Return plain dicts and lists as YAML, quoted as OmegaConf does, in a fifth of the time that it takes."""
    if not isinstance(content, dict) or not content:
        return _dumped(content)
    return "".join(_entry(pickle.dumps(entry)) for entry in content.items())


@lru_cache(maxsize=256)
def _entry(pickled: bytes) -> str:
    """Return an entry of a dict as YAML: jobs of a sweep have most of theirs in common."""
    key, value = pickle.loads(pickled)
    return _dumped({key: value})


def _dumped(content: Any) -> str:
    return yaml.dump(content, Dumper=_Dumper, default_flow_style=False, allow_unicode=True, sort_keys=False)
