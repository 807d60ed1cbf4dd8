"""When to compile: no run waits longer than in eager mode by more than a tenth.

`auto` times some eager steps and holds what is left of the run against what compiling may take. Where an earlier run
has left the code, both what reading it takes and what a compiled step takes are known: it is read if that ends the run
sooner. Else what compiling takes is estimated from the number of operations in a step and from what an operation takes
on this machine, and it compiles if that is at most a tenth of what is left, so that even steps that gain nothing by it
cost no more than that. Steps so short that most of their time is no arithmetic are compiled `CHUNK` at a time. Compiled
steps that turn out to be slower are given up.
"""

import hashlib
import json
import logging
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vi_core.atomic import replacing
from vi_core.training.batches import Batches
from vi_core.training.compiled import CompiledSteps, NotStored, count_operations
from vi_core.training.steps import Step
from vi_core.training.trainer import Compile, Plan

log = logging.getLogger(__name__)
CHUNK = 10
"""Steps in one call of a compiled chunk."""
SHORT_S = 3e-3
"""An eager step below this is mostly overhead."""
WATCHED = 20
"""Eager steps that `auto` times, after two that are slower than the others."""
WORTH = 0.1
"""The part of what is left of a run that compiling may take."""
COLD, COLD_BASE = 8_000.0, 4e6
"""Time to compile, in operations on one number: for each operation of the graph, and for any graph."""
WARM = 0.3
"""The part of it that is left where the code is read: what is expected before it was read once."""


class Compilation:
    """Gives the compiled steps of a run, or none where it goes on in eager mode.

    Args:
        mode: `off`, `step`, `chunk`, or `auto`.
        step, plan, batches: Of the run.
        history: A file that remembers what reading and a step took, beside the stored code; None for no memory.
    """

    def __init__(self, mode: Compile, step: Step, plan: Plan, batches: Batches, history: Path | None = None):
        self.mode, self.step, self.plan, self.batches, self.history = mode, step, plan, batches, history
        self.steps: CompiledSteps | None = None
        self.seconds = 0.0
        """What compiling took."""
        self.calls, self.since = 0, 0.0
        self.eager: float | None = None
        """Seconds of an eager step, if `auto` measured it."""
        self.watched = False
        """Whether compiled steps have been timed."""

    def next(self, done: int, window: int | None) -> tuple[CompiledSteps, list[Any]] | None:
        """Return compiled steps that can follow step `done`, with their batches as stored; None asks for an eager step.

        The stopping rule looks at multiples of `window`, which must not lie within what is compiled.
        """
        if self.mode == "auto":
            self._decide(done)
        elif self.steps is not None and not self.watched:
            self._watch(self.steps.count)
        if self.mode in ("auto", "off"):
            return None
        count = self._count(self.mode)
        if not fits(done, count, self.plan, window) or not self.batches.full_ahead(count) or not self._compile(count):
            return None
        assert self.steps is not None
        return self.steps, [self.batches.next_stored()[0] for _ in range(count)]

    def _decide(self, done: int) -> None:
        """Time eager steps, and settle the mode when enough have been seen."""
        self.calls += 1
        if self.calls == 3:
            self.since = time.perf_counter()
        if self.calls < 3 + WATCHED:
            return
        eager = (time.perf_counter() - self.since) / WATCHED
        left = (self.plan.steps - done) * eager
        self.eager, self.calls = eager, 0
        stored: tuple[Compile, ...] = ("chunk", "step")
        found = next((mode for mode in stored if self._read(mode, left)), None)
        wanted: Compile = "chunk" if eager < SHORT_S else "step"
        self.mode = found or (wanted if self._pays(self._count(wanted), left) else "off")

    def _count(self, mode: str) -> int:
        """Return the steps in a call."""
        return chunk_of(self.plan.log_every) if mode == "chunk" else 1

    def _watch(self, count: int) -> None:
        """Time compiled calls, remember it, and go back to eager steps if those are faster."""
        self.calls += 1
        if self.calls == 2:
            self.since = time.perf_counter()
        if self.calls < 2 + WATCHED:
            return
        self.watched = True
        step = (time.perf_counter() - self.since) / (WATCHED * count)
        self._remember(count, step)
        if self.eager is not None and step > self.eager:
            self.mode = "off"
            log.info("compiled steps are slower here than eager ones; the run goes on with those")

    def _remember(self, count: int, step: float) -> None:
        """Note what reading the code will take, and what a compiled step takes."""
        assert self.steps is not None
        reading = self.seconds if self.steps.was_stored else WARM * self.seconds
        write_history(self.history, read_history(self.history) | {self._key(count): (reading, step)})

    def _read(self, mode: Compile, left: float) -> bool:
        """Read stored code if there is some and that ends a run with `left` seconds of eager steps sooner."""
        count = self._count(mode)
        reading, step = read_history(self.history).get(self._key(count), (math.inf, math.inf))
        assert self.eager is not None
        return reading + left * step / self.eager < left and self._compile(count, compiles=False)

    def _pays(self, count: int, left: float) -> bool:
        """Whether compiling `count` steps takes at most a tenth of `left` seconds of eager steps."""
        second = operation_seconds()
        if COLD_BASE * second > WORTH * left:
            return False
        return (COLD_BASE + COLD * count_operations(self.step, self.batches) * count) * second <= WORTH * left

    def _compile(self, count: int, compiles: bool = True) -> bool:
        """Read or compile once; where that fails, say so and go on in eager mode. Without `compiles` only read."""
        if self.steps is not None:
            return True
        folder = None if self.history is None else self.history.parent / "steps"
        started = time.perf_counter()
        try:
            self.steps = CompiledSteps(self.step, self.batches, count, self.plan.log_every, folder, compiles)
        except NotStored:
            return False
        except Exception as error:
            self.mode = "off"
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            log.warning("these steps cannot be compiled (%s); the run goes on without: trainer.compile=off", reason)
            return False
        self.seconds = time.perf_counter() - started
        return True

    def _key(self, count: int) -> str:
        """Name what the compiled code depends on, but for values that go in."""
        parts = [f"{name}:{type(part).__name__}:{whole_numbers(part)}" for name, part in self.step.named_modules()]
        state = [f"{tuple(value.shape)} {value.dtype} {value.device}" for value in self.step.state_dict().values()]
        run = [torch.__version__, torch.get_num_threads(), count, self.plan.log_every, self.batches.size]
        return hashlib.sha256(repr((parts, state, self.step.bound.name, run)).encode()).hexdigest()[:16]

    def resume(self, mode: Compile) -> None:
        """Go on as the run had settled, if it was for `auto` to settle."""
        if self.mode == "auto":
            self.mode = mode


