"""Steps: what one iteration does. The loop knows nothing else of an algorithm.

A step returns its metrics before the update, the bound first, each (R,). It never synchronises with the device: a
replicate whose bound or gradient is not finite is frozen by a mask, and what was seen at that moment is kept for
whoever looks later.
"""

from abc import ABC, abstractmethod
from typing import Any, cast

import torch
from torch import Tensor, nn

from vi_core.bounds.base import Bound
from vi_core.errors import LabError, Unsupported
from vi_core.estimators.base import Estimator
from vi_core.estimators.exact import Exact
from vi_core.families.base import Family, HasDomain, HasInformation
from vi_core.models.base import HasAssignments, HasConstants, HasFisher, HasStart, HasUpdates, Model
from vi_core.optimizers.base import Metric, Optimizer, over_replicates
from vi_core.optimizers.coordinate_ascent import CoordinateAscent
from vi_core.types import Params, flatten

Metrics = dict[str, Tensor]


class Step(nn.Module, ABC):
    """One iteration of an algorithm on R replicates; its state is `state_dict()` and torch's random state."""

    alive: Tensor
    """(R,) replicates that still move."""
    good_steps: Tensor
    """(R,) steps that each replicate has made."""
    witness: Tensor
    """(R, W) what the last step of each live replicate saw, and the first bad one of a dead replicate."""

    def __init__(self, model: Model, family: Family, bound: Bound, witnesses: list[str]):
        super().__init__()
        self.model, self.family, self.bound, self.witnesses = model, family, bound, witnesses
        if not self.moving:
            raise Unsupported(f"neither {type(model).__name__} nor {type(family).__name__} has parameters to move.")
        like, replicates = self.moving[0].detach(), family.replicates
        self.register_buffer("alive", torch.ones(replicates, dtype=torch.bool, device=like.device))
        self.register_buffer("good_steps", torch.zeros(replicates, dtype=torch.long, device=like.device))
        self.register_buffer("witness", like.new_zeros(replicates, len(witnesses)))

    @abstractmethod
    def forward(self, x: Any) -> Metrics:
        """Update on data x; return the metrics before the update, the bound first, each (R,)."""

    @property
    def grad_norm(self) -> Tensor | None:
        """(R,) norm of the last gradient in unconstrained parameters, or None where there is none."""
        return None

    @property
    def moving(self) -> list[nn.Parameter]:
        """The unconstrained tensors that the algorithm moves."""
        return [*self.family.parameters(), *self.model.parameters()]

    def begin(self, x: Any) -> None:
        """Move to where the algorithm starts on the whole data set x, if that is not where the family starts."""

    def kept(self, bounds: Tensor) -> Tensor:
        """Return (R,) which replicates count as results, given their final bounds (R,)."""
        return self.alive

    def check(self) -> None:
        """Raise when the algorithm has broken a promise of its own; synchronises, called now and then."""

    def watch(self, seen: Tensor) -> None:
        """Record `seen` (R, W) for live replicates, and freeze those where it is not finite."""
        self.witness.copy_(torch.where(self.alive.unsqueeze(-1), seen, self.witness))
        self.alive.logical_and_(seen.isfinite().all(dim=-1))


class GradientStep(Step):
    """Estimator and optimizer: estimate the gradient of the bound, move along it.

    The surrogate is summed over replicates, which do not touch, and averaged over the batch.
    """

    def __init__(self, model: Model, family: Family, bound: Bound, estimator: Estimator, optimizer: Optimizer):
        estimator.check(model, family, bound)
        self.named = family.stored_names()
        names = self.named or [name for part in (family, model) for name, _ in part.named_parameters()]
        super().__init__(model, family, bound, [bound.name, *names])
        self.estimator, self.optimizer = estimator, optimizer
        confine = family.confine if isinstance(family, HasDomain) else None
        optimizer.bind(self.moving, family.replicates, self._metric(), confine)

    def _metric(self) -> Metric | None:
        """Return what computes the Fisher information of the family, or of the likelihood where q is a point."""
        if isinstance(self.family, HasInformation):
            return self.family.fisher
        if not isinstance(self.model, HasFisher) or set(self.family.layout.values()) != {frozenset({"value"})}:
            return None
        return self._likelihood_information

    def _likelihood_information(self) -> Tensor:
        with torch.no_grad():
            z = {name: group["value"] for name, group in self.family.variational().items()}
            information = cast(HasFisher, self.model).fisher(z, self.data)
        return self.family.pull_back(information.squeeze(1))

    @property
    def grad_norm(self) -> Tensor:
        return torch.linalg.vector_norm(self.witness[:, 1:], dim=-1)

    def forward(self, x: Any) -> Metrics:
        self.data = x
        moving = self.moving
        objective, metrics = self.estimate(x)
        gradients = torch.autograd.grad(objective, moving, allow_unused=True, materialize_grads=True)
        self.watch(torch.cat([metrics[self.bound.name].unsqueeze(-1), self._seen(gradients)], dim=-1))
        with torch.no_grad():
            self.optimizer(moving, gradients, self.alive)
            self.good_steps.add_(self.alive)
        self.family.advance()
        return metrics

    def estimate(self, x: Any) -> tuple[Tensor, Metrics]:
        """Return what ascends, summed over replicates, and the metrics, each (R,)."""
        return estimate(self.model, self.family, self.estimator, self.bound, x)

    def _seen(self, gradients: tuple[Tensor, ...]) -> Tensor:
        """Return the gradient (R, P) where its elements have names, else the norm for each tensor, (R, tensors)."""
        if self.named is not None:
            return gradients[0].flatten(1)
        if self.family.replicates == 1:
            return torch.stack(torch._foreach_norm(gradients)).unsqueeze(0)
        return torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients], dim=-1)


