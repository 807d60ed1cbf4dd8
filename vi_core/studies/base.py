"""Base class of a study: numbers that are computed, not trained, each beside its exact answer where one exists."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:  # matplotlib is imported only where something is drawn
    from matplotlib.figure import Figure

Records: TypeAlias = Mapping[str, np.ndarray]
Figures: TypeAlias = "dict[str, Figure]"


class Quantity(NamedTuple):
    """One number that a study reports.

    Attributes:
        value: The number.
        se: Standard error of a Monte Carlo estimate; None for a number that is computed without sampling.
        exact: The same number by other means, where such are known.
    """

    value: float
    se: float | None = None
    exact: float | None = None

    @property
    def error(self) -> float | None:
        """The difference value − exact, where the exact number is known."""
        return None if self.exact is None else self.value - self.exact

    @property
    def z(self) -> float | None:
        """The standardised error (value − exact)/se, where both are known."""
        return None if not self.se or self.exact is None else (self.value - self.exact) / self.se


def doubles(values: Any) -> Tensor:
    """Return a number, or nested lists of numbers, as a float64 tensor: claims are compared to many digits."""
    return torch.tensor(values, dtype=torch.float64)


def average(samples: Tensor, exact: float | None = None) -> Quantity:
    """Return the mean of independent samples with its standard error, beside its exact value.

    Args:
        samples: (N,), at least two.
        exact: The mean by another route, where it is known.
    """
    return Quantity(samples.mean().item(), samples.std().item() / math.sqrt(len(samples)), exact)


def entries(name: str, values: Tensor, exact: Tensor, errors: Tensor | None = None) -> dict[str, Quantity]:
    """Return a quantity for each entry of a vector, or for each distinct entry of a symmetric matrix.

    Args:
        name: Of the whole; the index of an entry follows it in brackets.
        values: Estimates, (C,) or (C, C).
        exact: The same by another route.
        errors: Standard errors of Monte Carlo estimates; None for numbers that are computed.
    """
    return {
        f"{name}[{','.join(map(str, i))}]": Quantity(
            values[i].item(), None if errors is None else errors[i].item(), exact[i].item()
        )
        for i in np.ndindex(*values.shape)
        if i == tuple(sorted(i))
    }


@dataclass(frozen=True)
class Finding:
    """Result of a study.

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
    def figures(self, records: Records) -> Figures:
        """Draw the figures by name from the records of a finding, in memory or read back from a run's folder."""
