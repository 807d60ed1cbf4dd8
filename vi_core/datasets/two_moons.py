"""Two half circles in the plane that reach into each other, with Normal noise: a law far from any Normal.

With θ uniform on [0, π] and a fair coin, a point is (cos θ, sin θ) or (1 − cos θ, 1/2 − sin θ), minus the common centre
(1/2, 1/4), plus noise.
"""

import math

import torch

from vi_core.datasets._checks import finite, whole, whole_or_none
from vi_core.datasets.base import Data, Dataset, identity
from vi_core.errors import require


class TwoMoons(Dataset):
    """`num_points` training points and `num_test` held-out ones, by PyTorch's generator started at `seed`."""

    def __init__(
        self,
        *,
        noise: float = 0.06,
        num_points: int = 10_000,
        num_test: int = 2000,
        seed: int = 0,
        batch_size: int | None = 500,
    ) -> None:
        finite("noise", noise)
        require(noise >= 0, f"dataset.noise={noise} must not be negative.")
        whole("num_points", num_points, 2)
        whole("num_test", num_test, 1)
        whole("seed", seed, 0, 2**63 - 1)
        whole_or_none("batch_size", batch_size, 1)
        self.noise, self.num_points, self.num_test = noise, num_points, num_test
        self.seed, self.batch_size = seed, batch_size

    def load(self) -> Data:
        """Draw the points; train has shape (num_points, 2), test (num_test, 2), both float32."""
        generator = torch.Generator().manual_seed(self.seed)
        count = self.num_points + self.num_test
        angle = math.pi * torch.rand(count, generator=generator)
        upper = torch.rand(count, 1, generator=generator) < 0.5
        circle = torch.stack([angle.cos(), angle.sin()], dim=1)
        moons = torch.where(upper, circle, torch.tensor([1.0, 0.5]) - circle) - torch.tensor([0.5, 0.25])
        points = moons + self.noise * torch.randn(count, 2, generator=generator)
        return Data(
            train=points[: self.num_points],
            test=points[self.num_points :],
            truth={},
            provenance=f"two moons with noise {self.noise}, torch seed {self.seed}",
            decode=identity,
            image_shape=None,
        )
