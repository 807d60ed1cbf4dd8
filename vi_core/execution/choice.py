"""When to replay, and when to compile: no run waits longer than in eager mode by more than a tenth.

`auto` times some eager steps. It then repeats steps from a list of their operations, which is ready within a second and
needs no compiler, and times those. Then it holds what is left of the run against what compiling may take. Where an
earlier run has left the code, both what reading it takes and what a compiled step takes are known: it is read if that
ends the run sooner. Else what compiling takes is estimated from the number of operations in a step and from what an
operation takes on this machine, and it compiles if that is at most a tenth of what is left, so that even steps that
gain nothing by it cost no more than that. Steps so short that most of their time is no arithmetic are made `CHUNK` at a
time. Steps that turn out to be slower than those before are given up.
"""

import hashlib
import json
import logging
import math
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from vi_core.algorithms.base import Step
from vi_core.execution.base import SeveralSteps, count_operations
from vi_core.execution.compiled import CompiledSteps, NotStored
from vi_core.execution.replay import ReplayedSteps
from vi_core.files import replacing
from vi_core.training.batches import Batches
from vi_core.training.trainer import Compile, Plan

log = logging.getLogger(__name__)
CHUNK = 10
"""Steps in a call, at most."""
CALLS, SOON = 10, 0.5
"""Calls after which the loop looks around, where all steps see the same data and that is so many seconds away."""
LOOK_EVERY = 100
"""Steps between two looks at the device: divergence, progress."""
SHORT = 10.0
"""A step that takes less than this many times what its operations take on one number is mostly overhead."""
WATCHED = 20
"""Calls that are timed, after two that are slower than the others."""
WORTH = 0.1
"""The part of what is left of a run that it may take to get ready for it."""
REPLAY = 200.0
"""Time to make a list of operations, for each of them, in operations on one number."""
COLD, COLD_BASE = 8_000.0, 4e6
"""Time to compile, in operations on one number: for each operation of the graph, and for any graph."""
WARM = 0.3
"""The part of it that is left where the code is read: what is expected before it was read once."""


class Choice(NamedTuple):
    """How steps are made, and what one takes."""

    mode: Compile
    steps: SeveralSteps | None
    seconds: float


