"""A sweep's owner: it alone writes into the sweep's folder while it runs, and writes the table at the end of it.

Every sweeper is wrapped in it. All jobs go into that one folder, also those of different experiments. Where there are
many, what each says goes to its run.log alone, and the terminal has one line of progress. The table is there also when
Ctrl-C, SIGTERM or an error ends the sweep, of the jobs that were begun; the signals that come while a job trains are
that job's to note.
"""

import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from vi_core.errors import LabError
from vi_core.storage.files import explained

from ..config.hydra_adapter import HYDRAS_LOG, pin, quoted
from ..config.messages import one_line
from ..run.interrupt import EXIT_CODES
from ..run.jobs import earlier_jobs, failures, on_job_end, relative
from ..run.owner import given_folder, owned, refuse_jobs, refuse_run

MOST_SHOWN = 10  # jobs of a sweep that each show their result table on the terminal
ANNOUNCING = (HYDRAS_LOG, f"{__package__}.batched_sweeper")
"""Loggers that say which job begins."""


class OwnedSweeper(Sweeper):
    """Runs another sweeper in a folder that no other process writes into.

    Args:
        inner: The sweeper, which is set up.
        config: Of the sweep.
        jobs: How many jobs there will be; 0 where that is not known.
    """

    def __init__(self, inner: Sweeper, config: DictConfig, jobs: int):
        self.inner, self.settings, self.jobs = inner, config, jobs

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Set the other sweeper up again."""
        self.inner.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def sweep(self, arguments: list[str]) -> Any:
        """Run all jobs, write the table, and return what the other sweeper returns.

        Raises:
            Occupied: Where another process is at work in the folder, or it holds what is not to be mixed with this.
        """
        folder = relative(given_folder(self.settings.hydra.sweep.dir, "hydra.sweep.dir").absolute())
        pin(self.settings, [f"hydra.sweep.dir={quoted(self.settings.hydra.sweep.dir)}"])
        with owned(folder, self.refuse), explained(folder), ending_on_sigterm():
            earlier_jobs.cache_clear()
            try:
                with one_line_of_progress(self.settings, self.jobs) if self.jobs > MOST_SHOWN else nullcontext():
                    found = self.inner.sweep(arguments)
            except BaseException:
                self.collect(folder, complete=False)
                raise
            self.collect(folder)
        return found

    def refuse(self, folder: Path) -> None:
        """Raise `Occupied` for a folder that the sweep may not have."""
        if self.settings.sweep.resume:
            refuse_run(folder, f"go on with resume={folder}, without -m")
        else:
            refuse_jobs(folder)

    def collect(self, folder: Path, complete: bool = True) -> None:
        """Write the table and figures, or of an incomplete sweep what there is of a table.

        The exit code is to say whether every job finished.
        """
        from .collect import run, tabulate

        try:
            if not complete:
                tabulate(folder)
            elif not run(self.settings, folder):
                failures.append(str(folder))
        except (LabError, OSError) as error:
            if complete:
                sys.stderr.write(f"error: {one_line(error)}\n")
                failures.append(str(folder))


@contextmanager
def one_line_of_progress(config: DictConfig, jobs: int) -> Iterator[None]:
    """Context manager: jobs log to their files alone, and a line of progress counts them."""
    from ..run.progress import JobsBar, counting

    pin(config, ["hydra.job_logging.root.handlers=[file]"])
    loggers = [logging.getLogger(name) for name in ANNOUNCING]
    bar = JobsBar(config.name, jobs)
    try:
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        counting.append(bar)
        on_job_end.append(bar.advance)
        yield
    finally:
        counting.remove(bar)
        on_job_end.remove(bar.advance)
        bar.bar.close()
        for logger in loggers:
            logger.setLevel(logging.NOTSET)


@contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """Context manager: SIGTERM between two jobs ends the process in good order, a second one at once."""

    def leave(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise SystemExit(EXIT_CODES[signal.Signals(number)])

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
