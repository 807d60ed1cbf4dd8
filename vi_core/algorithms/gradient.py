"""Gradient ascent on a bound: an estimate of its gradient, and a step of an optimizer."""

from typing import Any, cast

import torch
from torch import Tensor

from vi_core.algorithms.anchor import Anchored
from vi_core.algorithms.base import Metrics, Step, over_batch
from vi_core.algorithms.whitening import Blocks, whiten
from vi_core.bounds.base import Bound
from vi_core.estimators.base import Estimator
from vi_core.families.base import Family, HasCoordinates, HasDomain, HasInformation
from vi_core.models.base import HasFisher, Model
from vi_core.optimizers.base import Information, Optimizer


class GradientStep(Step):
    """An iteration of gradient ascent on the parameters of family and model.

    The surrogate is summed over replicates, which are independent, and averaged over the batch.

    Args:
        model, family, bound: As those of `Step`.
        estimator: Estimates the gradient of the bound.
        optimizer: Moves the parameters along it.
    """

    def __init__(self, model: Model, family: Family, bound: Bound, estimator: Estimator, optimizer: Optimizer):
        estimator.check(model, family, bound)
        self.named = family.stored_names()
        names = self.named or [name for part in (family, model) for name, _ in part.named_parameters()]
        super().__init__(model, family, bound, [bound.name, *names])
        self.estimator, self.optimizer = estimator, optimizer
        confine = family.confine if isinstance(family, HasDomain) else None
        self.anchor: Anchored | None = None
        optimizer.bind(self.moving, family.replicates, self._information(), confine, family.singular)

    def begin(self, x: Any) -> None:
        if isinstance(self.family, HasCoordinates) and self.family.start in ("random", "mode"):
            self.start_gradients = whiten(self.family, self.model, x)

    def within(self, steps: int) -> None:
        self.optimizer.within(steps)

    def anchored(self) -> None:
        """Use the control variate of minibatches, where the origin lies at a mode or at the end of an earlier run."""
        if isinstance(self.family, HasCoordinates) and self.family.start != "random":
            self.anchor = Anchored(self.model, self.family).to(self.family.origin.device)

    def begin_by_rows(self, few: Any, blocks: Blocks) -> None:
        """Set the initial parameters from some data points, and then those that all of them are needed for.

        Args:
            few: Data points at random.
            blocks: Yields all of them in batches, with their shares of the points.
        """
        assert isinstance(self.family, HasCoordinates)
        if self.family.start in ("random", "mode"):
            self.start_gradients = whiten(self.family, self.model, few, blocks)
        if self.anchor is not None:
            self.anchor.settle(blocks())

    def _information(self) -> Information | None:
        """Return the function for the Fisher information of q, or of the likelihood where q is a point mass."""
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
            self.optimizer.average(moving)
            self.good_steps.add_(self.alive)
        self.family.advance()
        return metrics

    def estimate(self, x: Any) -> tuple[Tensor, Metrics]:
        """Return the surrogate, summed over replicates, and the metrics, each (R,)."""
        target = self.model if self.anchor is None else self.anchor
        return estimate(target, self.family, self.estimator, self.bound, x)

    def _seen(self, gradients: tuple[Tensor, ...]) -> Tensor:
        """Return the gradient (R, P) where its elements have names, else the norm for each tensor, (R, tensors)."""
        if self.named is not None:
            return gradients[0].flatten(1)
        if self.family.replicates == 1:
            return torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients]).unsqueeze(0)
        return torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients], dim=-1)


def estimate(model: Model, family: Family, estimator: Estimator, bound: Bound, x: Any) -> tuple[Tensor, Metrics]:
    """Return the surrogate of a bound, summed over replicates and averaged over the batch, and the metrics (R,)."""
    found = estimator(model, family, bound, x)
    metrics = {name: over_batch(value) for name, value in {bound.name: found.bound, **found.terms}.items()}
    return found.surrogate.sum() * (1 / found.surrogate.shape[1]), metrics | family.monitor()
