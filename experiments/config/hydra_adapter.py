"""Everything that touches the insides of Hydra, OmegaConf and argparse, each with its reason.

Hydra stays below 1.4 for this module's sake. No other module names `hydra._internal` or `omegaconf._utils`, or replaces
an attribute of another package.
"""

import argparse
import os
import pickle
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from copy import copy
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

import hydra
import yaml
from hydra._internal.config_loader_impl import get_overrides_dirname
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigNode, ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf._utils import get_omega_conf_dumper

from vi_core.errors import ConfigError
from vi_core.reading import check_yaml

from .places import CONF, PROGRAM
from .schema import Root

try:
    from yaml import CSafeDumper
except ImportError:  # PyYAML was built without libyaml
    from yaml import SafeDumper as CSafeDumper

HYDRAS_CHOICE, HYDRAS_LOADER = Plugins.instantiate_sweeper, FileConfigSource.load_config


def install() -> None:
    """Prepare Hydra for this program, before it composes anything.

    `argparse.ArgumentParser.error` is replaced, as Hydra builds its parser itself, which prints twenty lines of usage.
    `FileConfigSource.load_config` is replaced, as PyYAML expands anchors without a bound.
    `Plugins.instantiate_sweeper` is replaced, as Hydra takes sweepers from its own packages alone.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions through to the command line
    argparse.ArgumentParser.error = _refuse  # type: ignore[method-assign]
    Plugins.instantiate_sweeper = choose_sweeper  # type: ignore[method-assign]
    Plugins.instance()  # which loads its modules anew, so that its class is another than the one that is imported here
    SourcesRegistry.instance().resolve("file").load_config = _load_checked  # type: ignore[method-assign]
    register_schema()
    OmegaConf.register_new_resolver("collector", lambda: f"{PROGRAM}.sweeps.callback.Collect", replace=True)
    OmegaConf.register_new_resolver("after", lambda number, last: int(number) + int(last) + 1, replace=True)


def _load_checked(self: FileConfigSource, config_path: str) -> ConfigResult:
    """Load a YAML file of the user's, once it is known that no anchor in it grows beyond all bounds."""
    path = Path(self.path, self._normalize_file_name(config_path))
    if path.exists():
        check_yaml(path)
    return HYDRAS_LOADER(self, config_path)


def _refuse(self: argparse.ArgumentParser, message: str) -> NoReturn:
    raise ConfigError(f"{message}; see --help.")


def register_schema() -> None:
    """Make the schema known to Hydra under the name that `conf/config.yaml` starts from.

    `ConfigNode.__deepcopy__` is set, as Hydra copies its store of schemas, with all that is in it, at every look at a
    group: hundreds of times for `--help`. A schema is copied once more when it is loaded, so that copies of the store
    can share it.
    """
    ConfigNode.__deepcopy__ = lambda self, memo: copy(self)  # type: ignore[attr-defined]
    ConfigStore.instance().store(name="root", node=Root)


def choose_sweeper(
    plugins: Plugins, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
) -> Sweeper:
    """Return the sweeper that `sweep.batched` asks for: Hydra's own, or the one that trains jobs together."""
    if not config.sweep.batched:
        return HYDRAS_CHOICE(plugins, hydra_context=hydra_context, task_function=task_function, config=config)
    if not config.hydra.sweeper._target_.endswith(".BasicSweeper"):
        raise ConfigError("sweep.batched=true goes through grids, with a sweeper of its own; leave hydra/sweeper out.")
    if not config.hydra.launcher._target_.endswith(".BasicLauncher"):
        raise ConfigError("sweep.batched=true trains all jobs in this process; leave hydra/launcher out.")
    from ..sweeps.batched_sweeper import BatchedSweeper  # torch, only where it is used

    sweeper = BatchedSweeper()
    sweeper.setup(hydra_context=hydra_context, task_function=task_function, config=config)
    return sweeper


def grid(overrides: Sequence[Override], max_batch_size: int | None) -> list[list[list[str]]]:
    """Return the overrides of each job of a grid, in batches, as Hydra's own sweeper makes them."""
    return BasicSweeper.split_arguments(list(overrides), max_batch_size)  # it is no public function


def overrides_dirname(overrides: Sequence[Override], settings: Any) -> str:
    """Return `hydra.job.override_dirname` of a job that Hydra has not composed itself."""
    return get_overrides_dirname(list(overrides), **settings)  # it is no public function


def part_settings(group: str, name: str) -> dict[str, Any]:
    """Return the plain settings of a part, as its YAML file and those that it starts from have them.

    The file is found on Hydra's search path: among the program's own, or in the folder of `--config-dir`.
    """
    composing = GlobalHydra.instance().is_initialized()
    place = nullcontext() if composing else hydra.initialize_config_module(CONF, version_base="1.3")
    with place, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "In '.*': Defaults list is missing `_self_`")  # it is no whole run's
        node = OmegaConf.select(hydra.compose(f"{group}/{name}"), group)
    content = OmegaConf.to_container(node, resolve=False) if OmegaConf.is_dict(node) else {}
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items() if not isinstance(value, dict)}


def own_folder(options: Sequence[str]) -> list[Path]:
    """Return the folder that `--config-dir` among the options names, if one does, by Hydra's parser."""
    if not any(option.startswith("-") and "c" in option for option in options):  # making the parser takes a while
        return []
    folder = get_args_parser().parse_args(list(options)).config_dir  # it is no public function
    return [Path(folder)] if folder else []


def chosen_callbacks(overrides: Sequence[str], options: Sequence[str]) -> DictConfig:
    """Return the callbacks that `callback=<name>` chooses for a resumed run, which Hydra does not compose."""
    path = [f"hydra.searchpath=['file://{folder.absolute()}']" for folder in own_folder(options)]
    with hydra.initialize_config_module(CONF, version_base="1.3"):
        return hydra.compose("config", [*path, *overrides]).callbacks


class _Dumper(CSafeDumper):  # pyright: ignore[reportGeneralTypeIssues]
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
