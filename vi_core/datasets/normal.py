"""Points of a normal distribution whose mean and precision are known:

    x_n ~ Normal(loc, 1 / precision),   n = 1, ..., N, independent.

They are drawn in float32 from a generator of their own and cast later, so that a seed gives the same points at every
precision of the arithmetic. Seed 10 with N = 100 has sample mean 0.8901 and sample precision 0.4580.
"""

from dataclasses import dataclass

import torch

from vi_core.datasets._checks import finite, positive
from vi_core.datasets.base import Data, Dataset


@dataclass(kw_only=True, eq=False)
class NormalDraws(Dataset):
    """Independent draws of Normal(loc, 1 / precision) by PyTorch.

    Attributes:
        loc: Mean.
        precision: Inverse variance, positive.
        num_points: Number of points N.
        seed: Start of the data set's own generator.
        batch_size: Rows in a step, or None for all.
    """

    loc: float = 1.0
    precision: float = 0.5
    num_points: int = 100
    seed: int = 10
    batch_size: int | None = None

    def __post_init__(self) -> None:
        finite("loc", self.loc)
        positive("precision", self.precision)
        super().__post_init__()

    def load(self) -> Data:
        """Draw the points; train has shape (num_points,) and type float32."""
        generator = torch.Generator().manual_seed(self.seed)
        scale, shape = self.precision**-0.5, (self.num_points,)
        return Data(
            train=torch.normal(self.loc, scale, size=shape, generator=generator, dtype=torch.float32),
            provenance=f"{self.num_points} draws of Normal({self.loc}, 1/{self.precision}), torch seed {self.seed}",
            truth={"mu": float(self.loc), "tau": float(self.precision)},
        )
