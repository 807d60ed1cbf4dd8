"""Points of a Normal in the plane whose mean and covariance are known: the oracle of diffusion models.

x_n ~ N(loc, Σ),   Σ_ii = std_i²,   Σ_12 = correlation · std_1 · std_2,   n = 1, ..., N, independent.
"""

import math
from collections.abc import Sequence

import torch

from vi_core.datasets._checks import finite, positive, whole, whole_or_none
from vi_core.datasets.base import Data, Dataset, identity
from vi_core.errors import require


class Gaussian2D(Dataset):
    """`num_points` training points and `num_test` held-out ones, by PyTorch's generator started at `seed`."""

    def __init__(
        self,
        *,
        loc: Sequence[float] = (0.5, -0.5),
        std: Sequence[float] = (1.2, 0.8),
        correlation: float = 0.6,
        num_points: int = 10_000,
        num_test: int = 2000,
        seed: int = 0,
        batch_size: int | None = 500,
    ) -> None:
        require(len(loc) == 2, f"dataset.loc={list(loc)} must have two values.")
        require(len(std) == 2, f"dataset.std={list(std)} must have two values.")
        for i in range(2):
            finite(f"loc[{i}]", loc[i])
            positive(f"std[{i}]", std[i])
        require(abs(correlation) < 1, f"dataset.correlation={correlation} must lie between -1 and 1.")
        whole("num_points", num_points, 2)
        whole("num_test", num_test, 1)
        whole("seed", seed, 0, 2**63 - 1)
        whole_or_none("batch_size", batch_size, 1)
        self.loc, self.std, self.correlation = loc, std, correlation
        self.num_points, self.num_test, self.seed, self.batch_size = num_points, num_test, seed, batch_size

    def load(self) -> Data:
        """Draw the points; train has shape (num_points, 2), test (num_test, 2), both float32."""
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(self.num_points + self.num_test, 2, generator=generator)
        second = self.correlation * noise[:, 0] + math.sqrt(1 - self.correlation**2) * noise[:, 1]
        points = torch.tensor(self.loc) + torch.tensor(self.std) * torch.stack([noise[:, 0], second], dim=1)
        return Data(
            train=points[: self.num_points],
            test=points[self.num_points :],
            truth={},
            provenance=f"draws of a Normal in the plane with mean {list(self.loc)}, deviations {list(self.std)} and "
            f"correlation {self.correlation}, torch seed {self.seed}",
            decode=identity,
            image_shape=None,
        )
