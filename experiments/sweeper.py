"""`sweep.batched=true`: a sweep in which jobs that differ in plain numbers are trained together.

Hydra hands a sweep to a sweeper, and its own composes every job twice, at a quarter of a second each. This one composes
once for all jobs that differ in numbers, and sets the numbers. Jobs that may share a batch are a group: each batch of a
group is trained, and then every job is run in its folder as Hydra runs it, but writes what it got from the batch. All
other jobs, and those that fail before the first step, run one by one as in every sweep.
"""

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import get_overrides_dirname
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, configure_log, filter_overrides, setup_globals
from hydra.core.utils import run_job as run_hydra_job
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from vi_core.errors import ConfigError, LabError

from .jobs import finished_jobs, make_job, run_job
from .messages import configuration_groups

log = logging.getLogger(__name__)
HYDRAS_OWN = Plugins.instantiate_sweeper


def install() -> None:
    """Let `sweep.batched` choose the sweeper: Hydra takes plugins from a package of its own alone."""
    Plugins.instantiate_sweeper = choose  # type: ignore[method-assign]


def choose(
    plugins: Plugins, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
) -> Sweeper:
    """Return the sweeper of this module where it is asked for, else the one that Hydra's configuration names."""
    if not config.sweep.batched:
        return HYDRAS_OWN(plugins, hydra_context=hydra_context, task_function=task_function, config=config)
    if not config.hydra.sweeper._target_.endswith(".BasicSweeper"):
        raise ConfigError("sweep.batched=true has a sweeper of its own, for grids; leave hydra/sweeper out.")
    sweeper = BatchedSweeper()
    sweeper.setup(hydra_context=hydra_context, task_function=task_function, config=config)
    return sweeper


@cache
def parsed(text: str) -> Override:
    """Return an override as Hydra understands it."""
    return OverridesParser.create().parse_override(text)


def sets_a_number(text: str) -> bool:
    """Whether an override does no more than set a number, so that it changes nothing else of the composition."""
    override = parsed(text)
    plain = override.type == OverrideType.CHANGE and override.package is None and not override.is_hydra_override()
    value = override.value()
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return plain and number and override.key_or_group not in configuration_groups()


class Composer:
    """Composes the configuration of jobs, once for those that differ in numbers.

    Args:
        context: Has Hydra's loader.
        master: The configuration of the sweep.
    """

    def __init__(self, context: HydraContext, master: DictConfig):
        self.loader, self.master = context.config_loader, master
        self.known: dict[tuple[str, ...], DictConfig] = {}

    def compose(self, overrides: list[str], number: int) -> DictConfig:
        """Return the configuration of job `number`; raise as Hydra does where it cannot be composed."""
        numbers = [text for text in overrides if sets_a_number(text)]
        kind = tuple(parsed(text).key_or_group if text in numbers else text for text in overrides)
        if kind not in self.known:
            self.known[kind] = self.loader.load_sweep_config(self.master, overrides)
        config = copy.deepcopy(self.known[kind])
        try:
            for text in numbers:
                OmegaConf.update(config, parsed(text).key_or_group, parsed(text).value())
        except OmegaConfBaseException:
            config = self.loader.load_sweep_config(self.master, overrides)
        with open_dict(config):
            job = config.hydra.job
            job.id, job.num = number, number
            config.hydra.overrides.task = overrides
            names = job.config.override_dirname
            job.override_dirname = get_overrides_dirname([parsed(text) for text in overrides], **names)
        return config


@dataclass
class Planned:
    """A job that is to run, and what it could share a batch with."""

    overrides: list[str]
    config: DictConfig
    """With the node `hydra`."""
    point: Any = None
    """A `Point`; None where the job runs alone in any case."""
    key: str = ""


def run_trained(job: Any, work: Callable[[Any], dict[str, Any]], cfg: DictConfig) -> float:
    """Run a job whose training is behind it; a task for Hydra, whose copy of the configuration has served its turn."""
    return run_job(job, work)


