"""The step of a family that is found before the first step: it measures the bound.

`vi_core.algorithms.pathfinder` finds the one of pathfinder. For Laplace's approximation a mode is searched for from a
point of each replicate's own, and again, up to five times, where a search ends at none. In coordinates v of u = u* +
A v with A Aᵀ = H⁻¹ the log density at a mode has the gradient 0 and the Hessian −I. A replicate for which that does
not hold takes the mode of another, and the run says so; without any mode it is refused.
"""

import logging
import math
from typing import Any, cast

import torch
from torch import Tensor, nn

from vi_core.algorithms.base import Metrics, Step, over_batch
from vi_core.algorithms.pathfinder import find_paths
from vi_core.algorithms.whitening import Density, LogDensity, differences, gradient, whiten
from vi_core.bounds.base import Bound
from vi_core.errors import Unsupported
from vi_core.estimators.base import Estimator
from vi_core.families.base import Family, HasCoordinates, HasPaths
from vi_core.models.base import Model

log = logging.getLogger(__name__)
SEARCHES = 5  # for the modes of all replicates
TOLERANCE = 0.02  # of gradient and Hessian in coordinates where they are 0 and −I


class FixedStep(Step):
    """A measurement of the bound at a q that does not move.

    Args:
        model, family, bound: As those of `Step`.
        estimator: Whose `value` is the bound.
    """

    def __init__(self, model: Model, family: Family, bound: Bound, estimator: Estimator):
        estimator.check(model, family, bound)
        if any(True for _ in model.parameters()):
            raise Unsupported(
                f"family={family.name} needs a model without weights, and {type(model).__name__} has some; use "
                "family=full_rank_normal."
            )
        super().__init__(model, family, bound, [bound.name])
        self.estimator = estimator

    @property
    def moving(self) -> list[nn.Parameter]:
        """The means, which stay where `begin` has put them."""
        return [cast(Any, self.family).origin]

    def begin(self, x: Any) -> None:
        if isinstance(self.family, HasPaths):
            self.start_gradients = find_paths(self.family, self.model, x, self.family.memory)
        else:
            self._find_modes(x)

    def _find_modes(self, x: Any) -> None:
        family = cast(HasCoordinates, self.family)
        found = torch.zeros_like(self.alive)
        kept = [torch.zeros_like(tensor) for tensor in (family.origin, cast(Any, family).factor)]
        for _ in range(SEARCHES):
            self.start_gradients += whiten(family, self.model, x, farthest=math.inf)
            here, places = self._are_modes(x), (family.origin, cast(Any, family).factor)
            for old, new in zip(kept, places, strict=True):
                old[here & ~found] = new[here & ~found]
            found |= here
            if bool(found.all()):
                break
        if not bool(found.any()):
            raise Unsupported(
                f"family={self.family.name} found no mode of log p in {SEARCHES * len(found)} searches: the density "
                "may be a funnel, or flat in a direction; use family=full_rank_normal."
            )
        if not bool(found.all()):
            log.warning("%d of %d replicates found no mode, and take that of another", int((~found).sum()), len(found))
        origin, factor = (torch.where(found.view(-1, *(1,) * (t.dim() - 1)), t, t[found][:1]) for t in kept)
        family.place(origin, factor)

    def _are_modes(self, x: Any) -> Tensor:
        """Return for which replicates the origin is a mode with the curvature A, (R,)."""
        family = cast(Any, self.family)
        places = zip(family.origin.squeeze(1), family.factor.squeeze(1), strict=True)
        return torch.stack([is_mode(self._log_density(origin, root, x), origin) for origin, root in places])

    def _log_density(self, origin: Tensor, root: Tensor, x: Any) -> LogDensity:
        def log_density(seen: Any, v: Tensor) -> Tensor:
            z, log_det = cast(HasCoordinates, self.family).point((origin + v @ root.mT)[:, None, None])
            return (self.model.log_joint(z, seen) + log_det).flatten()

        return Density(log_density, lambda: [(x, 1.0)])

    def forward(self, x: Any) -> Metrics:
        value = over_batch(self.estimator.value(self.model, self.family, self.bound, x))
        self.watch(value.unsqueeze(-1))
        self.good_steps.add_(self.alive)
        return {self.bound.name: value}


def is_mode(f: LogDensity, like: Tensor) -> Tensor:
    """Return whether the gradient of log p is 0 and its Hessian −I at v = 0."""
    centre = torch.zeros_like(like)
    slope, hessian = gradient(f, centre[None]), differences(f, centre)
    away = torch.cat([slope.flatten(), (hessian + torch.eye(len(centre)).to(hessian)).flatten()]).abs().amax()
    return away.isfinite() & (away < TOLERANCE)
