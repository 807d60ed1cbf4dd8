"""Base class of a study: numbers that are computed, not trained, each beside its exact answer where one exists."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
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


class Form(NamedTuple):
    """What an array must be like for the figures that are drawn from it.

    Attributes:
        axes: Length of each axis; a letter stands for any length, the same in all arrays of a study.
        kind: Of its elements: a key of `KINDS`.
        least: No number is below it; None for no such limit.
        below: All numbers are below it; None for no such limit.
        most: The greatest length of an axis with a letter.
        ascending: Whether each number is greater than the one before.
    """

    axes: tuple[int | str, ...]
    kind: str = "number"
    least: int | None = None
    below: int | None = None
    most: int = 10**6
    ascending: bool = False


KINDS = {"number": "fiu", "integer": "iu", "text": "U"}  # kinds of NumPy's types


def misfit(records: Records, forms: Mapping[str, Form]) -> str:
    """Return what keeps records from having their forms, naming one of them; empty where nothing does."""
    lengths = dict[str, int]()
    for name, form in forms.items():
        array, kind = records[name], form.kind
        pairs = list(zip(form.axes, array.shape, strict=False))
        own = [size <= form.most if isinstance(axis, str) else size == axis for axis, size in pairs]
        shared = [lengths.setdefault(axis, size) == size for axis, size in pairs if isinstance(axis, str)]
        if array.ndim != len(form.axes) or not all(own + shared) or not array.size:
            return f"the shape of '{name}' is {array.shape}"
        if array.dtype.kind not in KINDS[kind]:
            return f"'{name}' holds {array.dtype}, and each element must be a {kind}"
        if kind != "text" and not np.isfinite(array).all():
            return f"'{name}' has numbers that are not finite"
        low = form.least is not None and array.min() < form.least
        if low or (form.below is not None and array.max() >= form.below):
            return f"'{name}' has numbers out of range"
        if form.ascending and not (np.diff(array) > 0).all():
            return f"the numbers of '{name}' do not ascend"
    return ""


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
    """A computation with settings: the constructor's keywords are the keys of its YAML file.

    Attributes:
        folder: Where a long study keeps what it has done, to go on from there; None for nowhere. A run sets it.
    """

    folder: Path | None = None

    @abstractmethod
    def run(self) -> Finding:
        """Compute everything, with torch's default random stream where something is drawn."""

    def forms(self) -> Mapping[str, Form]:
        """Return what each record must be like by name, which is asked of those in a file; by default of none."""
        return {}

    @abstractmethod
    def figures(self, records: Records) -> Figures:
        """Draw the figures by name from the records of a finding, in memory or read back from a run's folder."""
