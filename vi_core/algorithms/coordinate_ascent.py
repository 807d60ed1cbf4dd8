"""Coordinate ascent (CAVI): each block of q is set to its optimum given the others. Bishop 2006, section 10.1."""

from typing import Any, Literal, cast

import torch
from torch import Tensor

from vi_core.algorithms.base import Metrics, Step
from vi_core.bounds.base import Bound
from vi_core.errors import LabError, Unsupported
from vi_core.estimators.base import Estimator, require_known
from vi_core.estimators.exact import Exact
from vi_core.families.base import Family
from vi_core.models.base import HasAssignments, HasConstants, HasStart, HasUpdates, Model
from vi_core.optimizers.base import over_replicates
from vi_core.types import Params


class CoordinateAscentStep(Step):
    """A sweep over the blocks of q.

    The blocks are the assignments of the data points where the model has them, then each latent, then the constants
    where they are estimated. A fall of the ELBO by more than rounding means a wrong update: `check` raises.

    Args:
        model, family, bound: As those of `Step`.
        estimator: `Exact`, for the ELBO.
        keep: As that of `CoordinateAscent`.
    """

    previous: Tensor
    largest: Tensor
    worst_fall: Tensor
    remedy = "Use data and settings of the model on a scale nearer to 1, or trainer.on_nonfinite=skip."

    def __init__(self, model: Model, family: Family, bound: Bound, estimator: Estimator, keep: str = "all"):
        require_known(model, family, HasUpdates, "conjugate updates; use optimizer=adam")
        if not isinstance(estimator, Exact):
            raise Unsupported("optimizer=coordinate_ascent follows no gradient estimate; use estimator=exact with it.")
        estimator.check(model, family, bound)
        super().__init__(model, family, bound, [bound.name])
        self.estimator, self.keep = estimator, keep
        self.register_buffer("previous", torch.full_like(self.witness[:, 0], -torch.inf))
        self.register_buffer("largest", torch.zeros_like(self.previous))
        self.register_buffer("worst_fall", torch.zeros_like(self.previous))

    def begin(self, x: Any) -> None:
        if isinstance(self.model, HasStart):
            with torch.no_grad():
                self.family.assign(self.model.start(self.family.variational(), x))

    def kept(self, bounds: Tensor) -> Tensor:
        if self.keep == "all" or not bool(self.alive.any()):
            return self.alive
        best = torch.where(self.alive, bounds, -torch.inf).argmax()
        return torch.arange(len(bounds), device=bounds.device) == best

    @torch.no_grad()
    def forward(self, x: Any) -> Metrics:
        params = self.family.variational()
        value, statistics, magnitude = self._complete(params, x)
        self.watch(value.unsqueeze(-1))
        self._compare(value, magnitude)
        for block in self.model.latents:
            new = cast(HasUpdates, self.model).update(block, params, statistics)
            alive = {name: over_replicates(self.alive, tensor) for name, tensor in new.items()}
            params[block] = {name: torch.where(alive[name], new[name], params[block][name]) for name in new}
        self.family.assign(params)
        if isinstance(self.model, HasConstants) and self.model.estimates_constants:
            self.model.estimate_constants(params, statistics, self.alive)
        self.good_steps.add_(self.alive)
        return {self.bound.name: value}

    def _complete(self, params: Params, x: Any) -> tuple[Tensor, Any, Tensor]:
        """Return the ELBO (R,), what the updates see of the data, and the scale of the ELBO's rounding (R,)."""
        if isinstance(self.model, HasAssignments):
            bound, statistics, magnitude = self.model.complete(params, x)
            return bound.squeeze(1), statistics, magnitude.squeeze(1)
        bound = self.estimator(self.model, self.family, self.bound, x).bound.squeeze(1)
        return bound, x, bound.abs()

    def _compare(self, value: Tensor, magnitude: Tensor) -> None:
        """Keep the largest fall between sweeps, relative to the largest sum seen, on whose scale rounding is."""
        self.largest.copy_(torch.maximum(self.largest, magnitude))
        fall = torch.where(self.alive, (self.previous - value) / self.largest, 0)
        self.worst_fall.copy_(torch.maximum(self.worst_fall, fall))
        self.previous.copy_(value)

    def check(self) -> None:
        fall, tolerance = self.worst_fall.max().item(), 100 * torch.finfo(self.worst_fall.dtype).eps
        if fall > tolerance:
            raise LabError(
                f"the ELBO fell by a fraction of {fall:.1e} in a coordinate-ascent sweep, beyond rounding "
                f"({tolerance:.0e}): an update of {type(self.model).__name__} is wrong, "
                f"or dtype={self.worst_fall.dtype} is too narrow."
            )


class CoordinateAscent:
    """One sweep over the model's blocks per step, in the order of its latents.

    Args:
        keep: Which replicates are results: `all`, or the `best` alone, the one with the highest final ELBO. Replicates
            are then restarts, and the scatter of their ELBOs shows the local optima.
    """

    def __init__(self, *, keep: Literal["all", "best"] = "all"):
        self.keep = keep
