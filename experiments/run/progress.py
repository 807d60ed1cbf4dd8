"""The progress of a run, or of many jobs, for the user: a bar on a terminal, plain lines elsewhere."""

import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from vi_core.training.callbacks import Callback
from vi_core.training.loop import Loop

log = logging.getLogger(__name__)
LINE_EVERY = 10.0  # seconds between plain lines
VALUE_EVERY = 0.5  # seconds between two values beside the bar
JOBS_EVERY = 60.0  # seconds between plain lines of a sweep with many jobs
counting: list["JobsBar"] = []
"""The line of progress that takes the place of those of the single jobs, where there is one."""


class Progress(Callback):
    """Shows steps done and the latest bound, the median over replicates, until training ends.

    The bar is on standard error, where that is a terminal; elsewhere a line goes to the log every ten seconds.

    Args:
        name: Of the experiment.
    """

    def __init__(self, name: str):
        self.name = name

    def on_start(self, loop: Loop, config: Mapping[str, Any], folder: Path | None) -> None:
        shown = {
            "desc": self.name,
            "unit": "step",
            "disable": bool(counting) or None,
            "leave": False,
            "file": sys.stderr,
        }
        self.begun, self.started = loop.done, time.perf_counter()
        self.bar = tqdm(total=loop.plan.steps, initial=loop.done, **shown)
        self.last_line = self.last_value = time.perf_counter()

    def on_rows(self, loop: Loop, rows: slice) -> None:
        now = time.perf_counter()
        if loop.status is not None:
            self.bar.close()
        elif not self.bar.disable:
            if now - self.last_value >= VALUE_EVERY:
                self.last_value = now
                self.bar.set_postfix_str(self._value(loop), refresh=False)
            self.bar.update(loop.done - self.bar.n)
        elif now - self.last_line >= LINE_EVERY:
            self.last_line = now
            each = (now - self.started) / (loop.done - self.begun)
            left = max(1, round(each * (loop.plan.steps - loop.done)))
            log.info("step %d of %d, about %d s left: %s", loop.done, loop.plan.steps, left, self._value(loop))

    def on_failure(self, loop: Loop, error: BaseException) -> None:
        self.bar.close()

    @staticmethod
    def _value(loop: Loop) -> str:
        recorder = loop.recorder
        return f"{recorder.metrics[0]} {recorder.latest().nanmedian().item():.4f}" if recorder.rows else ""


class JobsBar:
    """Shows how many jobs of a sweep are done, and about how long the others will take.

    Args:
        name: Of the sweep.
        count: Its jobs.
    """

    def __init__(self, name: str, count: int):
        self.bar = tqdm(total=count, desc=name, unit="job", disable=None, leave=False, file=sys.stderr)
        self.done, self.count, self.started = 0, count, time.perf_counter()
        self.last_line = self.started

    def advance(self) -> None:
        """Note that a job has ended."""
        self.done += 1
        self.bar.update()
        now = time.perf_counter()
        if self.bar.disable and now - self.last_line >= JOBS_EVERY:
            self.last_line = now
            left = (now - self.started) / self.done * (self.count - self.done)
            sys.stdout.write(f"{self.done} of {self.count} jobs are done, about {left:.0f} s are left\n")
