"""Points of a normal distribution whose mean and precision are known.

    x_n ~ Normal(loc, 1 / precision),   n = 1, ..., N, independent.

They are drawn in float32 from a generator of their own and cast later, so that a seed gives the same points at every
precision, and the points of the reports: seed 10 with N = 100 has mean 0.8901 and precision 0.4580.
"""

import torch

from vi_core.datasets._checks import finite, positive, whole, whole_or_none
from vi_core.datasets.base import Data, Dataset, identity


class NormalDraws(Dataset):
    """`num_points` draws of Normal(loc, 1 / precision), by PyTorch's generator started at `seed`."""

    def __init__(
        self,
        *,
        loc: float = 1.0,
        precision: float = 0.5,
        num_points: int = 100,
        seed: int = 10,
        batch_size: int | None = None,
    ) -> None:
        finite("loc", loc)
        positive("precision", precision)
        whole("num_points", num_points, 2)
        whole("seed", seed, 0, 2**63 - 1)
        whole_or_none("batch_size", batch_size, 1)
        self.loc = loc
        self.precision = precision
        self.num_points = num_points
        self.seed = seed
        self.batch_size = batch_size

    def load(self) -> Data:
        """Draw the points; train has shape (num_points,) and type float32."""
        generator = torch.Generator().manual_seed(self.seed)
        points = torch.normal(
            self.loc, self.precision**-0.5, size=(self.num_points,), generator=generator, dtype=torch.float32
        )
        return Data(
            train=points,
            test=None,
            truth={"mu": float(self.loc), "tau": float(self.precision)},
            provenance=f"{self.num_points} draws of Normal({self.loc}, 1/{self.precision}), torch seed {self.seed}",
            decode=identity,
            image_shape=None,
        )
