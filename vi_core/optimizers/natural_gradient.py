"""Natural gradient ascent: λ ← λ + lr · (F + damping · I)⁻¹ g, with F the Fisher information on λ.

The step is steepest ascent in the Kullback–Leibler divergence of densities instead of the distance of their parameters,
so that it is the same, to first order, in every parametrisation. Amari 1998; Hoffman et al. 2013 for VI.
In the natural coordinates η of conjugate factors the step is λ ← (1 − lr) λ + lr · η*, with η* the coordinate update:
`family=natural_mean_field`. A singular F gives a step that is not finite: the replicate keeps its parameters and
counts as diverged; damping avoids it. Where F is singular by nature, as along turns of the loadings of
`family=low_rank_normal`, damping is needed, and with it that direction gets the noise of its gradient alone.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from vi_core.errors import Unsupported
from vi_core.optimizers.base import Optimizer, over_replicates
from vi_core.optimizers.schedules import Schedule
from vi_core.per_replicate import PerReplicate

MOST_NUMBERS = 2000  # parameters of a replicate: a step solves a system of as many equations


class NaturalGradient(Optimizer):
    """λ ← λ + lr · (F + damping · I)⁻¹ g, for a Fisher information on all parameters, in one tensor (R, 1, P).

    Args:
        lr: One learning rate, or one for each replicate.
        damping: Added to the diagonal of F: one value, or one for each replicate.
        schedule: Factors of lr over the steps.
    """

    damping: Tensor

    def __init__(self, *, lr: PerReplicate = 0.1, damping: PerReplicate = 0.0, schedule: Schedule | None = None):
        super().__init__(lr=lr, schedule=schedule)
        self.setting("damping", damping, lambda d: 0 <= d < math.inf, "must be finite and not negative")

    def allocate(self, parameters: Sequence[Tensor]) -> None:
        if self.information is None:
            raise Unsupported(
                "optimizer=natural_gradient needs the Fisher information of the model (family=point_mass) or of the "
                "family, and this pair has none; use optimizer=adam."
            )
        if self.singular and bool((self.damping == 0).any()):
            raise Unsupported(
                "optimizer.damping=0 leaves no inverse of this family's Fisher information, which is singular, since "
                "other parameters give the same q; use optimizer.damping=0.1."
            )
        if (numbers := sum(p[0].numel() for p in parameters)) > MOST_NUMBERS:
            raise Unsupported(
                f"optimizer=natural_gradient solves {numbers} equations in each step, more than {MOST_NUMBERS}; use "
                "optimizer=adam, or a family with fewer parameters, such as mean_field_normal."
            )

    def directions(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        (gradient,) = gradients
        assert self.information is not None
        information = self.information()
        identity = torch.eye(information.shape[-1], dtype=information.dtype, device=information.device)
        damped = information + over_replicates(self.damping, information) * identity
        solution, _ = torch.linalg.solve_ex(damped, gradient.squeeze(1))
        return [solution.unsqueeze(1)]

    def forward(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor], alive: Tensor) -> None:
        """Move `parameters`; a replicate whose step is not finite keeps its parameters and counts as diverged."""
        (direction,) = self.directions(gradients)
        alive.logical_and_(direction.isfinite().flatten(1).all(dim=1))
        self.move(parameters, [direction], alive)
