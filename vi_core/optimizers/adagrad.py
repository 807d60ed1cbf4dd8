"""AdaGrad: each coordinate's step shrinks with the squares it has seen, g / (√Σ g² + eps).

Duchi, Hazan, Singer 2011; the rule of Ranganath, Gerrish, Blei 2014.
"""

import math
from collections.abc import Sequence

from torch import Tensor

from vi_core.errors import require
from vi_core.optimizers.base import Optimizer
from vi_core.optimizers.schedules import Schedule
from vi_core.per_replicate import PerReplicate


class AdaGrad(Optimizer):
    """λ ← λ + lr · g / (√Σ g² + eps).

    Args:
        lr: One learning rate, or one for each replicate.
        eps: Added to the root.
        schedule: What multiplies lr in the course of the run.
    """

    def __init__(self, *, lr: PerReplicate = 1e-1, eps: float = 1e-10, schedule: Schedule | None = None):
        super().__init__(lr=lr, schedule=schedule)
        require(0 < eps < math.inf, f"optimizer.eps={eps} must be positive and finite.")
        self.eps = eps

    def allocate(self, parameters: Sequence[Tensor]) -> None:
        self.state("sum", parameters)

    def directions(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        sums = self.states("sum", len(gradients))
        for total, gradient in zip(sums, gradients, strict=True):
            total.addcmul_(gradient, gradient)
        return [gradient / total.sqrt().add_(self.eps) for gradient, total in zip(gradients, sums, strict=True)]
