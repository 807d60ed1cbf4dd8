"""How a family of discrete latents makes differentiable draws, with a temperature that anneals as training goes on.

    τ_t = initial · (final/initial)^min(t/steps, 1)

falls exponentially from `initial` to `final` in `steps` training steps, and stays there. t counts training steps alone,
in a buffer: evaluation does not anneal, and a resumed run goes on at its temperature.
"""

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from vi_core.distributions.relaxations import GumbelSoftmax, RelaxedOneHot, StraightThrough
from vi_core.errors import require


class Relaxation(nn.Module, ABC):
    """A way to draw through the argmax.

    Args:
        initial: Temperature of the first step.
        final: Temperature after `steps` steps.
        steps: Over how many training steps it falls.
    """

    leaves_support: ClassVar[bool]
    """Whether draws lie inside the simplex and not on its corners, where alone the discrete model has a meaning."""
    bias: ClassVar[str]
    """What the derivative of a draw gives in place of the gradient of the discrete model, in a few words."""
    trained: Tensor
    """Number of training steps made."""

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
        """τ_t, a scalar in double precision, which leaves the type of whatever it divides."""
        share = (self.trained.double() / self.steps).clamp(max=1.0)
        return self.initial * (share * math.log(self.final / self.initial)).exp()

    def advance(self) -> None:
        """Count a training step."""
        self.trained.add_(1)

    @abstractmethod
    def distribution(self, logits: Tensor) -> RelaxedOneHot:
        """Return the law of the differentiable draws, at the present temperature; logits (*batch, *groups, C)."""


class GumbelSoftmaxRelaxation(Relaxation):
    """Draws inside the simplex. They reach the gradient of a relaxed objective, with no further bias."""

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
