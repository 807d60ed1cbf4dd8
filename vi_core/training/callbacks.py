"""Callbacks: objects that a run informs of its events, such as progress bars, writers of files and trackers.

The order of events is start; then rows, evaluations and checkpoints as they come; then either end or failure, once. A
run informs the program's own callbacks first, so that files exist when those of the user are called. Between two looks
at the device, which are up to a hundred steps apart, a run publishes only what the device has no part in: an event adds
no synchronisation of its own, and a callback that reads a tensor synchronises once for it.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from vi_core.errors import NonFinite
from vi_core.training import checkpoint

if TYPE_CHECKING:
    from vi_core.training.loop import Loop

log = logging.getLogger(__name__)


class Callback:
    """Base class of all callbacks: every event does nothing unless a subclass says otherwise.

    The constructor of a callback that users choose has keyword-only plain settings, as that of every part.
    """

    def on_start(self, loop: "Loop", config: Mapping[str, Any], folder: Path | None) -> None:
        """Called before the first step, or before the first one after a resume.

        Args:
            loop: At its beginning or, on a resume, with `loop.done` steps behind it.
            config: The resolved settings of the run.
            folder: Where the run writes its files; None for a run without files.
        """

    def on_rows(self, loop: "Loop", rows: slice) -> None:
        """Called at each look at the device, about every hundred steps, and once more when training has ended.

        The host has just waited for the device. `loop.recorder.trace(rows)` copies the rows to the host. A resumed run
        publishes the rows that it makes again, so that a row is identified by its step.

        Args:
            loop: After `loop.done` steps; `loop.status` is None until training has ended.
            rows: The rows of the history that were closed since the last call; possibly none.
        """

    def on_evaluation(self, loop: "Loop", bound: Tensor) -> None:
        """Called after each evaluation on held-out data, without synchronisation.

        Args:
            loop: After `loop.done` steps.
            bound: The held-out bound per data point, with shape (R,), on the device.
        """

    def on_checkpoint(self, loop: "Loop") -> None:
        """Called when a checkpoint is due, and when training has ended; `loop.state_dict()` is its content."""

    def on_end(self, loop: "Loop", summary: Mapping[str, Any]) -> None:
        """Called when all files of a run are written, also where it was interrupted: see `loop.status`.

        Args:
            loop: With the whole history in `loop.recorder.trace()`.
            summary: The content of summary.json.
        """

    def on_failure(self, loop: "Loop", error: BaseException) -> None:
        """Called when an error ends the run between its start and its end; the error is raised again afterwards."""


class CheckpointWriter(Callback):
    """Writes each checkpoint, and the rows that are new in it.

    Args:
        path: Of the last checkpoint.
        content: Of the checkpoint that the run goes on from; None for a new run.
    """

    def __init__(self, path: Path, content: dict[str, Any] | None = None):
        self.file = checkpoint.CheckpointFile(path, content)

    def on_checkpoint(self, loop: "Loop") -> None:
        self.file.save(loop.state_dict(self.file.rows))


class HistoryWriter(Callback):
    """Writes the history to a CSV file when training has ended, or has diverged."""

    def __init__(self, path: Path):
        self.path = path

    def on_rows(self, loop: "Loop", rows: slice) -> None:
        if loop.status is not None:
            loop.recorder.trace().write(self.path)

    def on_failure(self, loop: "Loop", error: BaseException) -> None:
        if isinstance(error, NonFinite):
            loop.recorder.trace().write(self.path)


class Callbacks:
    """The callbacks of one run.

    An error of one of the program's own ends the run. One of the user's must not: the run says in one line which
    callback failed and goes on without it. Random numbers that the user's callbacks draw are not those of the run.

    Args:
        own: Of the program.
        chosen: Of the user, by name.
    """

    def __init__(self, own: Sequence[Callback] = (), chosen: Mapping[str, Callback] | None = None):
        self.own, self.chosen = list(own), dict(chosen or {})

    def publish(self, event: Callable[..., None], loop: "Loop", *values: Any) -> None:
        """Inform all callbacks of an event: a method of `Callback`, and the arguments after `loop`."""
        for callback in self.own:
            getattr(callback, event.__name__)(loop, *values)
        for name, callback in list(self.chosen.items()):
            try:
                with checkpoint.same_draws_after(loop.device):
                    getattr(callback, event.__name__)(loop, *values)
            except Exception as error:
                del self.chosen[name]
                reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
                log.warning("callbacks.%s failed in %s (%s); the run goes on without it", name, event.__name__, reason)
