"""Points of a Gamma law in (shape, scale), drawn in float32 by PyTorch from a seed of their own."""

from dataclasses import dataclass

import torch

from vi_core.datasets._checks import positive
from vi_core.datasets.base import Data, Dataset
from vi_core.distributions.gamma import standard_gamma


@dataclass(kw_only=True, eq=False)
class GammaDraws(Dataset):
    """Independent draws of Gamma(shape, scale), whose mean is shape · scale.

    Attributes:
        shape, scale: Parameters of the density, both positive.
        num_points: Number of points N.
        seed: Start of the data set's own generator.
        batch_size: Rows in a step, or None for all.
    """

    shape: float = 3.0
    scale: float = 2.0
    num_points: int = 1000
    seed: int = 0
    batch_size: int | None = None

    def __post_init__(self) -> None:
        positive("shape", self.shape)
        positive("scale", self.scale)
        super().__post_init__()

    def load(self) -> Data:
        """Draw the points; train has shape (num_points,) and type float32."""
        generator = torch.Generator().manual_seed(self.seed)
        concentration = torch.full((self.num_points,), self.shape, dtype=torch.float32)
        points = standard_gamma(concentration, generator) / (1 / self.scale)
        provenance = f"{self.num_points} draws of Gamma(shape {self.shape}, scale {self.scale}), torch seed {self.seed}"
        return Data(points, provenance, truth={"shape": float(self.shape), "scale": float(self.scale)})