def estimate(model: Model, family: Family, estimator: Estimator, bound: Bound, x: Any) -> tuple[Tensor, Metrics]:
    """Return the surrogate of a bound, summed over replicates and averaged over the batch, and the metrics (R,)."""
    found = estimator(model, family, bound, x)
    metrics = {name: over_batch(value) for name, value in {bound.name: found.bound, **found.terms}.items()}
    return found.surrogate.sum() * (1 / found.surrogate.shape[1]), metrics | family.monitor()


def over_batch(value: Tensor) -> Tensor:
    """Average (R, B) over the batch, without arithmetic where B is 1."""
    return value.squeeze(1) if value.shape[1] == 1 else value.mean(dim=1)


class CoordinateAscentStep(Step):
    """Sweep the blocks, each set to its optimum given the others.

    First the assignments of the data points where the model has them, then each latent, then the constants where they
    are estimated. The ELBO must not fall by more than rounding: `check` raises if it has, which would mean a wrong
    update.
    """

    previous: Tensor
    largest: Tensor
    worst_fall: Tensor

    def __init__(self, model: Model, family: Family, bound: Bound, estimator: Estimator, keep: str = "all"):
        if not isinstance(model, HasUpdates) or not model.knows(family.layout):
            pair = f"{type(model).__name__} and {type(family).__name__}"
            raise Unsupported(f"{pair} have no conjugate updates; use optimizer=adam.")
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
        value, statistics = self._complete(params, x)
        self.watch(value.unsqueeze(-1))
        self._compare(value)
        for block in self.model.latents:
            new = cast(HasUpdates, self.model).update(block, params, statistics)
            alive = {name: over_replicates(self.alive, tensor) for name, tensor in new.items()}
            params[block] = {name: torch.where(alive[name], new[name], params[block][name]) for name in new}
        self.family.assign(params)
        if isinstance(self.model, HasConstants) and self.model.estimates_constants:
            self.model.estimate_constants(params, statistics, self.alive)
        self.good_steps.add_(self.alive)
        return {self.bound.name: value}

    def _complete(self, params: Params, x: Any) -> tuple[Tensor, Any]:
        """Return the ELBO (R,) and what the updates see of the data."""
        if isinstance(self.model, HasAssignments):
            bound, statistics = self.model.complete(params, x)
            return bound.squeeze(1), statistics
        return self.estimator(self.model, self.family, self.bound, x).bound.squeeze(1), x

    def _compare(self, value: Tensor) -> None:
        """Keep the largest fall between sweeps, relative to the largest ELBO seen, on whose scale rounding is."""
        self.largest.copy_(torch.maximum(self.largest, value.abs()))
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


def make_step(model: Model, family: Family, bound: Bound, estimator: Estimator, optimizer: object) -> Step:
    """Return the step that `optimizer` asks for."""
    if isinstance(optimizer, CoordinateAscent):
        return CoordinateAscentStep(model, family, bound, estimator, optimizer.keep)
    if isinstance(model, HasConstants) and model.estimates_constants:
        raise Unsupported(
            "model/hyperparameters=empirical_bayes is a block of coordinate ascent; use optimizer=coordinate_ascent, "
            "or model/hyperparameters=fixed."
        )
    assert isinstance(optimizer, Optimizer)
    if family.replicates > 1 and any(True for _ in model.parameters()):
        raise Unsupported(
            f"replicates={family.replicates} needs a model without weights of its own, and {type(model).__name__} "
            "has one set; use replicates=1 and sweep the seed: -m 'seed=range(3)'."
        )
    return GradientStep(model, family, bound, estimator, optimizer)


def trace_parameters(step: Step) -> Tensor:
    """Return q's constrained parameters as (R, P) where the data points share them, else (R, 0)."""
    if step.model.has_local:
        return step.witness.new_empty(len(step.alive), 0)
    with torch.no_grad():
        return torch.cat([value.flatten(1) for value in flatten(step.family.variational())], dim=-1)


def recorded_parameters(step: Step) -> Tensor:
    """Return q's parameters and the norm of the last gradient, NaN where there is none, (R, P + 1)."""
    norm = step.grad_norm
    last = step.witness.new_full((len(step.alive),), torch.nan) if norm is None else norm
    return torch.cat([trace_parameters(step), last.unsqueeze(-1)], dim=-1)
