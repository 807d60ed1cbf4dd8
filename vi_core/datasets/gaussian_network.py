"""Points for `model=gaussian_network` from given z, w_1 and w_2, drawn by PyTorch from a seed of their own.

y_n ~ N(w_1 + w_2 t_n, y_scale²),   x_n ~ N(z + y_n, x_scale²),   t_n evenly from −1 to 1.
"""

import torch

from vi_core.datasets._checks import finite, positive, whole, whole_or_none
from vi_core.datasets.base import Data, Dataset, identity


class GaussianNetworkDraws(Dataset):
    """`num_points` points x_n, with the settings of the same name as the model's.

    Args:
        z: The level that all points share.
        w_1, w_2: Intercept and slope of the y_n.
        y_scale, x_scale: Standard deviations.
        num_points: N.
        seed: Of the data set's own generator.
        batch_size: None, the whole data set at each step.
    """

    def __init__(
        self,
        *,
        z: float = 1.0,
        w_1: float = -0.5,
        w_2: float = 2.0,
        y_scale: float = 1.0,
        x_scale: float = 1.0,
        num_points: int = 20,
        seed: int = 0,
        batch_size: int | None = None,
    ):
        for name, value in {"z": z, "w_1": w_1, "w_2": w_2}.items():
            finite(name, value)
        positive("y_scale", y_scale)
        positive("x_scale", x_scale)
        whole("num_points", num_points, 2)
        whole("seed", seed, 0, 2**63 - 1)
        whole_or_none("batch_size", batch_size, 1)
        self.z, self.w_1, self.w_2 = z, w_1, w_2
        self.y_scale, self.x_scale, self.num_points = y_scale, x_scale, num_points
        self.seed, self.batch_size = seed, batch_size

    def load(self) -> Data:
        """Draw the points; train has shape (num_points,) and type float32."""
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(2, self.num_points, generator=generator, dtype=torch.float32)
        y = self.w_1 + self.w_2 * torch.linspace(-1, 1, self.num_points) + self.y_scale * noise[0]
        shared = {"z": float(self.z), "w_1": float(self.w_1), "w_2": float(self.w_2)}
        return Data(
            train=self.z + y + self.x_scale * noise[1],
            test=None,
            truth=shared | {f"y_{n}": value for n, value in enumerate(y.tolist(), start=1)},
            provenance=(
                f"{self.num_points} points of the Gaussian network with z {self.z}, w ({self.w_1}, {self.w_2}), "
                f"torch seed {self.seed}"
            ),
            decode=identity,
            image_shape=None,
        )
