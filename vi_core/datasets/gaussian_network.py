"""Points for `model=gaussian_network` from given z, w_1 and w_2, drawn by PyTorch from a seed of their own.

y_n ~ N(w_1 + w_2 t_n, y_scale²),   x_n ~ N(z + y_n, x_scale²),   t_n evenly from −1 to 1.
"""

from dataclasses import dataclass

import torch

from vi_core.datasets._checks import finite, positive
from vi_core.datasets.base import Data, Dataset


@dataclass(kw_only=True, eq=False)
class GaussianNetworkDraws(Dataset):
    """Points x_n, with settings of the same name as the model's.

    Attributes:
        z: Level that all points share.
        w_1, w_2: Intercept and slope of the y_n.
        y_scale, x_scale: Standard deviations, both positive.
        num_points: Number of points N.
        seed: Start of the data set's own generator.
        batch_size: Rows in a step, or None for all.
    """

    z: float = 1.0
    w_1: float = -0.5
    w_2: float = 2.0
    y_scale: float = 1.0
    x_scale: float = 1.0
    num_points: int = 20
    seed: int = 0
    batch_size: int | None = None

    def __post_init__(self) -> None:
        for name in ("z", "w_1", "w_2"):
            finite(name, getattr(self, name))
        positive("y_scale", self.y_scale)
        positive("x_scale", self.x_scale)
        super().__post_init__()

    def load(self) -> Data:
        """Draw the points; train has shape (num_points,) and type float32."""
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(2, self.num_points, generator=generator, dtype=torch.float32)
        y = self.w_1 + self.w_2 * torch.linspace(-1, 1, self.num_points) + self.y_scale * noise[0]
        shared = {"z": float(self.z), "w_1": float(self.w_1), "w_2": float(self.w_2)}
        return Data(
            train=self.z + y + self.x_scale * noise[1],
            provenance=f"{self.num_points} points of the Gaussian network with z {self.z}, "
            f"w ({self.w_1}, {self.w_2}), torch seed {self.seed}",
            truth=shared | {f"y_{n}": value for n, value in enumerate(y.tolist(), start=1)},
        )