class Compilation:
    """Gives replayed or compiled steps of a run, or none where it goes on in eager mode.

    Args:
        mode: `off`, `replay`, `step`, `chunk`, or `auto`.
        step, plan, batches: Of the run.
        history: A file that remembers what reading and a step took, beside the stored code; None for no memory.
    """

    def __init__(self, mode: Compile, step: Step, plan: Plan, batches: Batches, history: Path | None = None):
        self.mode: Compile = mode
        self.step, self.plan, self.batches, self.history = step, plan, batches, history
        self.steps: SeveralSteps | None = None
        self.seconds = 0.0
        """What it took to make the steps."""
        self.made_in = 0.0
        """Of these, for the present ones."""
        self.times: list[float] | None = [] if mode == "auto" else None
        """Seconds of a step in each call of the present way, or None where it has been judged."""
        self.best: Choice | None = None
        """What `auto` found fastest up to now."""
        self.overhead = 0.0
        """Seconds that the operations of a step take on one number."""
        self.short, self.settled, self.refused = True, mode != "auto", False
        """Whether a step is mostly overhead, whether `auto` has chosen for good, and whether compiling has failed."""
        self.window: int | None = None
        self.before: Compile = "off"
        """How the steps before a checkpoint were made."""

    @property
    def used(self) -> Compile:
        """How steps are made now, or were made where none has been since the checkpoint."""
        return self.before if self.steps is None else self.mode

    def next(self, done: int, window: int | None) -> tuple[SeveralSteps, list[Any]] | None:
        """Return steps that can follow step `done`, with their batches as stored; None asks for an eager step.

        The stopping rule looks at multiples of `window`, which must not lie within a call.
        """
        self.window = window
        if self.times is not None and len(self.times) == 2 + WATCHED:
            self._judge(statistics.median(self.times[2:]), self.plan.steps - done)
        if self.mode in ("auto", "off"):
            return None
        count = self._count(self.mode)
        calls = next((n for n in (self._most(count), 1) if fits(done, count, n, self.plan, window)), None)
        if calls is None or not self.batches.full_ahead(count) or not self._make(self.mode):
            return None
        assert self.steps is not None
        return self.steps, [self.batches.next_stored()[0] for _ in range(count * calls)]

    def observe(self, seconds: float, several: bool) -> None:
        """Take note of what a step took: one of several at once, or an eager one, also between others."""
        if self.times is not None and several == (self.steps is not None):
            self.times.append(seconds)

    def _most(self, count: int) -> int:
        """Return how many calls the loop may make at once."""
        timed = self.times is None and self.best is not None and self.batches.full is not None
        return CALLS if timed and CALLS * count * cast(Choice, self.best).seconds < SOON else 1

    def _judge(self, seconds: float, left: int) -> None:
        """Choose how to make the `left` steps, given what one takes now."""
        self.times = None
        if self.steps is None:
            self.best = Choice("off", None, seconds)
            self.overhead = count_operations(self.step, self.batches) * operation_seconds()
            self.short = seconds < SHORT * self.overhead
            if not self._can_replay(left) or not self._make("replay"):
                self._settle(left)
            return
        if self.mode != "replay":
            self._remember(self.steps, seconds)
        if self.best is None or seconds <= self.best.seconds:
            self.best = Choice(self.mode, self.steps, seconds)
        else:
            log.info("trainer.compile=%s is slower here than %s; the run goes on so", self.mode, self.best.mode)
        if self.settled:
            self.mode, self.steps, _ = self.best
        else:
            self._settle(left)

    def _settle(self, left: int) -> None:
        """Choose for good: compiled steps where they end the run sooner, or cost little; else the best up to now."""
        assert self.best is not None
        self.settled = True
        self.mode, self.steps, seconds = self.best
        stored: tuple[Compile, ...] = ("chunk", "step")
        wanted: Compile = "chunk" if self.short else "step"
        if any(self._read(mode, left * seconds) for mode in stored):
            return
        if self._pays(self._count(wanted), left * seconds):
            self._make(wanted)

    def _count(self, mode: str) -> int:
        """Return the steps in a call."""
        return chunk_of(self.plan, self.window) if mode == "chunk" or (mode == "replay" and self.short) else 1

    def _can_replay(self, left: int) -> bool:
        """Whether getting ready to replay, which makes four steps in vain, takes at most a tenth of what is left."""
        assert self.best is not None
        ready = REPLAY * self.overhead + 4 * self.best.seconds
        return self.step.alive.is_cpu and ready <= WORTH * left * self.best.seconds

    def _remember(self, steps: SeveralSteps, seconds: float) -> None:
        """Note what reading the code will take, and what a compiled step takes."""
        reading = self.made_in if steps.was_stored else WARM * self.made_in
        write_history(self.history, read_history(self.history) | {self._key(steps.count): (reading, seconds)})

    def _read(self, mode: Compile, left: float) -> bool:
        """Read stored code if there is some and that ends a run with `left` seconds of the best steps sooner."""
        assert self.best is not None
        reading, step = read_history(self.history).get(self._key(self._count(mode)), (math.inf, math.inf))
        return reading + left * step / self.best.seconds < left and self._make(mode, compiles=False)

    def _pays(self, count: int, left: float) -> bool:
        """Whether compiling `count` steps takes at most a tenth of `left` seconds."""
        return COLD_BASE * operation_seconds() + COLD * self.overhead * count <= WORTH * left

    def _make(self, mode: Compile, compiles: bool = True) -> bool:
        """Make the steps of a mode once; where that fails, say so and go on as before. Without `compiles` only read."""
        if self.steps is not None and self.mode == mode:
            return True
        if self.refused and mode != "replay":
            return False
        folder = None if self.history is None else self.history.parent / "steps"
        of_run = (self.step, self.batches, self._count(mode), self.plan.log_every)
        started = time.perf_counter()
        try:
            made = ReplayedSteps(*of_run) if mode == "replay" else CompiledSteps(*of_run, folder, compiles)
        except NotStored:
            return False
        except Exception as error:
            before = "off" if self.best is None else self.best.mode
            self.mode, self.refused = before if self.settled else self.mode, mode != "replay"
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            verb = "replayed" if mode == "replay" else "compiled"
            log.warning("these steps cannot be %s (%s); the run goes on with trainer.compile=%s", verb, reason, before)
            return False
        self.mode, self.steps, self.times = mode, made, []
        self.made_in = time.perf_counter() - started
        self.seconds += self.made_in
        return True

    def _key(self, count: int) -> str:
        """Name what the compiled code depends on, but for values that go in."""
        parts = [f"{name}:{type(part).__name__}:{whole_numbers(part)}" for name, part in self.step.named_modules()]
        state = [f"{tuple(value.shape)} {value.dtype} {value.device}" for value in self.step.state_dict().values()]
        run = [torch.__version__, torch.get_num_threads(), count, self.plan.log_every, self.batches.size]
        return hashlib.sha256(repr((parts, state, self.step.bound.name, run)).encode()).hexdigest()[:16]

    def state_dict(self) -> dict[str, Any]:
        return {"mode": self.mode if self.settled else "auto", "short": self.short, "used": self.used}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on as the run had settled, if it was for `auto` to settle and can be done here."""
        mode: Compile = state["mode"]
        self.before = state["used"]
        if self.mode == "auto" and mode != "auto" and (mode != "replay" or self.step.alive.is_cpu):
            self.mode, self.settled, self.short, self.times = mode, True, state["short"], None


def whole_numbers(part: nn.Module) -> list[tuple[str, Any]]:
    """Return the settings of a part that are shapes or types: others go into the code when it runs, most of them."""
    return [(name, value) for name, value in vars(part).items() if isinstance(value, (int, torch.dtype))]


def chunk_of(plan: Plan, window: int | None) -> int:
    """Return the most steps in a call, up to `CHUNK`, that do not leave much between them to eager steps.

    They are whole rows of the trace, or parts of one. What happens between two calls, the end of a longer row included,
    does so after a multiple of them, or so rarely that it matters little.
    """
    rare = [period for period in (plan.eval_every, plan.checkpoint_every, window) if period]

    def suits(count: int) -> bool:
        rows = plan.log_every <= count
        periods = rare if rows else [*rare, plan.log_every]
        whole = not rows or count % plan.log_every == 0
        return whole and all(period % count == 0 or period >= 10 * count for period in periods)

    return next(count for count in range(CHUNK, 0, -1) if count == 1 or suits(count))


def fits(done: int, count: int, calls: int, plan: Plan, window: int | None) -> bool:
    """Whether nothing happens within `calls` calls of `count` steps after step `done` that they do not see.

    Of several calls the last alone may pass a step at which the loop looks around: it does so after the same steps
    however many calls it makes.
    """
    last = done + count * calls - 1
    periods = (plan.eval_every, plan.checkpoint_every, window)
    crossed = any(period and done // period != last // period for period in periods)
    inside = plan.log_every > count and done // plan.log_every != last // plan.log_every
    passed = done // LOOK_EVERY != (done + count * (calls - 1)) // LOOK_EVERY
    return done % count == 0 and last < plan.steps and not crossed and not inside and not passed


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
