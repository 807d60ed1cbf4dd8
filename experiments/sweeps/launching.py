"""Jobs of a sweep in other processes: what all launchers of this program have in common.

A launcher says how many workers there are and hands them items, which are single jobs or batches; joblib, submitit and
Ray do the rest. What it sees of a job is an objective and the lines for the terminal, so that the process of the sweep
stays small. Results are files in the folders of the jobs. A worker that dies takes the jobs with it that it was at and
no others; `sweep.resume` does them again. Which jobs are finished already is decided here, once, and by no worker.
"""

import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from ..config.messages import one_line
from ..run.interrupt import interruptible
from ..run.jobs import earlier_jobs, failures, objective, on_job_end, relative, take
from .worker import LAUNCH, STOP, WORKERS, Done, Item, Launch, Numbered

log = logging.getLogger(__name__)


class Workers(Launcher):
    """Base class of launchers that run jobs in other processes, which share the file system with this one.

    Attributes:
        name: As in `hydra/launcher=<name>`.
    """

    name = ""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take over what Hydra knows; the task itself is found by the workers."""
        self.context, self.config = hydra_context, config
        self.sources = config.hydra.runtime.config_sources
        self.folder = relative(Path(config.hydra.sweep.dir).absolute())

    @property
    def parallel(self) -> int:
        """How many items can run at the same time."""
        raise NotImplementedError

    @property
    def threads(self) -> int:
        """Cores of a worker, where the workers of this machine share them evenly."""
        return max(1, cores() // self.parallel)

    def map(self, items: Sequence[Item]) -> Iterator[tuple[int, Done | Exception]]:
        """Let workers do the items; yield each one's place, and what became of it or what its worker died of."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Take back what has not begun, where items that begin could not do it themselves by looking for the note."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs, each as an item of its own; return their objectives in order, those of finished jobs as they were.

        Args:
            job_overrides: What the sweep sets for each.
            initial_job_idx: Place of the first one in the sweep.
        """
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        jobs = [(initial_job_idx + number, list(overrides)) for number, overrides in enumerate(job_overrides)]
        values = self.finished(jobs)
        if left := [[job] for job in jobs if job[0] not in values]:
            values |= self.run(left)
        return [returned(overrides, values.get(number, float("nan"))) for number, overrides in jobs]

    def finished(self, jobs: Sequence[Numbered]) -> dict[int, float]:
        """Return the objectives, by their numbers, of jobs that the sweep which this one goes on with has finished."""
        if not self.config.sweep.resume:
            return {}
        from .composing import Composer

        earlier, composer, values = earlier_jobs(self.folder.resolve()), Composer(self.context, self.config), {}
        for number, overrides in jobs:
            settings = composer.compose(overrides, number).settings
            if settings and (summary := take(earlier, settings)):
                values[number] = objective(summary)
        return values

    def run(self, batches: Sequence[list[Numbered]]) -> dict[int, float]:
        """Let workers run batches of jobs; say what they said, and return the objectives by the jobs' numbers.

        Raises:
            SystemExit: Where a signal has come, once the jobs that were running are written.
        """
        count, values = sum(map(len, batches)), dict[int, float]()
        log.info("Launching %d jobs with %s, %d at a time", count, self.name, min(self.parallel, max(1, len(batches))))
        folder, threads = self.folder.absolute(), min(self.threads, allowed_threads())
        items = [Item(folder, jobs, threads) for jobs in batches]
        with self.launched(folder), interruptible(then=lambda: self.stop(folder)) as interrupt:
            for place, done in self.map(items):
                if isinstance(done, Done):
                    values |= done.values
                    show(done)
                elif not interrupt.requested():
                    self.lost(items[place], done)
                for call in on_job_end * len(items[place].jobs):
                    call()
                if (left := {*numbers(items[place])} - values.keys()) and not interrupt.requested():
                    failures.extend(str(self.folder / str(number)) for number in left)
        return values

    @contextmanager
    def launched(self, folder: Path) -> Iterator[None]:
        """Context manager: workers find in the sweep's folder what they are set up from, and import what this does."""
        folder.mkdir(parents=True, exist_ok=True)
        local = [Path(source.path) for source in self.sources if source.schema == "file"]
        Launch(self.config, local, Path.cwd()).write(folder)
        (folder / STOP).unlink(missing_ok=True)
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join(importable())
        try:
            yield
        finally:
            os.environ.pop("PYTHONPATH")
            if before is not None:
                os.environ["PYTHONPATH"] = before
            for name in (LAUNCH, STOP):
                (folder / name).unlink(missing_ok=True)
            with suppress(OSError):  # a network file system keeps names of files that are open elsewhere
                (folder / WORKERS).rmdir()

    def stop(self, folder: Path) -> None:
        """Tell the workers that the sweep is to end: what runs is written, and no other job begins."""
        (folder / STOP).touch()
        self.cancel()

    def lost(self, item: Item, error: Exception) -> None:
        """Say which jobs ended with their worker."""
        which = ", ".join(map(str, numbers(item)))
        reason = one_line(error)[:200]
        sys.stderr.write(
            f"error: the worker of job {which} has died; sweep.resume={self.folder} does again what is missing"
            f" ({type(error).__name__}: {reason})\n"
        )


def returned(overrides: list[str], value: float) -> JobReturn:
    """Return what Hydra makes of a job, without its configuration."""
    result = JobReturn(overrides=overrides, status=JobStatus.COMPLETED)
    result.return_value = value
    return result


def show(done: Done) -> None:
    """Write what jobs wrote to the terminal, or errors alone where a line of progress counts them; note failures."""
    if not on_job_end:
        sys.stdout.write(done.out)
    sys.stderr.write(done.err)
    failures.extend(done.failures)


def numbers(item: Item) -> list[int]:
    """Return the numbers of the jobs of an item."""
    return [number for number, _ in item.jobs]


def importable() -> list[str]:
    """Return the folders that this process imports from, beside those of Python and its packages."""
    own = (sys.prefix, sys.base_prefix)
    return [str(Path(path).absolute()) for path in sys.path if not path.startswith(own)]


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def allowed_threads() -> int:
    """Return the most threads of a process that the environment allows."""
    text = os.environ.get("OMP_NUM_THREADS", "")
    return int(text) if text.isdecimal() and int(text) else cores()


@contextmanager
def without_ctrl_c() -> Iterator[None]:
    """Context manager: processes that are started inside do not see Ctrl-C, which is for the process of the sweep."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
