"""Stochastic gradient ascent with a constant step: λ ← λ + lr · g."""

from collections.abc import Sequence

from torch import Tensor

from vi_core.optimizers.base import Optimizer, Rate


class SGD(Optimizer):
    """Plain gradient ascent.

    Args:
        lr: One learning rate, or one for each replicate.
    """

    def __init__(self, *, lr: Rate = 1e-3):
        super().__init__(lr=lr)

    def directions(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        return gradients
