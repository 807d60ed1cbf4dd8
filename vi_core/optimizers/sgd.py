"""Stochastic gradient ascent: λ ← λ + ρ_t · g, with a constant ρ_t, or with one that decreases in either of two ways.

With ρ_t = lr / (offset + t)^power, Σ ρ_t = ∞ and Σ ρ_t² < ∞, hence almost sure convergence, for ½ < power ≤ 1 (Robbins,
Monro 1951). AdaGrad divides the steps of each coordinate by the root of the sum of its squared gradients (Duchi, Hazan,
Singer 2011); it is the rule of Ranganath, Gerrish, Blei 2014.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from vi_core.optimizers.base import Optimizer
from vi_core.optimizers.schedules import Schedule
from vi_core.per_replicate import PerReplicate, require_positive


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


class AdaGrad(Optimizer):
    """λ ← λ + lr · g / (√Σ g² + eps).

    Args:
        lr: One learning rate, or one for each replicate.
        eps: Added to the root; positive.
        schedule: Factors of lr over the steps.
    """

    def __init__(self, *, lr: PerReplicate = 1e-1, eps: float = 1e-10, schedule: Schedule | None = None):
        super().__init__(lr=lr, schedule=schedule)
        require_positive("optimizer", eps=eps)
        self.eps = eps

    def allocate(self, parameters: Sequence[Tensor]) -> None:
        self.state("sum", parameters)

    def directions(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        sums = self.states("sum", len(gradients))
        for total, gradient in zip(sums, gradients, strict=True):
            total.addcmul_(gradient, gradient)
        return [gradient / total.sqrt().add_(self.eps) for gradient, total in zip(gradients, sums, strict=True)]
