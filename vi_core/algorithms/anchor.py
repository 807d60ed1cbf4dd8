"""A control variate for minibatches: the first-order expansion of the log density at the origin of the coordinates.

With ℓ_n the log density of data point n, B points at random estimate L(u) = Σ_n ℓ_n(u) by L_B(u) = (N/B) Σ_B ℓ_n(u).
At the posterior the gradient of L_B has a variance of N/B in units of the posterior: however q is trained, t steps
leave an error of N/(tB) posterior variances, one deviation after a pass over the data. The estimate

    L_B(u) + L(u*) − L_B(u*) + (∇L(u*) − ∇L_B(u*))·(u − u*)

is unbiased too, for one more gradient in a step. Its error is that of the curvature alone, which vanishes with u − u*:
about √(D/B) of that unit at draws of q around a mode u*. L(u*) and its gradient are computed once, from all data.
Johnson, Zhang 2013 (SVRG); Baker, Fearnhead, Fox, Nemeth 2019 use the same expansion at a mode.
"""

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor

from vi_core.families.base import HasCoordinates
from vi_core.models.base import Factors, HasNormalPrior, Model
from vi_core.types import Latents


class Anchored(Model):
    """log p(x, z) of a minibatch with the control variate as a factor of its own.

    Args:
        model: With a density for each data point.
        family: Whose origin is u*.

    Attributes:
        value: log p(x, z) of all data at u*, (R, 1).
        slope: Its gradient there in unconstrained coordinates, (R, 1, D).
    """

    value: Tensor
    slope: Tensor

    def __init__(self, model: Model, family: HasCoordinates):
        super().__init__()
        self.parts = model, family  # in a tuple: their state is that of the step
        self.latents = model.latents
        self.register_buffer("value", torch.zeros_like(family.origin[..., 0]))
        self.register_buffer("slope", torch.zeros_like(family.origin))

    def settle(self, blocks: Iterable[tuple[Any, float]]) -> None:
        """Compute value and gradient at the origin from blocks of all data and their shares of the points."""
        self.value.zero_()
        self.slope.zero_()
        for x, share in blocks:
            value, slope = self.at_origin(x)
            self.value.add_(value, alpha=share)
            self.slope.add_(slope, alpha=share)

    def at_origin(self, x: Any) -> tuple[Tensor, Tensor]:
        """Return log p(x, z) as a batch estimates it at u*, (R, 1), and its gradient, (R, 1, D)."""
        model, family = self.parts
        with torch.enable_grad():
            u = family.origin.detach().requires_grad_()
            value = model.log_joint(family.point(u.unsqueeze(0))[0], x).squeeze(0)
            (slope,) = torch.autograd.grad(value.sum(), u)
        return value.detach(), slope

    def factors(self, z: Latents, x: Any) -> Factors:
        control = self._control(z, x), frozenset(self.latents)
        return {**self.parts[0].factors(z, x), "control variate": control}

    def log_likelihood(self, z: Latents, x: Any) -> Tensor:
        """Return log p(x | z) with the control variate, in which the prior cancels; of a model that has it."""
        return cast(HasNormalPrior, self.parts[0]).log_likelihood(z, x) + self._control(z, x)

    def normal_prior(self) -> tuple[Tensor, Tensor]:
        return cast(HasNormalPrior, self.parts[0]).normal_prior()

    def _control(self, z: Latents, x: Any) -> Tensor:
        family, (value, slope) = self.parts[1], self.at_origin(x)
        away = family.coordinates(z) - family.origin
        return self.value - value + ((self.slope - slope) * away).sum(dim=-1)
