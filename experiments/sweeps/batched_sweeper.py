"""`sweep.batched=true`: a sweep in which jobs that differ in plain numbers are trained together.

Also sweeps over grids that are not batched go through it where other processes run the jobs.
Jobs that may share a batch are a group. Each batch of a group is trained, and then every job ends in its own folder,
which is as Hydra makes it, with what it got from the batch. All other jobs, and those that fail before the first step,
run one by one as in every sweep.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from ..config.hydra_adapter import choose_launcher, grid, is_local, run_in_own_folder
from ..run.interrupt import interruptible
from ..run.jobs import earlier_jobs, on_job_end, refused, run_job, take
from ..run.owner import Occupied, owned, refuse_results
from .batch import MOST_REPLICATES, Point, finish, group_key, train
from .composing import Composed, Composer
from .launching import Workers, returned

log = logging.getLogger(__name__)


class BatchedSweeper(Sweeper):
    """Goes through a grid, like Hydra's own.

    Attributes:
        context, task_function, master: What Hydra gives a sweeper: its loader and callbacks, what runs a job, and the
            configuration of the sweep.
        earlier: Finished jobs of the sweep that this one goes on with, by the hash of their configuration.
    """

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take over what Hydra knows."""
        self.enter(hydra_context, task_function, config)
        self.launcher = (
            None if is_local(config) else choose_launcher(Plugins.instance(), hydra_context, task_function, config)
        )

    def enter(self, context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take over what running jobs in this process needs."""
        self.context, self.task_function, self.master = context, task_function, config
        self.settings, self.composer = config.hydra.sweeper, Composer(context, config)

    def sweep(self, arguments: list[str]) -> list[JobReturn]:
        """Run all jobs; return what Hydra makes of them, in the order in which they ran.

        Args:
            arguments: Overrides of the command line; those with several values span the grid.
        """
        folder = Path(self.master.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.master, folder / "multirun.yaml")
        texts = [*(f"{key}={value}" for key, value in (self.settings.params or {}).items()), *arguments]
        overrides = OverridesParser.create(self.context.config_loader).parse_overrides(texts)
        self.earlier = earlier_jobs(folder.resolve()) if self.master.sweep.resume else {}
        number = 0
        results: list[JobReturn] = []
        for batch in grid(overrides, self.settings.max_batch_size):
            results += self.launch(self.composer.compose(job, number + index) for index, job in enumerate(batch))
            number += len(batch)
        return results

    def launch(self, jobs: Iterable[Composed]) -> list[JobReturn]:
        """Group jobs and run group after group, or let the launcher's workers do so."""
        setup_globals()
        self.log_as_sweep()
        groups: dict[str, list[Composed]] = {}
        for job in jobs:
            if not job.settings or take(self.earlier, job.settings) is None:
                groups.setdefault(self.group(job), []).append(job if self.launcher is None else job.light())
        if isinstance(self.launcher, Workers):
            return self.hand_out(list(groups.values()), self.launcher)
        log.info("Launching %d jobs locally", sum(map(len, groups.values())))
        return [result for group in groups.values() for _, result in self.run_group(group)]

    def hand_out(self, groups: Sequence[list[Composed]], launcher: Workers) -> list[JobReturn]:
        """Cut groups into batches, which workers train; return the objectives of all jobs."""
        batches = [batch for group in groups for batch in cut(group, -(-launcher.parallel // len(groups)))]
        values = launcher.run([[(job.number, job.overrides) for job in batch] for batch in batches])
        jobs = [job for group in groups for job in group]
        return [returned(job.overrides, values.get(job.number, float("nan"))) for job in jobs]

    def group(self, composed: Composed) -> str:
        """Return a text that jobs have in common if they may share a batch."""
        if not self.master.sweep.batched or composed.job is None or composed.settings["study"] is not None:
            return f"job {composed.number}"
        return group_key(composed.settings)

    def run_group(self, group: Sequence[Composed]) -> Iterator[tuple[Composed, JobReturn]]:
        """Train what can be batched and write it; run the rest one by one. Yields each job, and what it returned.

        Raises:
            SystemExit: Where a signal ended training, after the jobs of the batch are written.
        """
        left = list(group)
        if len(left) > 1:
            points = [Point(composed.job, composed.settings) for composed in group if composed.job]
            with interruptible() as interrupt:
                for point in train(points, interrupt):
                    composed = next(composed for composed in left if composed.job is point.job)
                    left.remove(composed)
                    yield composed, self.write(composed, partial(finish, point))
        for composed in left:
            yield composed, self.run(composed)

    def run(self, composed: Composed) -> JobReturn:
        """Run a job by itself, as Hydra does."""
        self.announce(composed)
        config = composed.config or self.composer.load(composed.overrides, composed.number)
        result = run_in_own_folder(
            hydra_context=self.context,
            task_function=self.task_function,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        self.log_as_sweep()
        _ = result.return_value  # raises what the job raised, if that is a defect
        return result

    def write(self, composed: Composed, finish: Callable[[Any], dict[str, Any]]) -> JobReturn:
        """Let a job whose training is behind it `finish` in its folder, which is as Hydra leaves it."""
        self.announce(composed)
        assert composed.template is not None and composed.job is not None
        result, folder = JobReturn(overrides=composed.overrides, status=JobStatus.COMPLETED), composed.job.folder
        try:
            with owned(folder, refuse_results):
                config = composed.template.enter(composed)
                configure_log(config.hydra.job_logging, config.hydra.verbose)
                self.context.callbacks.on_job_start(config=config, task_function=self.task_function)
                result.return_value = run_job(composed.job, finish)
                self.context.callbacks.on_job_end(config=config, job_return=result)
        except Occupied as error:
            result.return_value = refused(folder, error)
        for call in on_job_end:
            call()
        self.log_as_sweep()
        return result

    def announce(self, composed: Composed) -> None:
        """Say which job begins."""
        log.info("\t#%d : %s", composed.number, " ".join(composed.overrides))

    def log_as_sweep(self) -> None:
        """Send messages where those of the sweep itself go."""
        configure_log(self.master.hydra.hydra_logging, self.master.hydra.verbose)


def cut(group: list[Composed], workers: int) -> list[list[Composed]]:
    """Cut a group into batches of nearly equal size, as many as workers or a multiple of that.

    Args:
        group: Jobs that may share a batch.
        workers: How many work on this group at a time.
    """
    replicates = group[0].settings.get("replicates", 1)
    rounds = -(-len(group) * replicates // (workers * MOST_REPLICATES))
    count = min(len(group), workers * rounds)
    return [group[place * len(group) // count : (place + 1) * len(group) // count] for place in range(count)]