class BatchedSweeper(Sweeper):
    """Goes through a grid, like Hydra's own."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take over what Hydra knows."""
        self.context, self.task_function, self.config = hydra_context, task_function, config
        self.settings = config.hydra.sweeper

    def sweep(self, arguments: list[str]) -> list[JobReturn]:
        """Run all jobs; return what Hydra makes of them, in the order in which they ran."""
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        texts = [*(f"{key}={value}" for key, value in (self.settings.params or {}).items()), *arguments]
        overrides = OverridesParser.create(self.context.config_loader).parse_overrides(texts)
        composer, number = Composer(self.context, self.config), 0
        earlier = self.config.sweep.resume
        self.finished = finished_jobs(Path(earlier)) if earlier else {}
        results: list[JobReturn] = []
        for jobs in BasicSweeper.split_arguments(overrides, self.settings.max_batch_size):
            configs = [composer.compose(job, number + index) for index, job in enumerate(jobs)]
            results += self.launch(jobs, configs)
            number += len(jobs)
        return results

    def launch(self, jobs: Sequence[list[str]], configs: Sequence[DictConfig]) -> list[JobReturn]:
        """Group jobs and run group after group."""
        setup_globals()
        self.log_as_sweep()
        log.info("Launching %d jobs locally", len(jobs))
        groups: dict[str, list[Planned]] = {}
        for job, config in zip(jobs, configs, strict=True):
            planned = self.plan(job, config)
            if planned is not None:
                groups.setdefault(planned.key or f"job {config.hydra.job.num}", []).append(planned)
        return [result for group in groups.values() for result in self.run_group(group)]

    def plan(self, overrides: list[str], config: DictConfig) -> Planned | None:
        """Say what a job may share a batch with; None if a resumed sweep has finished it."""
        from .identity import config_hash
        from .tasks.batch import Point, group_key
        from .tasks.fit import settle

        HydraConfig.instance().set_config(config)
        folder = Path(config.hydra.sweep.dir, str(config.hydra.sweep.subdir))
        cfg = copy.deepcopy(config)
        with open_dict(cfg):
            del cfg["hydra"]
        try:
            if cfg.study is not None:
                return Planned(overrides, config)
            settings = settle(job := make_job(cfg, folder))
            other = self.finished.get(config_hash(settings))
            if other is None:
                return Planned(overrides, config, Point(job, settings), group_key(settings))
        except (LabError, OmegaConfBaseException):
            return Planned(overrides, config)  # running the job will say what is wrong
        log.info("job %d is finished already: %s", other["job"], " ".join(other["overrides"]))
        return None

    def run_group(self, group: Sequence[Planned]) -> Iterator[JobReturn]:
        """Train what can be batched and write it; run the rest one by one."""
        from .interrupt import Interrupt
        from .tasks.batch import finish, train

        waiting = {id(planned.point): planned for planned in group if planned.point}
        left = list(group)
        if len(waiting) > 1:
            with Interrupt() as interrupt:
                for batch in train([planned.point for planned in waiting.values()], interrupt):
                    for trained in batch:
                        planned = waiting[id(trained.point)]
                        left.remove(planned)
                        yield self.run(planned, partial(run_trained, trained.point.job, partial(finish, trained)))
            interrupt.leave()
        for planned in left:
            yield self.run(planned, self.task_function)

    def run(self, planned: Planned, function: TaskFunction) -> JobReturn:
        """Run a job in its folder, as Hydra does."""
        log.info("\t#%d : %s", planned.config.hydra.job.num, " ".join(filter_overrides(planned.overrides)))
        result = run_hydra_job(
            hydra_context=self.context,
            task_function=function,
            config=planned.config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        self.log_as_sweep()
        _ = result.return_value  # raises what the job raised, if that is a defect
        return result

    def log_as_sweep(self) -> None:
        """Send messages where those of the sweep itself go."""
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
