"""The training loop. Every algorithm is a `Step`, so that recording, stopping and resuming are written once."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from vi_core.algorithms.base import Step
from vi_core.errors import DataError, NonFinite, matrices_factorized
from vi_core.execution.base import Executor
from vi_core.execution.choice import LOOK_EVERY, Execution
from vi_core.training import checkpoint
from vi_core.training.batches import Batches
from vi_core.training.callbacks import Callback, Callbacks
from vi_core.training.recorder import Recorder
from vi_core.training.stopping import StoppingRule
from vi_core.training.trainer import Plan

Status = Literal["completed", "converged", "interrupted", "diverged"]


@dataclass
class Loop:
    """Drive `step` through a plan, with recording, held-out evaluation, checkpoints and stopping.

    Attributes:
        plan: How many steps, and how often to record, evaluate and save.
        execution: Chooses how the next steps are made.
        on_nonfinite: `raise`, `stop` or `skip` (freeze the replicate and go on) when one diverges.
        evaluate: Returns the held-out bound (R,).
        interrupted: Asked after every step; True ends the run in good order.
        callbacks: Informed of rows, evaluations and checkpoints.
        checksum: Of the data, so that a run is not resumed on others.
        identity: Of the settings, for the same reason.
        done: Steps made.
        ended: Why the run ended before its last step, for good: a resumed run does not go on.
        status: Why training ended; None while it goes on.
        held: (R,) for which replicates the stopping rule holds, where a window of it ends with the present step.
        seconds: Time spent in the loop, over all resumes.
        published: Rows that callbacks know of.
    """

    step: Step
    batches: Batches
    recorder: Recorder
    stopping: StoppingRule
    plan: Plan
    execution: Execution
    on_nonfinite: str
    evaluate: Callable[[], Tensor]
    interrupted: Callable[[], bool]
    callbacks: Callbacks = field(default_factory=Callbacks)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    checksum: str = ""
    identity: str = ""
    done: int = 0
    ended: Status | None = None
    status: Status | None = None
    held: Tensor | None = None
    seconds: float = 0.0
    published: int = 0

    @matrices_factorized()
    def run(self) -> Status:
        """Run to the last step or to the first reason to stop; return why training ended.

        Raises:
            NonFinite: Where a replicate diverges and `on_nonfinite` is `raise`.
        """
        self.started = time.perf_counter() - self.seconds
        status = self.ended
        if status is None:
            self.status = None
            try:
                status = self._advance()
            finally:
                self.seconds = time.perf_counter() - self.started
        return self.conclude(status)

    def conclude(self, status: Status) -> Status:
        """Publish the last checkpoint and the last rows of training that has ended; return `status`."""
        self.status = status
        self.ended = status if status in ("converged", "diverged") else None
        self._checkpoint()
        if self.recorder.weight:  # after saving: a resumed run completes this interval, as if it had not been cut
            self.recorder.close_row(self.done)
        self._publish_rows()
        return status

    def _advance(self) -> Status:
        plan = self.plan
        while self.done < plan.steps:
            before = self.done
            executor, batches, size = self.execution.next(before, self.stopping.window)
            started = time.perf_counter()
            self._make_steps(executor, batches, size)
            self.execution.observe((time.perf_counter() - started) / len(batches))
            status = self._after_steps(looks=self.done // LOOK_EVERY > before // LOOK_EVERY)
            if status:
                return status
        return "completed"

    def _make_steps(self, executor: Executor, batches: list[Any], size: int) -> None:
        """Make a step on each of the stored batches, of `size` data points each."""
        rows = executor(batches)
        self.recorder.observe_rows(rows, size, self.done)
        self.done += len(batches)
        if self.stopping.window is not None:
            for bound in rows.metrics[:, 0]:
                self.stopping.observe(bound)

    def _after_steps(self, looks: bool) -> Status | None:
        last = self.done == self.plan.steps
        if self.recorder.weight and (last or self.done % self.plan.log_every == 0):
            self.recorder.close_row(self.done)
        if self.plan.eval_every and (last or self.done % self.plan.eval_every == 0):
            bound = self.evaluate()
            self.recorder.record_held_out(bound)
            self.callbacks.publish(Callback.on_evaluation, self, bound)
        window = self.stopping.window
        self.held = None if window is None or self.done % window else self.stopping.holds(self.step.moving)
        converged = self.held is not None and bool((self.held | ~self.step.alive).all())
        if last or converged or looks:
            self.step.check()
            if self._diverged():
                return "diverged"
        if last or looks or self.held is not None:
            self._publish_rows()
        if converged:
            return "converged"
        if self.interrupted():
            return "interrupted"
        if not last and self.done % self.plan.checkpoint_every == 0:
            self._checkpoint()
        return None

    def _publish_rows(self) -> None:
        rows = slice(self.published, self.recorder.rows)
        self.published = self.recorder.rows
        self.callbacks.publish(Callback.on_rows, self, rows)

    def _diverged(self) -> bool:
        """Look whether a replicate has diverged; True ends the run."""
        alive = self.step.alive
        if bool(alive.all()):
            return False
        if self.on_nonfinite == "raise":
            raise NonFinite(self.describe_divergence())
        return self.on_nonfinite == "stop" or not bool(alive.any())

    def describe_divergence(self) -> str:
        """Name the first replicate that diverged, its step, what was not finite, and its values before."""
        step = self.step
        good = torch.where(step.alive, torch.iinfo(torch.long).max, step.good_steps)
        replicate = int(good.argmin())
        seen = dict(zip(step.witnesses, step.witness[replicate].tolist(), strict=True))
        bad = [name for name, value in seen.items() if not torch.tensor(value).isfinite()]
        bad = bad or ["the step along a finite gradient (a singular Fisher information, which optimizer.damping mends)"]
        (bound, value), *gradients = seen.items()
        shown = ", ".join(f"{name}: {slope:.4g}" for name, slope in gradients[:8])
        return (
            f"step {int(good[replicate]) + 1}, replicate {replicate}: not finite: {', '.join(bad[:4])} "
            f"({bound} = {value:.6g}; gradients {shown}). {step.remedy}"
        )

    def _checkpoint(self) -> None:
        """Publish a checkpoint, unless a replicate has just diverged and the run is to raise."""
        if self.on_nonfinite == "raise" and not bool(self.step.alive.all()):
            raise NonFinite(self.describe_divergence())
        self.callbacks.publish(Callback.on_checkpoint, self)

    def state_dict(self, first: int = 0) -> dict[str, Any]:
        """Return the content of a checkpoint, with the recorded rows from number `first` on."""
        return {
            "identity": self.identity,
            "done": self.done,
            "start_gradients": self.step.start_gradients,
            "ended": self.ended,
            "checksum": self.checksum,
            "seconds": time.perf_counter() - self.started,
            "step": self.step.state_dict(),
            "stopping": self.stopping.state_dict(),
            "recorder": self.recorder.state_dict(first=first),
            "batches": self.batches.state_dict(),
            "execution": self.execution.state_dict(),
            "random": checkpoint.random_state(self.device),
        }

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Continue from the content of a checkpoint.

        Raises:
            DataError: Where it is of other data or settings.
        """
        if content["checksum"] != self.checksum:
            raise DataError(
                f"the data are not those of this run (checksum {self.checksum} instead of {content['checksum']}); "
                "restore them, or start a new run."
            )
        try:
            self.step.load_state_dict(content["step"])
            self.stopping.load_state_dict(content["stopping"])
            self.recorder.load_state_dict(content["recorder"])
            self.batches.load_state_dict(content["batches"])
            self.execution.load_state_dict(content.get("execution") or content["compile"])
            checkpoint.restore_random_state(content["random"], self.device)
            self.done, self.seconds, self.ended = content["done"], content["seconds"], content["ended"]
            self.published = self.recorder.rows
            self.started = time.perf_counter() - self.seconds
        except (KeyError, RuntimeError, AttributeError, TypeError) as error:
            raise DataError(
                f"checkpoint.pt does not fit this configuration ({str(error).splitlines()[0]}); "
                "resume with the run's own model, family, optimizer and replicates."
            ) from error
