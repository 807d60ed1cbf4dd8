"""Stochastic gradient ascent: λ ← λ + lr · g."""

from collections.abc import Sequence

from torch import Tensor

from vi_core.optimizers.base import Optimizer
from vi_core.optimizers.schedules import Schedule
from vi_core.per_replicate import PerReplicate


class SGD(Optimizer):
    """Plain gradient ascent.

    Args:
        lr: One learning rate, or one for each replicate.
        schedule: Factors of the learning rate over the steps.
    """

    def __init__(self, *, lr: PerReplicate = 1e-3, schedule: Schedule | None = None):
        super().__init__(lr=lr, schedule=schedule)

    def directions(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        return gradients
