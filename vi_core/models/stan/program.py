"""A Stan program with its data: log density, gradient and constrained values, through the interface of BridgeStan.

The density is that of the unconstrained parameters u, with the log-determinant of the transforms in it. The package
`stanli` interprets the text of a program; `bridgestan` loads one that was compiled to a library. Both are imported
where a program is first read. Points are evaluated one by one. Evaluations release Python's lock, and those that take
longer than threads wait for each other are spread over all processors.
"""

import json
import logging
import os
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from vi_core.errors import ConfigError, DataError, LabError, did_you_mean
from vi_core.extras import needed

log = logging.getLogger(__name__)
WORTH_THREADS = 1e-4  # seconds of an evaluation, from which on threads save more than they cost
WHOLE = 2**31  # floating numbers below it that are whole are passed as integers, which Stan reads as both
FIRST_LOOK = 20  # points at which a program is tried before it is fitted
MISSING = r"unknown data variable (\w+)|variable does not exist.*variable name=(\w+)|expression needs unknown int (\w+)"
LIBRARIES = (".so", ".dylib", ".dll")


@dataclass(frozen=True)
class Variable:
    """A variable of a program.

    Attributes:
        shape: As declared.
        places: Its elements among all values of a point, in the order of a row-major array.
    """

    shape: tuple[int, ...]
    places: tuple[int, ...]