def whole_numbers(part: nn.Module) -> list[tuple[str, Any]]:
    """Return the settings of a part that are shapes or types: others go into the code when it runs, most of them."""
    return [(name, value) for name, value in vars(part).items() if isinstance(value, (int, torch.dtype))]


def chunk_of(log_every: int) -> int:
    """Return about `CHUNK`: a multiple of a row of the trace, where a row is shorter."""
    return CHUNK if log_every >= CHUNK else log_every * (CHUNK // log_every)


def fits(done: int, count: int, plan: Plan, window: int | None) -> bool:
    """Whether nothing happens within the `count` steps after step `done` that they do not see."""
    last = done + count - 1
    periods = (plan.eval_every, plan.checkpoint_every, window)
    crossed = any(period and done // period != last // period for period in periods)
    inside = plan.log_every > count and done // plan.log_every != last // plan.log_every
    return done % count == 0 and last < plan.steps and not crossed and not inside


def operation_seconds() -> float:
    """Return the median time of an operation on one number."""
    value, seconds = torch.zeros(()), []
    for _ in range(200):
        start = time.perf_counter()
        value.add_(1.0)
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)[100]


def read_history(path: Path | None) -> dict[str, tuple[float, float]]:
    """Return seconds to read and of a step by what was compiled; nothing where the file is missing or damaged."""
    try:
        content = {} if path is None else json.loads(path.read_text())
        return {key: (float(reading), float(step)) for key, (reading, step) in content.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def write_history(path: Path | None, content: dict[str, tuple[float, float]]) -> None:
    """Keep seconds by what was compiled, where the file can be written."""
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as unfinished:
            unfinished.write_text(json.dumps(content))
    except OSError as error:
        log.warning("%s cannot be written (%s): compiling is timed anew in the next run", path, error.strerror)
