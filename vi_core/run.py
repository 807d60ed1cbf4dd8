"""A run: settings, problem, loop and history in one object, from which every summary and every file is made."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vi_core.execution.choice import Execution
from vi_core.problem import Problem
from vi_core.schema import Config, construct
from vi_core.training.callbacks import Callback, Callbacks, CheckpointWriter, HistoryWriter
from vi_core.training.history import History
from vi_core.training.loop import Loop, Status
from vi_core.training.recorder import Recorder
from vi_core.training.trainer import Trainer

Summary = dict[str, Any]


class Run:
    """A fit of one problem.

    Args:
        config: Resolved settings, of which it uses `trainer`, `replicates` and, where there are some, `callbacks`.
        problem: At its first parameters.
        folder: Where checkpoint.pt and trace.csv are written; None writes no files.
        own: Callbacks of the program, beside those that write the files.
        interrupted: Asked after every step; True ends training in good order.
        content: Of the checkpoint from which `resume` goes on, for which the history reserves rows.
        code: Folder where machine code of steps is stored, or None for nowhere.
        identity: Of the settings, which checkpoints hold.

    Attributes:
        diagnostics: What was measured at the first and at the last parameters.
    """

    def __init__(
        self,
        config: Config,
        problem: Problem,
        folder: Path | None = None,
        *,
        own: Sequence[Callback] = (),
        interrupted: Callable[[], bool] = lambda: False,
        content: dict[str, Any] | None = None,
        code: Path | None = None,
        identity: str = "",
    ):
        self.config, self.problem, self.folder, self.content = config, problem, folder, content
        self.trainer: Trainer = construct(config["trainer"], "trainer")
        self.device, self.diagnostics = problem.step.alive.device, {}
        if content is not None:  # whose parameters come from a start that is not searched for again
            problem.step.start_gradients = content.get("start_gradients", 0)
        spent, each = problem.step.start_gradients, problem.gradients_each
        plan = self.trainer.plan(problem.batches.steps_per_epoch, config["replicates"], spent, each)
        self.plan = replace(plan, steps=1) if problem.family.fixed else plan
        if self.trainer.max_gradients is not None:
            problem.step.within(plan.steps)
        writers: list[Callback] = []
        if folder is not None:
            writers = [CheckpointWriter(folder / "checkpoint.pt", content), HistoryWriter(folder / "trace.csv")]
        chosen = {name: construct(part, f"callbacks.{name}") for name, part in config.get("callbacks", {}).items()}
        self.callbacks = Callbacks([*writers, *own], chosen)
        self.trainer.stopping.bind(problem.step.moving, problem.family.replicates)
        rows = len(content["recorder"]["steps"]) if content else 0
        self.loop = Loop(
            step=problem.step,
            batches=problem.batches,
            recorder=Recorder(problem.step, rows + self.plan.rows),
            stopping=self.trainer.stopping.to(self.device),
            plan=self.plan,
            execution=Execution(self.trainer.execution, problem.step, self.plan, problem.batches, code),
            on_nonfinite=self.trainer.on_nonfinite,
            evaluate=problem.held_out,
            interrupted=lambda: self.late or interrupted(),
            callbacks=self.callbacks,
            device=self.device,
            checksum=problem.checksum,
            identity=identity,
        )

    def fit(self, summarize: Callable[["Run"], Summary], trained: Status | None = None) -> Summary:
        """Train, summarize, and publish the start and then the end or the failure.

        Args:
            summarize: Returns the summary of the trained run, after it has written the other files.
            trained: Why training had ended before `content` was saved; None goes on with training.
        """
        if self.content is not None:
            self.loop.load_state_dict(self.content)
        if trained is not None:
            self.loop.published = 0
        self.callbacks.publish(Callback.on_start, self.loop, self.config, self.folder)
        try:
            self.loop.run() if trained is None else self.loop.conclude(trained)
            summary = summarize(self)
        except BaseException as error:
            self.callbacks.publish(Callback.on_failure, self.loop, error)
            raise
        self.callbacks.publish(Callback.on_end, self.loop, summary)
        return summary

    def __repr__(self) -> str:
        place = "" if self.folder is None else f" in {self.folder}"
        return f"Run of {self.problem}: {self.loop.done} of {self.plan.steps} steps{place}"

    @property
    def late(self) -> bool:
        """Whether training has taken `trainer.max_seconds`."""
        limit = self.trainer.max_seconds
        return limit is not None and time.perf_counter() - self.loop.started > limit

    @property
    def gradients(self) -> int:
        """Gradients of the density that each replicate has taken, those of its start included."""
        return self.problem.step.start_gradients + self.loop.done * self.problem.gradients_each

    @property
    def alive(self) -> np.ndarray:
        """(R,) which replicates have not diverged."""
        return self.problem.step.alive.cpu().numpy()

    @property
    def history(self) -> History:
        """The recorded rows, on the host."""
        return self.loop.recorder.trace()