class Program:
    """A program with its data.

    Args:
        file: A text that ends in .stan, or a library; for messages.
        content: Of the file.
        data: By the names that the program declares.

    Raises:
        ConfigError: For a text that is no program, in one line with the place in the file.
        DataError: For data that are not those that the program declares.

    Attributes:
        drops_constants: Whether the density lacks constants: those of `~` statements, which `stanli` leaves out.
        size: D, unconstrained parameters.
    """

    def __init__(self, file: Path, content: bytes, data: Mapping[str, Tensor]):
        self.file = file
        text = json.dumps({name: plain(value) for name, value in data.items()})
        make = self._interpreted if file.suffix == ".stan" else self._loaded
        try:
            self.library = make(content, text)
        except RuntimeError as error:
            raise refusal(file, str(error), data) from None
        self.size = self.library.param_unc_num()
        if not self.size:
            raise ConfigError(f"{file} declares no parameters, so that there is nothing to fit.")
        self.errors: list[str] = []
        self.seconds = 0.0
        self.drops_constants = self._lacks_constants()

    def _interpreted(self, content: bytes, data: str) -> Any:
        stanli = needed("stanli", "stan")
        needed("bridgestan", "stan")
        code = content.decode()
        if re.search(r"^\s*#include", code, re.MULTILINE):
            raise ConfigError(f"{self.file}: put the text in place of its #include; a run keeps a copy of one file.")
        return stanli.bridgestan_model(stan_code=code, data=data, name=self.file.stem)

    def _loaded(self, content: bytes, data: str) -> Any:
        bridgestan = needed("bridgestan", "stan")
        try:
            return bridgestan.StanModel(str(self.file), data, warn=False)
        except (OSError, AttributeError) as error:
            raise ConfigError(f"{self.file} is no library that BridgeStan made: {one_line(str(error))}") from None

    def _lacks_constants(self) -> bool:
        """Whether the library refuses to keep constants, and no other error says so."""
        for u in starts(self.size):
            try:
                self.library.log_density(u, propto=False)
                return False
            except RuntimeError as error:
                if "propto" in str(error):
                    return True
        return False

    def first_look(self) -> None:
        """Raise `ConfigError` with Stan's message where the program fails at each of some points."""
        self.errors.clear()
        self.values(starts(self.size))
        failed, self.errors = self.errors, []
        if len(failed) == FIRST_LOOK:
            raise ConfigError(f"{self.file} fails at each of {FIRST_LOOK} points between -2 and 2: {failed[0]}")

    def values(self, u: np.ndarray) -> np.ndarray:
        """Return the log density at points (S, D), (S,); −∞ where the program fails."""
        found = np.full(len(u), -np.inf)

        def evaluate(i: int) -> None:
            found[i] = self.library.log_density(u[i], propto=self.drops_constants)

        self._at_each(evaluate, len(u))
        return np.where(np.isnan(found), -np.inf, found)

    def gradients(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return log densities (S,) and gradients (S, D) at points (S, D); −∞ and zero where the program fails."""
        found, slopes = np.full(len(u), -np.inf), np.zeros_like(u)

        def evaluate(i: int) -> None:
            keep = self.drops_constants
            found[i], _ = self.library.log_density_gradient(u[i], propto=keep, out=slopes[i])

        self._at_each(evaluate, len(u))
        failed = np.isnan(found) | (found == -np.inf)
        found[failed], slopes[failed] = -np.inf, 0.0
        return found, slopes

    def constrained(self, u: np.ndarray, transformed: bool, seed: int | None) -> np.ndarray:
        """Return constrained values at points (S, D), one row for each in the order of `variables`; NaN where it fails.

        Args:
            u: Points.
            transformed: With transformed parameters.
            seed: Of generated quantities, or None for none; they are computed one after the other.
        """
        made = {"include_tp": transformed, "include_gq": seed is not None}
        rng = None if seed is None else self.library.new_rng(seed)
        found = np.full((len(u), self.library.param_num(**made)), np.nan)

        def evaluate(i: int) -> None:
            found[i] = self.library.param_constrain(u[i], rng=rng, **made)

        self._at_each(evaluate, len(u), threads=seed is None)
        return found

    def variables(self, transformed: bool, generated: bool) -> dict[str, Variable]:
        """Return the program's variables by name: parameters, and others on request."""
        return grouped(self.library.param_names(include_tp=transformed, include_gq=generated))

    def unconstrained(self) -> dict[str, Variable]:
        """Return the unconstrained coordinates of each parameter, side by side."""
        return grouped(self.library.param_unc_names())

    def _at_each(self, evaluate: Callable[[int], None], count: int, threads: bool = True) -> None:
        """Evaluate at each of `count` points, on all processors where it is worth it; note the program's errors."""

        def each(points: range) -> None:
            for i in points:
                try:
                    evaluate(i)
                except RuntimeError as error:
                    self.errors.append(one_line(str(error)))

        if threads and self.seconds > WORTH_THREADS and min(count, processors()) > 1:
            list(pool().map(each, [range(first, count, processors()) for first in range(processors())]))
            return
        started = time.perf_counter()
        each(range(count))
        self.seconds = (time.perf_counter() - started) / max(1, count)


@cache
def pool() -> ThreadPoolExecutor:
    """Return the threads of this process, one for each processor that it may use."""
    return ThreadPoolExecutor(processors(), "stan")


@cache
def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def starts(size: int) -> np.ndarray:
    """Return the points of the first look, uniform between −2 and 2, (FIRST_LOOK, D); the same each time."""
    return np.random.default_rng(0).uniform(-2, 2, (FIRST_LOOK, size))


def plain(value: Tensor) -> Any:
    """Return a tensor as nested lists; where all numbers are whole, as integers, which Stan reads as either type."""
    whole = value.is_floating_point() and bool(((value == value.round()) & (value.abs() < WHOLE)).all())
    return (value.long() if whole else value).tolist()


def grouped(names: list[str]) -> dict[str, Variable]:
    """Return variables by name from the names of their elements, such as `theta.2.1`, which are counted from 1."""
    elements: dict[str, dict[tuple[int, ...], int]] = {}
    for place, name in enumerate(names):
        base, *index = name.split(".")
        if not all(part.isdigit() for part in index):
            base, index = name, []  # of a tuple or a complex number: each of its numbers stands alone
        elements.setdefault(base, {})[tuple(int(part) - 1 for part in index)] = place
    found = {}
    for name, places in elements.items():
        shape = tuple(max(axis) + 1 for axis in zip(*places, strict=True))
        found[name] = Variable(shape, tuple(place for _, place in sorted(places.items())))
    return found


def refusal(file: Path, message: str, data: Mapping[str, Tensor]) -> LabError:
    """Return the error of one line for what keeps a program from being made."""
    text = one_line(message)
    if missing := re.search(MISSING, text):
        name, known = next(filter(None, missing.groups())), ", ".join(data) or "none"
        return DataError(f"{file} needs data '{name}', which are not there.{did_you_mean(name, data)} Known: {known}.")
    if other := re.search(r"variable name=(\w+);.*dims declared=(\S+); dims found=([^\s;.]+)", text):
        name, declared, found = other.groups()
        return DataError(f"{file} declares data '{name}' with shape {declared}, and these data have shape {found}.")
    if re.match("(Syntax|Semantic) error|Ill-", text):
        return ConfigError(f"{file}: {text}")
    return DataError(f"{file} cannot be made with these data: {text}")


def one_line(message: str) -> str:
    """Return Stan's message without the lines of the program that it shows."""
    lines = [line for line in message.splitlines() if line.strip() and not re.match(r"\s{3}", line)]
    text = re.sub(" in '[^']*', line", " in line", " ".join(" ".join(lines).split()))
    return text.removeprefix("stanli compile: ").rstrip(".!") + "."
