"""Several normal samples of different sizes, drawn by NumPy one after the other from one seed:

    x_n ~ Normal(loc, 1 / precision),   n = 1, ..., N, independent, for each N in `sizes`, in that order.

The legacy generator `numpy.random.RandomState` is the one whose stream NumPy promises never to change (NEP 19). With
the default settings the samples of 10, 100 and 1000 points have means 2.0437, 1.0261 and 0.9244.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vi_core.datasets._checks import finite, positive, whole
from vi_core.datasets.base import Data, Dataset
from vi_core.errors import require


@dataclass(kw_only=True, eq=False)
class NormalNumpyDraws(Dataset):
    """The sample of `num_points` among those of the given `sizes`, drawn in turn from `RandomState(seed)`.

    Attributes:
        loc: Mean.
        precision: Inverse variance, positive.
        sizes: Numbers of points of all samples, in the order in which they are drawn.
        num_points: Which of the samples, by its size.
        seed: Start of NumPy's generator, below 2³².
        batch_size: Rows in a step, or None for all.
    """

    loc: float = 1.0
    precision: float = 0.5
    sizes: Sequence[int] = (10, 100, 1000)
    num_points: int = 100
    seed: int = 0
    batch_size: int | None = None

    def __post_init__(self) -> None:
        finite("loc", self.loc)
        positive("precision", self.precision)
        for size in self.sizes:
            whole("sizes", size, 2)
        listed = f"dataset.num_points={self.num_points} must be one of dataset.sizes={list(self.sizes)}."
        require(self.num_points in self.sizes, listed)
        whole("seed", self.seed, 0, 2**32 - 1)
        super().__post_init__()

    def load(self) -> Data:
        """Draw the samples up to the chosen one; train has shape (num_points,) and type float64."""
        stream, scale = np.random.RandomState(self.seed), self.precision**-0.5
        before = sum(self.sizes[: list(self.sizes).index(self.num_points)])
        stream.normal(self.loc, scale, before)
        return Data(
            train=torch.from_numpy(stream.normal(self.loc, scale, self.num_points)),
            provenance=f"{self.num_points} draws of Normal({self.loc}, 1/{self.precision}),"
            f" numpy RandomState({self.seed}) after {before} others",
            truth={"mu": float(self.loc), "tau": float(self.precision)},
        )
