"""Events drawn from the earthquake model with known epicentres, strengths and origins.

    k_n ~ Categorical(weights),   x_n | k ~ N(epicentre_k, I / precision),   s_n | k ~ Poisson(strength_k).

They are drawn in float64 from a generator of their own.
"""

from collections.abc import Sequence

import torch

from vi_core.datasets._checks import finite, positive, whole, whole_or_none
from vi_core.datasets.base import Data, Dataset, identity
from vi_core.errors import require


class EarthquakeDraws(Dataset):
    """`num_points` events by PyTorch's generator started at `seed`; `weights` are equal where they are None."""

    def __init__(
        self,
        *,
        epicentres: Sequence[Sequence[float]] = ((-6.0, -4.0), (6.0, -5.0), (0.0, 7.0), (7.0, 6.0)),
        strengths: Sequence[float] = (5.0, 15.0, 30.0, 60.0),
        weights: Sequence[float] | None = None,
        precision: float = 1.0,
        num_points: int = 1000,
        seed: int = 0,
        batch_size: int | None = None,
    ) -> None:
        pairs = len(epicentres) > 0 and all(len(place) == 2 for place in epicentres)
        require(pairs, f"dataset.epicentres={epicentres} must be pairs of coordinates.")
        weights = [1 / len(epicentres)] * len(epicentres) if weights is None else weights
        for name, values in {"strengths": strengths, "weights": weights}.items():
            count = len(values) == len(epicentres)
            require(count, f"dataset.{name} has {len(values)} values for {len(epicentres)} epicentres.")
            for value in values:
                positive(name, value)
        for place in epicentres:
            for coordinate in place:
                finite("epicentres", coordinate)
        require(abs(sum(weights) - 1) < 1e-6, f"dataset.weights={weights} must have sum 1.")
        positive("precision", precision)
        whole("num_points", num_points, 2)
        whole("seed", seed, 0, 2**63 - 1)
        whole_or_none("batch_size", batch_size, 1)
        self.epicentres, self.strengths, self.weights = epicentres, strengths, weights
        self.precision, self.num_points, self.seed, self.batch_size = precision, num_points, seed, batch_size

    def load(self) -> Data:
        """Draw the events; train has shape (num_points, 3) and type float64."""
        generator = torch.Generator().manual_seed(self.seed)
        places, strengths, weights = (
            torch.tensor(values, dtype=torch.float64) for values in (self.epicentres, self.strengths, self.weights)
        )
        labels = torch.multinomial(weights, self.num_points, replacement=True, generator=generator)
        noise = torch.randn(self.num_points, 2, dtype=torch.float64, generator=generator)
        counts = torch.poisson(strengths[labels], generator=generator)
        truth = {f"epicentre[{i}]": value for i, value in enumerate(places.flatten().tolist())}
        truth |= {f"strength[{i}]": value for i, value in enumerate(strengths.tolist())}
        return Data(
            train=torch.cat([places[labels] + noise * self.precision**-0.5, counts.unsqueeze(-1)], dim=1),
            test=None,
            truth=truth,
            provenance=f"{self.num_points} events from {len(places)} epicentres, torch seed {self.seed}",
            decode=identity,
            image_shape=None,
            labels=labels,
            columns=("horizontal", "vertical", "strength"),
        )
