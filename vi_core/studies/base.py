"""The contract of a study: numbers that are computed, not trained, each beside its exact answer where one exists."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Quantity(NamedTuple):
    """One number that a study reports."""

    value: float
    se: float | None = None
    """Standard error of a Monte Carlo estimate; None for what is computed without sampling."""
    exact: float | None = None
    """The same number by other means."""

    @property
    def z(self) -> float | None:
        """The standardised error (value − exact)/se, where both are known."""
        return None if not self.se or self.exact is None else (self.value - self.exact) / self.se


@dataclass(frozen=True)
class Finding:
    """What a study found.

    Attributes:
        quantities: Numbers by name; a name has no dot, so that `expected` can point to `estimates.<name>.mean`.
        records: Arrays by name, all that the figures are drawn from.
    """

    quantities: dict[str, Quantity]
    records: dict[str, np.ndarray]


class Study(ABC):
    """A computation with settings: the constructor's keywords are the keys of its YAML file."""

    @abstractmethod
    def run(self) -> Finding:
        """Compute everything, with torch's default random stream where something is drawn."""

    @abstractmethod
    def figures(self, records: Mapping[str, np.ndarray]) -> "dict[str, Figure]":
        """Draw the figures by name from the records of a finding, in memory or read back."""
