"""Synthetic earthquakes with known epicentres, strengths and origins, drawn from the generative model

    k_n ~ Categorical(weights),   x_n | k ~ N(epicentre_k, I / precision),   s_n | k ~ Poisson(strength_k).

They are drawn in float64 from a generator of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vi_core.datasets._checks import finite, positive
from vi_core.datasets.base import Data, Dataset
from vi_core.errors import require


@dataclass(kw_only=True, eq=False)
class EarthquakeDraws(Dataset):
    """Events from a mixture of C epicentres.

    Attributes:
        epicentres: C pairs of coordinates.
        strengths: Poisson rate of each epicentre's counts, C positive numbers.
        weights: Probability of each epicentre, C positive numbers with sum 1; None for equal ones.
        precision: Inverse variance of a place around its epicentre, in each coordinate.
        num_points: Number of events N.
        seed: Start of the data set's own generator.
        batch_size: Rows in a step, or None for all.

    Raises:
        ConfigError: Where the lists have different lengths, or a value is out of range.
    """

    epicentres: Sequence[Sequence[float]] = ((-6.0, -4.0), (6.0, -5.0), (0.0, 7.0), (7.0, 6.0))
    strengths: Sequence[float] = (5.0, 15.0, 30.0, 60.0)
    weights: Sequence[float] | None = None
    precision: float = 1.0
    num_points: int = 1000
    seed: int = 0
    batch_size: int | None = None

    def __post_init__(self) -> None:
        components = len(self.epicentres)
        pairs = components > 0 and all(len(place) == 2 for place in self.epicentres)
        require(pairs, f"dataset.epicentres={self.epicentres} must be pairs of coordinates.")
        self.shares = [1 / components] * components if self.weights is None else self.weights
        for name, values in {"strengths": self.strengths, "weights": self.shares}.items():
            require(len(values) == components, f"dataset.{name} has {len(values)} values for {components} epicentres.")
            for value in values:
                positive(name, value)
        for coordinate in (coordinate for place in self.epicentres for coordinate in place):
            finite("epicentres", coordinate)
        require(abs(sum(self.shares) - 1) < 1e-6, f"dataset.weights={self.shares} must have sum 1.")
        positive("precision", self.precision)
        super().__post_init__()

    def load(self) -> Data:
        """Draw the events; train has shape (num_points, 3) and type float64."""
        generator = torch.Generator().manual_seed(self.seed)
        places, strengths, shares = (
            torch.tensor(values, dtype=torch.float64) for values in (self.epicentres, self.strengths, self.shares)
        )
        labels = torch.multinomial(shares, self.num_points, replacement=True, generator=generator)
        noise = torch.randn(self.num_points, 2, dtype=torch.float64, generator=generator)
        counts = torch.poisson(strengths[labels], generator=generator)
        truth = {f"epicentre[{i}]": value for i, value in enumerate(places.flatten().tolist())}
        truth |= {f"strength[{i}]": value for i, value in enumerate(strengths.tolist())}
        return Data(
            train=torch.cat([places[labels] + noise * self.precision**-0.5, counts.unsqueeze(-1)], dim=1),
            provenance=f"{self.num_points} events from {len(places)} epicentres, torch seed {self.seed}",
            truth=truth,
            labels=labels,
            columns=("horizontal", "vertical", "strength"),
        )
