"""A contender for tests, light enough to start in no time: it says, lies, breaks and takes what its settings tell."""

import sys
import time
from pathlib import Path

from experiments.benchmark.protocol import Answer, Contender, Missing, Settings


def build(settings: Settings) -> Contender:
    """Return the contender, or be missing."""
    if "missing" in settings:
        raise Missing(settings["missing"])
    return Scripted(settings)


class Scripted(Contender):
    """Notes each call in the file `log` as `name steps`, and claims one of its `seconds` for an iteration of it."""

    def __init__(self, settings: Settings):
        self.settings, self.stride = settings, settings.get("stride", 1)
        self.seconds = [*settings.get("seconds", [1e-3])]
        self.kept: list[bytearray] = []

    def run(self, steps: int) -> float:
        if self.settings.get("crash"):
            sys.exit(3)
        if "log" in self.settings:
            with Path(self.settings["log"]).open("a") as log:
                log.write(f"{self.settings['name']} {steps} {time.monotonic_ns()}\n")
        self.kept.append(bytearray(b"x" * self.settings.get("bytes", 0)))
        each = self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0]
        return each * steps

    def answer(self) -> Answer:
        return self.settings.get("answer", {"mu": 1.0})
