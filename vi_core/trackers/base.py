"""What trackers have in common: which scalars a row of the history has, and when a run tells of what.

A quantity of R replicates is its mean, with the band that holds the middle 90 % of the replicates, `<name>/low` to
`<name>/high`. A replicate that is not finite has no part in it. A run that goes on with an earlier one continues its
series: steps that were told before are told once.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vi_core.errors import Unsupported
from vi_core.training.callbacks import Callback
from vi_core.training.history import History
from vi_core.training.loop import Loop

BAND = (0.05, 0.95)
"""The quantiles over replicates that bound the band."""
Row = tuple[int, dict[str, float]]
"""A step and its scalars by name."""


class Tracker(Callback):
    """Base class: subclasses write down rows as they come, and what there is at the start and at the end.

    Attributes:
        folder: Of the run.
    """

    folder: Path

    def on_start(self, loop: Loop, config: Mapping[str, Any], folder: Path | None) -> None:
        if folder is None:
            raise Unsupported("a tracker needs a run with a folder.")
        self.folder = folder
        self.begin(config, loop.done)

    def on_rows(self, loop: Loop, rows: slice) -> None:
        history = loop.recorder.trace(rows)
        self.note_rows([(int(step), scalars(history, row)) for row, step in enumerate(history.step)])

    def on_end(self, loop: Loop, summary: Mapping[str, Any]) -> None:
        self.end(plain(summary), sorted((self.folder / "plots").glob("*")))

    def on_failure(self, loop: Loop, error: BaseException) -> None:
        self.end({"status": "failed", "error": f"{type(error).__name__}: {error}"}, [])

    def begin(self, config: Mapping[str, Any], done: int) -> None:
        """Note the settings of a run that begins, or goes on after `done` steps."""
        raise NotImplementedError

    def note_rows(self, rows: list[Row]) -> None:
        """Note the scalars of some steps, possibly of none."""
        raise NotImplementedError

    def end(self, summary: Mapping[str, Any], figures: list[Path]) -> None:
        """Note how the run ended, of a failed one only `status` and `error`, and close what is open."""
        raise NotImplementedError


def scalars(history: History, row: int) -> dict[str, float]:
    """Return the finite scalars of one row by name: values, or means with their bands."""
    found: dict[str, float] = {}
    for name, column in history.columns.items():
        values = column[row][np.isfinite(column[row])]
        if not len(values):
            continue
        found[name] = float(values.mean())
        if column.shape[1] > 1:
            found[f"{name}/low"], found[f"{name}/high"] = map(float, np.quantile(values, BAND))
    return found


def plain(value: Any) -> Any:
    """Return a copy for JSON, with null in place of infinities and NaN."""
    if isinstance(value, Mapping):
        return {key: plain(element) for key, element in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(element) for element in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return settings as texts by their dotted paths."""
    found: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return found
