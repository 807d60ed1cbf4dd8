"""What a contender is, and the words that its process and the benchmark exchange.

A contender lives in a process of its own, started once. Messages are lines of JSON: the first one to it says what to
build, and each one after that asks for something, as in

    {"run": 100, "at": 0}      ->  {"seconds": 0.13}                 100 more iterations of its first problem
    {"answer": true, "at": 0}  ->  {"answer": {"mu": 0.89, ...}}     what it has found so far

The answer to the first is `{"ready": [{"stride": 1}, ...]}`; instead of any answer there can be `{"missing": why}`,
where something is not installed or not built yet, or `{"error": why}`. In between a contender waits and costs nothing,
so that contenders take turns, and what slows the machine down for a while slows all of them.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

Settings = Mapping[str, Any]
Answer = dict[str, float]


class Missing(Exception):
    """What a contender needs is not there; the message says what."""


class Broken(Exception):
    """A contender ended in an error; the message is its last line."""


class Contender(ABC):
    """One implementation of one problem."""

    stride: int = 1
    """Iterations in one call: numbers of iterations are multiples of it."""

    @abstractmethod
    def run(self, steps: int) -> float:
        """Make more iterations, and return what they took, in seconds."""

    @abstractmethod
    def answer(self) -> Answer:
        """Return what has been found: E[mu], E[tau], and the bound averaged over the last call of `run`."""


def seconds_of(work: Callable[[], object]) -> float:
    """Return how long `work()` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
