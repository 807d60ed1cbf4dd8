"""Which executor makes the next steps of a run.

`trainer.execution=auto` is one rule: the recorded form of the device (a replay on a processor, a CUDA graph on a GPU)
where the step can be recorded, as `Model.recordable` has it, and the run is long enough to be worth the half second
that recording takes, else eager steps; machine code only where an earlier run with `execution=compiled` has stored it
for the same step and the run is long enough to be worth reading it.

A recorded step that does not fit, because an evaluation, a checkpoint or the end of an epoch lies within a call, is
made eagerly.
"""

import logging
import time
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from vi_core.algorithms.base import Step
from vi_core.execution.base import EagerSteps, Executor, NotStored
from vi_core.storage.renamed import EXECUTIONS
from vi_core.training.batches import Batches
from vi_core.training.trainer import Mode, Plan

log = logging.getLogger(__name__)
CHUNK = 10  # steps in a call, at most
CALLS = 10  # calls after which the loop looks around where all steps see the same data
SOON = 0.5  # seconds: the longest time of several calls, or of several steps in a call, that an interrupt waits for
LOOK_EVERY = 100  # steps between two looks at the device: divergence, progress
TIMED = 3  # eager steps that `auto` times; the first is slow, and the fastest counts
RECORDING, READING = 0.5, 7.0  # seconds to record a step, and to read machine code: 6 to import the compiler
WORTH = 4  # an executor is worth its seconds where eager steps would take so many times as long
RECORDED: dict[str, Mode] = {"cpu": "replay", "cuda": "cuda_graph"}  # the recorded form of each type of device

EXECUTORS = {"replay": "ReplayedSteps", "cuda_graph": "GraphedSteps", "compiled": "CompiledSteps"}  # module -> class


class Execution:
    """The executors of a run: eager steps, and one of the others once it is made.

    Args:
        mode: `auto`, `eager`, `replay`, `cuda_graph` or `compiled`.
        step: The algorithm.
        plan: Of the run.
        batches: The stream of batches.
        folder: Where machine code is stored, or None for nowhere.

    Attributes:
        mode: As given; where that is `auto`, what was settled on once it is.
        executor: Makes several steps in a call; None while steps are eager.
        seconds: Time that making the executor took.
    """

    def __init__(self, mode: Mode, step: Step, plan: Plan, batches: Batches, folder: Path | None = None):
        self.mode: Mode = mode if mode != "auto" or step.model.recordable else "eager"
        self.step, self.plan, self.batches, self.folder = step, plan, batches, folder
        self.eager = EagerSteps(step, batches)
        self.executor: Executor | None = None
        self.seconds = 0.0
        self.count = 0  # steps in a call, once settled
        self.timed: list[float] = []  # seconds of eager steps
        self.last = 0.0  # seconds of a step in the last call
        self.before: Mode = "eager"  # how the steps before a checkpoint were made

    @property
    def used(self) -> Mode:
        """How steps are made now, or were made where no step has been made since the checkpoint."""
        return self.before if self.executor is None else self.mode

    def next(self, done: int, window: int | None) -> tuple[Executor, list[Any], int]:
        """Return an executor that can follow step `done`, its stored batches, and the data points in each.

        Args:
            done: Steps that were made.
            window: Steps between two looks of the stopping rule, which must not lie within a call; None for no rule.
        """
        if self.mode == "auto" and len(self.timed) == TIMED:
            self._settle((self.plan.steps - done) * min(self.timed), window)
        if self.mode not in ("auto", "eager"):
            count = self.count = self.count or self._count(window)
            calls = next((n for n in (self._calls(), 1) if fits(done, count, n, self.plan, window)), 0)
            ahead = calls and self.batches.full_ahead(count)
            if ahead and (self.executor is not None or self._make()):
                stored = [self.batches.next_stored()[0] for _ in range(count * calls)]
                return cast(Executor, self.executor), stored, self.batches.weight
        stored, size = self.batches.next_stored()
        return self.eager, [stored], size

    def observe(self, seconds: float) -> None:
        """Take note of the seconds of a step in the call that was made."""
        self.last = seconds
        if self.mode == "auto":
            self.timed.append(seconds)

    def _settle(self, left: float, window: int | None) -> None:
        """Settle `auto`, given the seconds that eager steps would take to the end of the run."""
        self.mode = "compiled"
        self.count = self._count(window)
        some_code = self.folder is not None and any(self.folder.glob("*.bin"))
        if some_code and left > WORTH * READING and self._make(compiles=False):
            return
        recorded = RECORDED.get(self.step.alive.device.type, "eager")
        self.mode = recorded if left > WORTH * RECORDING else "eager"
        self.count = self._count(window)

    def _count(self, window: int | None) -> int:
        """Return the steps in a call: up to ten on a processor, unless they would take long to make or to compile.

        A step on a minibatch is arithmetic for the most part, and ten of them take ten times as long to compile.
        """
        long = self.batches.full is None if self.mode == "compiled" else CHUNK * self.last > SOON
        alone = long or self.mode == "cuda_graph" or not self.step.alive.is_cpu
        return 1 if alone else chunk_of(self.plan, window)

    def _calls(self) -> int:
        """Return how many calls the loop may make at once; the first one is made alone, and timed."""
        soon = self.executor is not None and CALLS * self.count * self.last < SOON
        return CALLS if soon and self.batches.full is not None else 1

    def _make(self, compiles: bool = True) -> bool:
        """Make the executor of the mode; where that fails, say so and go on with eager steps."""
        started = time.perf_counter()
        try:
            if not self.step.model.recordable:
                raise RuntimeError(f"{type(self.step.model).__name__} is evaluated outside torch")
            self.executor = self._executor(compiles)
        except NotStored:
            return False
        except Exception as error:
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            log.warning("no trainer.execution=%s for these steps (%s); they are eager", self.mode, reason)
            self.mode = "eager"
            return False
        self.seconds += time.perf_counter() - started
        return True

    def _executor(self, compiles: bool) -> Executor:
        """Import the module of the mode, and with it private interfaces of torch, and make its executor."""
        of_run = (self.step, self.batches, self.count, self.plan.log_every)
        made = getattr(import_module(f"vi_core.execution.{self.mode}"), EXECUTORS[self.mode])
        return made(*of_run, self.folder, compiles) if self.mode == "compiled" else made(*of_run)

    def state_dict(self) -> dict[str, Any]:
        return {"mode": self.mode, "used": self.used}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on as the run had settled, where `auto` is asked for and this device can."""
        mode = EXECUTIONS.get(state["mode"], state["mode"])
        self.before = cast(Mode, EXECUTIONS.get(state["used"], state["used"]))
        own = RECORDED.get(self.step.alive.device.type)
        if self.mode == "auto" and mode in ("eager", "compiled", own):
            self.mode = cast(Mode, mode)


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
