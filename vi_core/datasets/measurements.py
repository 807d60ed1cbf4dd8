"""Measurements with known errors, given in the settings; the eight schools are the example.

Effects of coaching on the scores of a test in eight schools, with standard errors. Rubin 1981, "Estimation in parallel
randomized experiments".
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vi_core.datasets.base import Data, Dataset, Finite, Positive
from vi_core.datasets.columns import column_data
from vi_core.errors import require


@dataclass(kw_only=True, eq=False)
class Measurements(Dataset):
    """Values `y` with standard errors `sigma`.

    Attributes:
        y: Measured values.
        sigma: Standard error of each.
        batch_size: Rows in a step, or None for all.
    """

    y: Sequence[Finite]
    sigma: Sequence[Positive]
    batch_size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = f"{len(self.y)} and {len(self.sigma)}"
        require(len(self.y) == len(self.sigma), f"dataset.y and dataset.sigma must be of one length, not {counts}.")
        require(len(self.y) >= 2, f"dataset.y has {len(self.y)} values; at least 2 are needed.")

    def load(self) -> Data:
        """Return the two columns, each (N,), in float64."""
        columns = {name: torch.tensor(getattr(self, name), dtype=torch.float64) for name in ("y", "sigma")}
        return column_data(columns, f"{len(self.y)} measurements in the settings")
