"""The noise of gradients in the course of a run: at its checkpoints, in noise.csv and in summary.json.

A resumed run keeps the rows of the steps that it has behind it. The clock of the run stands still while noise is
measured, so that `seconds` are those of training.
"""

import csv
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vi_core.problem import Problem
from vi_core.storage.reading import damaged
from vi_core.training.callbacks import Callback
from vi_core.training.loop import Loop

from .diagnostics import gradient_noise
from .files import csv_text, write_text

MOST_POINTS = 20  # in a run, whatever its checkpoints
OWN = ("step", "total", "total_se")  # columns of noise.csv before those of latents or layers


class NoiseAlong(Callback):
    """Measures the noise of the gradient at the checkpoints of a run but the last, into `found["gradient"]["along"]`.

    Args:
        problem: Of the run.
        count: Gradient estimates, at least 2.
        found: The run's diagnostics, which have the noise at the start already.

    Attributes:
        rows: What has been measured.
    """

    def __init__(self, problem: Problem, count: int, found: dict[str, Any]):
        self.problem, self.count, self.found = problem, count, found

    def on_start(self, loop: Loop, config: Mapping[str, Any], folder: Path | None) -> None:
        self.path = None if folder is None else folder / "noise.csv"
        before = read_noise(self.path) if self.path is not None and loop.done else []
        self.rows = self.found["gradient"]["along"] = [row for row in before if row["step"] <= loop.done]

    def on_checkpoint(self, loop: Loop) -> None:
        last = self.rows[-1]["step"] if self.rows else 0
        if loop.status is not None or loop.done - last < loop.plan.steps / MOST_POINTS:
            return
        started = time.perf_counter()
        noise = gradient_noise(self.problem, self.count, self.problem.step.alive.cpu().numpy())
        total = noise["total"]
        groups = noise["latents"] | noise.get("networks", {})
        self.rows.append({"step": loop.done, "total": total["mean"], "total_se": total["se"], "latents": groups})
        if self.path is not None:
            write_text(self.path, noise_text(self.rows))
        seconds = time.perf_counter() - started
        loop.started += seconds
        loop.recorder.started += seconds


def noise_text(rows: list[dict[str, Any]]) -> str:
    """Return rows of noise as the text of noise.csv; numbers that are missing are empty."""
    cells = [[*(row[name] for name in OWN), *row["latents"].values()] for row in rows]
    return csv_text([[*OWN, *rows[0]["latents"]], *cells])


def read_noise(path: Path) -> list[dict[str, Any]]:
    """Return what `noise_text` wrote to a file; nothing where there is none.

    Raises:
        DataError: Where it is another table.
    """
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8") as lines:
            rows = [
                {name: float(text) if text else None for name, text in row.items()} for row in csv.DictReader(lines)
            ]
        return [
            {"step": int(row["step"] or 0), "total": row["total"], "total_se": row["total_se"]}
            | {"latents": {name: value for name, value in row.items() if name not in OWN}}
            for row in rows
        ]
    except (ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise damaged(path, "it is no table of noise") from error
