"""Points of a Normal in the plane, whose known mean and covariance make it an oracle for diffusion models.

x_n ~ N(loc, Σ),   Σ_ii = std_i²,   Σ_12 = correlation · std_1 · std_2,   n = 1, ..., N, independent.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vi_core.datasets._checks import finite, positive
from vi_core.datasets.base import Data, Dataset
from vi_core.errors import require


@dataclass(kw_only=True, eq=False)
class Gaussian2D(Dataset):
    """Independent draws of a Normal in the plane.

    Attributes:
        loc: Mean, two numbers.
        std: Standard deviations, two positive numbers.
        correlation: Between the coordinates, inside (−1, 1).
        num_points, num_test: Numbers of training and of held-out points.
        seed: Start of the data set's own generator.
        batch_size: Rows in a step, or None for all.
    """

    loc: Sequence[float] = (0.5, -0.5)
    std: Sequence[float] = (1.2, 0.8)
    correlation: float = 0.6
    num_points: int = 10_000
    num_test: int = 2000
    seed: int = 0
    batch_size: int | None = 500

    def __post_init__(self) -> None:
        require(len(self.loc) == 2, f"dataset.loc={list(self.loc)} must have two values.")
        require(len(self.std) == 2, f"dataset.std={list(self.std)} must have two values.")
        for i in range(2):
            finite(f"loc[{i}]", self.loc[i])
            positive(f"std[{i}]", self.std[i])
        require(abs(self.correlation) < 1, f"dataset.correlation={self.correlation} must lie between -1 and 1.")
        super().__post_init__()

    def load(self) -> Data:
        """Draw the points; train has shape (num_points, 2), test (num_test, 2), both float32."""
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(self.num_points + self.num_test, 2, generator=generator)
        second = self.correlation * noise[:, 0] + math.sqrt(1 - self.correlation**2) * noise[:, 1]
        points = torch.tensor(self.loc) + torch.tensor(self.std) * torch.stack([noise[:, 0], second], dim=1)
        provenance = (
            f"draws of a Normal in the plane with mean {list(self.loc)}, deviations {list(self.std)} and "
            f"correlation {self.correlation}, torch seed {self.seed}"
        )
        return Data(points[: self.num_points], provenance, points[self.num_points :])
