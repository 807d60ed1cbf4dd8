"""Stochastic gradient ascent: λ ← λ + ρ_t · g, with ρ_t = lr, or with decreasing steps ρ_t = lr / (offset + t)^power.

For the latter Σ ρ_t = ∞ and Σ ρ_t² < ∞, hence almost sure convergence, for ½ < power ≤ 1 (Robbins, Monro 1951).
"""

import math
from collections.abc import Sequence

import torch
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


class RobbinsMonro(Optimizer):
    """λ ← λ + ρ_t · g with t = 1 at the first step.

    Args:
        lr: Scale of ρ_t; one value, or one for each replicate.
        offset: Number of steps that delays the decrease; not negative; one value, or one for each replicate.
        power: Exponent, in (½, 1]; one value, or one for each replicate.
    """

    offset: Tensor
    power: Tensor
    time: Tensor

    def __init__(self, *, lr: PerReplicate = 1.0, offset: PerReplicate = 1000.0, power: PerReplicate = 1.0):
        super().__init__(lr=lr)
        self.setting("power", power, lambda p: 0.5 < p <= 1, "must lie in (0.5, 1] for the steps to converge")
        self.setting("offset", offset, lambda o: 0 <= o < math.inf, "must be finite and not negative")
        self.register_buffer("time", torch.zeros(()))

    def rate(self) -> Tensor:
        return self.lr / (self.offset + self.time) ** self.power

    def directions(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        self.time.add_(1)
        return gradients
