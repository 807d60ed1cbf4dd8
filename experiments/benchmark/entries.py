"""The words in which problems are written: who takes part, with which settings, and what they have to answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vi_core.datasets.synthetic import NormalDraws

from .protocol import Settings

Answers = Mapping[str, tuple[float, float]]
"""Quantity -> its right value and the tolerance."""
MODES = {mode: f"trainer.execution={mode}" for mode in ("eager", "replay", "compiled")}
"""Modes of this program, and the setting that chooses each."""


@dataclass(frozen=True)
class Entry:
    """One contender at one problem.

    Attributes:
        contender: Who: `ours`, `report_000`, ...
        mode: How, where there are several ways.
        module: Of this package, with `build`; where processes are fresh, a function of `fresh.py`.
        settings: For it.
        scale: From seconds for one iteration to the problem's unit.
        answers: That it has to reach.
        at: The abscissa of a curve.
        threads: That it may use; None leaves that to the program.
        environment: Variables of its process.
        steps: Iterations to its answer, if not the problem's.
    """

    contender: str
    mode: str
    module: str
    settings: Settings
    scale: float = 1.0
    answers: Answers = field(default_factory=dict)
    at: float | None = None
    threads: int | None = 1
    environment: Mapping[str, str] = field(default_factory=dict)
    steps: int | None = None

    @property
    def process(self) -> tuple[str, str, int | None]:
        """Entries of one problem for which this is the same share a process."""
        return self.contender, self.mode, self.threads


@dataclass(frozen=True)
class Problem:
    """What is measured together.

    Attributes:
        name: For `benchmark.only`.
        unit: Of the times.
        entries: Who takes part.
        steps: Iterations to the answer.
        tail: The last of them, over which the bound is averaged.
        agree: How far a bound may be from the median of all; None where answers are given.
        fresh: Whether each repetition is a process of its own.
    """

    name: str
    unit: str
    entries: Sequence[Entry]
    steps: int = 0
    tail: int = 1
    agree: float | None = None
    fresh: bool = False


@dataclass(frozen=True)
class Place:
    """Where problems find and put their files, and what the machine has.

    Attributes:
        folder: For data.
        images: The file of images.
        cores: Of this machine.
    """

    folder: Path
    images: Path
    cores: int

    def points(self, count: int) -> str:
        """Return the file of so many points of `dataset=normal`: for 100 those of report 001."""
        path = self.folder / f"normal_{count}.npy"
        if not path.exists():
            np.save(path, NormalDraws(num_points=count).load().train.numpy())
        return str(path)


def ours(
    place: Place,
    name: str,
    overrides: Sequence[str],
    modes: Sequence[str] = tuple(MODES),
    *,
    more: Mapping[str, Any] | None = None,
    **entry: Any,
) -> list[Entry]:
    """Return this program in several modes, each with a compile cache of its own that is empty at first.

    `more` joins the settings, and `entry` the fields of each entry.
    """
    found = []
    for mode in modes:
        settings = {"overrides": [*overrides, MODES[mode]], "threads": entry.get("threads", 1), **(more or {})}
        cache = {"TORCHINDUCTOR_CACHE_DIR": str(place.folder / f"cache_{name}_{mode}")}
        found.append(Entry("ours", mode, "ours", settings, environment=cache, **entry))
    return found
