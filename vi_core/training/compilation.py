"""When to compile: no run waits longer than in eager mode by more than a tenth.

`auto` times some eager steps and holds what is left of the run against what compiling may take. That is known where the
same steps were compiled before, as compiled code is kept between runs; else it is estimated from the number of
operations in a step and from what an operation takes on this machine. It compiles if that is at most a tenth of what is
left, so that even steps that gain nothing by it cost no more than that. Steps so short that most of their time is no
arithmetic are compiled `CHUNK` at a time. Compiled steps that turn out to be slower are given up.
"""

import hashlib
import json
import logging
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vi_core.atomic import replacing
from vi_core.training.batches import Batches
from vi_core.training.compiled import CompiledSteps, count_operations
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
WARM = 0.5
"""The part of it that is left where the compiled code is found."""


class Compilation:
    """Gives the compiled steps of a run, or none where it goes on in eager mode.

    Args:
        mode: `off`, `step`, `chunk`, or `auto`.
        step, plan, batches: Of the run.
        history: A file that remembers how long compiling takes, beside the compiled code; None for no memory.
    """

    def __init__(self, mode: Compile, step: Step, plan: Plan, batches: Batches, history: Path | None = None):
        self.mode, self.step, self.plan, self.batches, self.history = mode, step, plan, batches, history
        self.steps: CompiledSteps | None = None
        self.seconds = 0.0
        """What compiling took."""
        self.calls, self.since = 0, 0.0
        self.eager: float | None = None
        """Seconds of an eager step, while `auto` compares compiled ones with it."""

    def next(self, done: int, window: int | None) -> tuple[CompiledSteps, list[Any]] | None:
        """Return compiled steps that can follow step `done`, with their batches as stored; None asks for an eager step.

        The stopping rule looks at multiples of `window`, which must not lie within what is compiled.
        """
        if self.mode == "auto":
            self._decide(done)
        elif self.eager is not None and self.steps is not None:
            self._compare(self.eager, self.steps.count)
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
        mode: Compile = "chunk" if eager < SHORT_S else "step"
        least = WARM * COLD_BASE * operation_seconds()
        pays = least <= WORTH * left and self._expected(self._count(mode)) <= WORTH * left
        self.mode, self.eager, self.calls = mode if pays else "off", eager, 0

    def _count(self, mode: str) -> int:
        """Return the steps in a call."""
        return chunk_of(self.plan.log_every) if mode == "chunk" else 1

    def _compare(self, eager: float, count: int) -> None:
        """Time compiled calls, and go back to eager steps of `eager` seconds if those are faster."""
        self.calls += 1
        if self.calls == 2:
            self.since = time.perf_counter()
        if self.calls < 2 + WATCHED:
            return
        self.eager = None
        if time.perf_counter() - self.since > WATCHED * count * eager:
            self.mode = "off"
            log.info("compiled steps are slower here than eager ones; the run goes on with those")

    def _expected(self, count: int) -> float:
        """Return what compiling `count` steps may take, in seconds."""
        known = read_history(self.history).get(self._key(count))
        if known is not None:
            return known
        operations = count_operations(self.step, self.batches)
        return (COLD_BASE + COLD * operations * count) * operation_seconds()

    def _compile(self, count: int) -> bool:
        """Compile once; where that fails, say so and go on in eager mode."""
        if self.steps is not None:
            return True
        started = time.perf_counter()
        try:
            self.steps = CompiledSteps(self.step, self.batches, count, self.plan.log_every)
        except Exception as error:
            self.mode = "off"
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            log.warning("these steps cannot be compiled (%s); the run goes on without: trainer.compile=off", reason)
            return False
        self.seconds = time.perf_counter() - started
        key, history = self._key(count), read_history(self.history)
        write_history(self.history, history | {key: self.seconds * (1 if key in history else WARM)})
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


def read_history(path: Path | None) -> dict[str, float]:
    """Return seconds by what was compiled; nothing where the file is missing or damaged."""
    try:
        return {} if path is None else {key: float(value) for key, value in json.loads(path.read_text()).items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def write_history(path: Path | None, content: dict[str, float]) -> None:
    """Keep seconds by what was compiled, where the file can be written."""
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as unfinished:
            unfinished.write_text(json.dumps(content))
    except OSError as error:
        log.warning("%s cannot be written (%s): compiling is timed anew in the next run", path, error.strerror)
