"""The points of report 000: several normal samples drawn by NumPy one after the other from one seed.

    x_n ~ Normal(loc, 1 / precision),   n = 1, ..., N, independent, for each N in `sizes`, in that order.

The legacy generator `numpy.random.RandomState` is the one whose stream NumPy promises never to change (NEP 19). With
the default settings the samples of 10, 100 and 1000 points have means 2.0437, 1.0261 and 0.9244.
"""

from collections.abc import Sequence

import numpy as np
import torch

from vi_core.datasets._checks import finite, positive, whole, whole_or_none
from vi_core.datasets.base import Data, Dataset, identity
from vi_core.errors import require


class NormalNumpyDraws(Dataset):
    """The sample of `num_points` among those of the given `sizes`, drawn in turn from `RandomState(seed)`."""

    def __init__(
        self,
        *,
        loc: float = 1.0,
        precision: float = 0.5,
        sizes: Sequence[int] = (10, 100, 1000),
        num_points: int = 100,
        seed: int = 0,
        batch_size: int | None = None,
    ) -> None:
        finite("loc", loc)
        positive("precision", precision)
        for size in sizes:
            whole("sizes", size, 2)
        require(num_points in sizes, f"dataset.num_points={num_points} must be one of dataset.sizes={list(sizes)}.")
        whole("seed", seed, 0, 2**32 - 1)
        whole_or_none("batch_size", batch_size, 1)
        self.loc = loc
        self.precision = precision
        self.sizes = list(sizes)
        self.num_points = num_points
        self.seed = seed
        self.batch_size = batch_size

    def load(self) -> Data:
        """Draw the samples up to the chosen one; train has shape (num_points,) and type float64."""
        stream = np.random.RandomState(self.seed)
        before = self.sizes[: self.sizes.index(self.num_points)]
        stream.normal(self.loc, self.precision**-0.5, sum(before))
        points = stream.normal(self.loc, self.precision**-0.5, self.num_points)
        return Data(
            train=torch.from_numpy(points),
            test=None,
            truth={"mu": float(self.loc), "tau": float(self.precision)},
            provenance=(
                f"{self.num_points} draws of Normal({self.loc}, 1/{self.precision}),"
                f" numpy RandomState({self.seed}) after {sum(before)} others"
            ),
            decode=identity,
            image_shape=None,
        )
