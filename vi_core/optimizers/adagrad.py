"""AdaGrad: steps of each coordinate divided by the root of the sum of its squared gradients, g / (√Σ g² + eps).

Duchi, Hazan, Singer 2011; the rule of Ranganath, Gerrish, Blei 2014.
"""

from collections.abc import Sequence

from torch import Tensor

from vi_core.optimizers.base import Optimizer
from vi_core.optimizers.schedules import Schedule
from vi_core.per_replicate import PerReplicate, require_positive


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
