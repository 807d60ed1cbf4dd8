"""Two interleaved half circles in the plane with Normal noise: a law far from any Normal.

With θ uniform on [0, π] and a fair coin, a point is (cos θ, sin θ) or (1 − cos θ, 1/2 − sin θ), minus the common centre
(1/2, 1/4), plus noise.
"""

import math
from dataclasses import dataclass

import torch

from vi_core.datasets._checks import finite
from vi_core.datasets.base import Data, Dataset
from vi_core.errors import require


@dataclass(kw_only=True, eq=False)
class TwoMoons(Dataset):
    """Independent points of the two moons.

    Attributes:
        noise: Standard deviation of the noise in each coordinate, at least 0.
        num_points, num_test: Numbers of training and of held-out points.
        seed: Start of the data set's own generator.
        batch_size: Rows in a step, or None for all.
    """

    noise: float = 0.06
    num_points: int = 10_000
    num_test: int = 2000
    seed: int = 0
    batch_size: int | None = 500

    def __post_init__(self) -> None:
        finite("noise", self.noise)
        require(self.noise >= 0, f"dataset.noise={self.noise} must not be negative.")
        super().__post_init__()

    def load(self) -> Data:
        """Draw the points; train has shape (num_points, 2), test (num_test, 2), both float32."""
        generator = torch.Generator().manual_seed(self.seed)
        count = self.num_points + self.num_test
        angle = math.pi * torch.rand(count, generator=generator)
        upper = torch.rand(count, 1, generator=generator) < 0.5
        circle = torch.stack([angle.cos(), angle.sin()], dim=1)
        moons = torch.where(upper, circle, torch.tensor([1.0, 0.5]) - circle) - torch.tensor([0.5, 0.25])
        points = moons + self.noise * torch.randn(count, 2, generator=generator)
        provenance = f"two moons with noise {self.noise}, torch seed {self.seed}"
        return Data(points[: self.num_points], provenance, points[self.num_points :])
