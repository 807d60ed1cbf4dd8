"""Points of a Gamma in (shape, scale), drawn by PyTorch from a seed of their own: the data of report 004."""

import torch

from vi_core.datasets.base import Data, Dataset, identity
from vi_core.distributions.gamma import standard_gamma
from vi_core.errors import require


class GammaDraws(Dataset):
    """num_points draws of Gamma(shape, scale), in float32.

    Args:
        shape, scale: Of the density; the mean is shape · scale.
        num_points: N.
        seed: Of the data set's own generator.
        batch_size: None, the whole data set at each step.
    """

    def __init__(
        self,
        *,
        shape: float = 3.0,
        scale: float = 2.0,
        num_points: int = 1000,
        seed: int = 0,
        batch_size: int | None = None,
    ):
        require(shape > 0, f"dataset.shape={shape} must be positive.")
        require(scale > 0, f"dataset.scale={scale} must be positive.")
        require(num_points >= 2, f"dataset.num_points={num_points} must be at least 2.")
        require(seed >= 0, f"dataset.seed={seed} must not be negative.")
        self.shape, self.scale, self.num_points = shape, scale, num_points
        self.seed, self.batch_size = seed, batch_size

    def load(self) -> Data:
        generator = torch.Generator().manual_seed(self.seed)
        concentration = torch.full((self.num_points,), self.shape, dtype=torch.float32)
        points = standard_gamma(concentration, generator) / (1 / self.scale)
        truth = {"shape": float(self.shape), "scale": float(self.scale)}
        provenance = f"{self.num_points} draws of Gamma(shape {self.shape}, scale {self.scale}), torch seed {self.seed}"
        return Data(points, None, truth, provenance, identity, None)
