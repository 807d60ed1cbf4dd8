"""Stochastic gradient ascent with steps that do not depend on the gradients seen before: λ ← λ + lr · g."""

from collections.abc import Sequence

from torch import Tensor

from vi_core.optimizers.base import Optimizer
from vi_core.optimizers.schedules import Schedule
from vi_core.per_replicate import PerReplicate


class SGD(Optimizer):
    """Plain gradient ascent.

    Args:
        lr: One learning rate, or one for each replicate.
        schedule: What multiplies it in the course of the run.
    """

    def __init__(self, *, lr: PerReplicate = 1e-3, schedule: Schedule | None = None):
        super().__init__(lr=lr, schedule=schedule)

    def directions(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        return gradients
