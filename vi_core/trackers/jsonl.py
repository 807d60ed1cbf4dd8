"""The course of a run as lines of JSON, one for each event, which any program can follow while the run lives."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vi_core.storage.files import replacing
from vi_core.trackers.base import Row, Tracker


class Lines(Tracker):
    """Appends lines `start` with the settings, `row` with the scalars of a step, and `end` with the summary.

    Args:
        file: Where, as seen from the run's folder.
    """

    def __init__(self, *, file: str = "events.jsonl"):
        self.file = file

    def begin(self, config: Mapping[str, Any], done: int) -> None:
        path = self.folder / self.file
        if done and path.exists():
            forget_after(path, done)
        elif path.exists():
            path.unlink()
        self.note("start", step=done, config=config)

    def note_rows(self, rows: list[Row]) -> None:
        for step, values in rows:
            self.note("row", step=step, **values)

    def end(self, summary: Mapping[str, Any], figures: list[Path]) -> None:
        names = [path.relative_to(self.folder).as_posix() for path in figures]
        self.note("end", summary=summary, figures=names)

    def note(self, event: str, **content: Any) -> None:
        """Append a line, which is on its way to the disk when this returns."""
        with (self.folder / self.file).open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"event": event, **content}, default=str) + "\n")


def forget_after(path: Path, done: int) -> None:
    """Leave out the rows of steps after `done`, which the run makes again, and a line that was cut off."""
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n") and json.loads(line).get("step", 0) <= done:
            kept.append(line)
    with replacing(path) as unfinished:
        unfinished.write_text("".join(kept), encoding="utf-8")
