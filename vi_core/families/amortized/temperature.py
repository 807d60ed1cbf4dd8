"""Relaxations of a family of discrete latents, with a temperature that anneals during training.

    τ_t = initial · (final/initial)^min(t/steps, 1)

falls exponentially from `initial` to `final` in `steps` training steps, and stays there. t counts training steps, not
evaluations, and is a buffer, so that a resumed run continues at its temperature.
"""

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from vi_core.distributions.relaxations import GumbelSoftmax, RelaxedOneHot, StraightThrough
from vi_core.errors import require


class Relaxation(nn.Module, ABC):
    """A differentiable sampler in place of the argmax, with an annealed temperature.

    Args:
        initial: Temperature of the first step; positive, at least `final`.
        final: Temperature after `steps` steps; positive.
        steps: Number of training steps over which it falls.

    Attributes:
        leaves_support: Whether draws lie inside the simplex: the discrete model is defined on its corners alone.
        bias: What the derivative of a draw gives in place of the gradient of the discrete model, in a few words.
        trained: Number of training steps made, a scalar.
    """

    leaves_support: ClassVar[bool]
    bias: ClassVar[str]
    trained: Tensor

    def __init__(self, *, initial: float = 1.0, final: float = 0.5, steps: int = 1000):
        super().__init__()
        inside = 0 < final <= initial < math.inf
        range_of = f"family.relaxation.final={final} and family.relaxation.initial={initial}"
        require(inside, f"{range_of} must be positive and finite, and final not above initial.")
        require(steps >= 1, f"family.relaxation.steps={steps} must be at least 1; a constant is initial=final.")
        self.initial, self.final, self.steps = initial, final, steps
        self.register_buffer("trained", torch.zeros((), dtype=torch.long))

    @property
    def temperature(self) -> Tensor:
        """τ_t, a scalar in double precision; being a scalar it does not change the dtype of tensors that it divides."""
        share = (self.trained.double() / self.steps).clamp(max=1.0)
        return self.initial * (share * math.log(self.final / self.initial)).exp()

    def advance(self) -> None:
        """Count a training step."""
        self.trained.add_(1)

    @abstractmethod
    def distribution(self, logits: Tensor) -> RelaxedOneHot:
        """Return the law of differentiable draws at the present temperature, for logits (*batch, *groups, C)."""


class GumbelSoftmaxRelaxation(Relaxation):
    """Draws inside the simplex, with the unbiased gradient of a relaxed objective."""

    leaves_support = True
    bias = "draws are relaxed, and it is the gradient of a relaxed objective"

    def distribution(self, logits: Tensor) -> RelaxedOneHot:
        return GumbelSoftmax(logits, self.temperature)


class StraightThroughRelaxation(Relaxation):
    """One-hot draws with the derivative of relaxed ones: true values, biased gradients."""

    leaves_support = False
    bias = "one-hot draws have the derivative of relaxed ones"

    def distribution(self, logits: Tensor) -> RelaxedOneHot:
        return StraightThrough(logits, self.temperature)
