"""Contenders take turns: every repetition is one block of each of them, and medians are over repetitions.

A block is as many iterations as take about `block_s` seconds. Before the first one every contender makes the iterations
after which its answer is known; whoever answers wrongly is marked, and not timed.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from .entries import Entry, Place, Problem
from .fresh import MEASURES
from .processes import Worker
from .protocol import Answer, Broken, Missing
from .results import Row

Say = Callable[[str], None]
MOST_FRESH = 3
"""Repetitions where each one is a new process."""


@dataclass(frozen=True)
class Effort:
    """How much is measured: repetitions, and the seconds of a block."""

    repetitions: int
    block_s: float


@dataclass
class Runner:
    """A contender on its way through a problem."""

    entry: Entry
    worker: Worker | None = None
    at: int = 0
    status: str = "ok"
    note: str = ""
    startup_s: float | None = None
    first_s: float | None = None
    answer: Answer = field(default_factory=dict)
    block: int = 1
    samples: list[float] = field(default_factory=list)

    def attempt(self, work: Callable[[], None]) -> None:
        """Do some work, and remember why it cannot be done."""
        if self.status != "ok":
            return
        try:
            work()
        except Missing as reason:
            self.status, self.note = "missing", str(reason)
        except (Broken, OSError) as reason:
            self.status, self.note = "failed", str(reason)

    def prepare(self, problem: Problem, effort: Effort) -> None:
        """Make the first call, which compiles, then the iterations to the answer; measure how long a block is."""
        assert self.worker is not None
        stride = self.worker.strides[self.at]
        reply = self.worker.ask(self.at, run=stride)
        self.first_s, heard = reply["seconds"], reply["warnings"]
        tail = upwards(problem.tail, stride)
        before = upwards((self.entry.steps or problem.steps) - tail - stride, stride)
        if before > 0:
            self.worker.ask(self.at, run=before)
        each = self.worker.ask(self.at, run=tail)["seconds"] / tail
        self.answer = self.worker.ask(self.at, answer=True)["answer"]
        self.note = heard[0] if heard else ""
        self.block = upwards(max(1, round(effort.block_s / each)), stride)

    def time_block(self) -> None:
        """Add one sample: the problem's unit for one iteration of a block."""
        assert self.worker is not None
        seconds = self.worker.ask(self.at, run=self.block)["seconds"]
        self.samples.append(seconds / self.block * self.entry.scale)

    def judge(self, wanted: dict[str, tuple[float, float]]) -> None:
        """Mark a wrong answer; anything that is not finite is one."""
        for name, value in self.answer.items():
            right, tolerance = wanted.get(name, (0.0, math.inf))
            if self.status == "ok" and not abs(value - right) <= tolerance:
                self.status, self.note = "wrong", f"{name} = {value:.6g}, not {right:.6g} ± {tolerance:.3g}"

    def row(self, problem: Problem) -> Row:
        """Return what was found."""
        timed = self.status == "ok" and bool(self.samples)
        q1, median, q3 = np.percentile(self.samples, (25, 50, 75)).tolist() if timed else (None, None, None)
        return Row(
            problem=problem.name,
            contender=self.entry.contender,
            mode=self.entry.mode,
            at=self.entry.at,
            status=self.status,
            startup_s=self.startup_s,
            compile_s=self.first_s,
            median=median,
            q1=q1,
            q3=q3,
            min=min(self.samples) if timed else None,
            unit=problem.unit,
            threads=self.entry.threads,
            repetitions=len(self.samples),
            note=self.note,
        )


def upwards(number: int, stride: int) -> int:
    """Return the next multiple of `stride`; 0 for what is not positive."""
    return max(0, -(-number // stride) * stride)


def measure(problem: Problem, place: Place, effort: Effort, say: Say) -> list[Row]:
    """Return one row for each entry of the problem."""
    return measure_fresh(problem, place, effort, say) if problem.fresh else measure_turns(problem, effort, say)


def measure_fresh(problem: Problem, place: Place, effort: Effort, say: Say) -> list[Row]:
    """Measure with a new process each time, in turns."""
    runners = [Runner(entry) for entry in problem.entries]
    for repetition in range(min(effort.repetitions, MOST_FRESH)):
        for runner in runners:
            say(f"{problem.name}: {runner.entry.contender}, repetition {repetition + 1}")
            runner.attempt(lambda r=runner: r.samples.append(MEASURES[r.entry.module](r.entry, place)))
    return [runner.row(problem) for runner in runners]


def measure_turns(problem: Problem, effort: Effort, say: Say) -> list[Row]:
    """Start every contender, hear its answer, then time blocks in turns."""
    with ExitStack() as stack:
        runners = [runner for group in processes(problem.entries) for runner in start(group, stack, say)]
        for runner in runners:
            say(f"{problem.name}: {runner.entry.contender} {runner.entry.mode}, the answer")
            runner.attempt(lambda r=runner: r.prepare(problem, effort))
        for runner in runners:
            runner.judge(wanted(problem, runner, runners))
        for repetition in range(effort.repetitions):
            if repetition % 10 == 0:
                say(f"{problem.name}: repetition {repetition + 1}")
            for runner in runners:
                runner.attempt(runner.time_block)
        return [runner.row(problem) for runner in runners]


def processes(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Group entries by the process that holds them."""
    ordered = sorted(entries, key=lambda entry: [e.process for e in entries].index(entry.process))
    return [list(group) for _, group in groupby(ordered, key=lambda entry: entry.process)]


def start(entries: list[Entry], stack: ExitStack, say: Say) -> list[Runner]:
    """Start one process for some entries; return their runners."""
    runners, first = [Runner(entry, at=i) for i, entry in enumerate(entries)], entries[0]
    say(f"starting {first.contender} {first.mode}")
    try:
        worker = Worker(first.module, [entry.settings for entry in entries], first.threads or 1, first.environment)
    except (Missing, Broken) as reason:
        for runner in runners:
            runner.status = "missing" if isinstance(reason, Missing) else "failed"
            runner.note = str(reason)
        return runners
    stack.callback(worker.close)
    for runner in runners:
        runner.worker, runner.startup_s = worker, worker.startup_s
    return runners


def wanted(problem: Problem, runner: Runner, runners: Sequence[Runner]) -> dict[str, tuple[float, float]]:
    """Return what a contender has to answer: its own numbers, or the median of all."""
    if problem.agree is None:
        return dict(runner.entry.answers)
    bounds = [other.answer["bound"] for other in runners if other.status == "ok"]
    return {"bound": (float(np.median(bounds)), problem.agree)} if bounds else {}
