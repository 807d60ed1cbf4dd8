"""Contract of a gradient estimator: how the gradient of a bound is estimated, and where it flows."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from vi_core.bounds.base import Bound
from vi_core.errors import Unsupported, require
from vi_core.estimators._chunks import in_chunks
from vi_core.families.base import Family
from vi_core.models.base import Model


class Estimate(NamedTuple):
    """One Monte Carlo estimate of a bound and of its gradient; `*batch` is (R, B).

    Attributes:
        bound: (*batch), detached; the value to report.
        surrogate: (*batch), a scalar to ascend, whose gradient is the estimate; never reported.
        log_w: Log-weights (K, *batch), detached; None where there are no weights.
        terms: Named parts of the bound, such as rate and distortion, each (*batch), detached.
    """

    bound: Tensor
    surrogate: Tensor
    log_w: Tensor | None
    terms: dict[str, Tensor]


class Estimator(nn.Module, ABC):
    """An estimator of a bound and of its gradient; a module, so that running statistics are buffers and resume.

    Args:
        num_samples: K, samples per step; also of the bound that evaluation reports.
        chunk_size: Samples at which the model is evaluated at once, or None for all: less memory, one more evaluation.

    Attributes:
        differentiates_draws: Whether gradients in the parameters of q flow through its draws, with their bias where a
            family has one: see `Family.bias`.
    """

    differentiates_draws: ClassVar[bool] = True

    def __init__(self, *, num_samples: int = 1, chunk_size: int | None = None):
        super().__init__()
        require(num_samples >= 1, f"estimator.num_samples={num_samples} must be at least 1.")
        valid = chunk_size is None or chunk_size >= 1
        require(valid, f"estimator.chunk_size={chunk_size} must be at least 1, or null for all samples at once.")
        self.num_samples, self.chunk_size = num_samples, chunk_size

    def check(self, model: Model, family: Family, bound: Bound) -> None:
        """Raise `Unsupported` for a combination that has no meaning; called once, before the first step."""

    def bias(self, bound: Bound) -> str:
        """Say in a few words why the gradient of `bound` is biased; empty where it is not."""
        return ""

    @abstractmethod
    def forward(self, model: Model, family: Family, bound: Bound, x: Any) -> Estimate:
        """Estimate `bound` and its gradient at the family's parameters on data x, as `Model.summarize` returns them."""

    @torch.no_grad()
    def value(self, model: Model, family: Family, bound: Bound, x: Any) -> Tensor:
        """Return an estimate of the bound alone, (*batch), from K fresh samples, for evaluation."""
        q = family.distribution(family.variational(x))
        z = q.sample(self.num_samples)
        return bound(in_chunks(model.log_joint, z, x, self.chunk_size) - q.log_prob(z))


class ELBOEstimator(Estimator):
    """An abstract estimator of the ELBO alone, with closed forms that the model knows for the family.

    Attributes:
        name: Value of the setting `estimator`, for messages.
        needs: Protocol of the model.
        lacking: What a model without it does not have, in words, with the way out.
    """

    name: ClassVar[str]
    needs: ClassVar[type]
    lacking: ClassVar[str]

    def check(self, model: Model, family: Family, bound: Bound) -> None:
        if not bound.linear:
            raise Unsupported(f"estimator={self.name} is for the ELBO, not for bound={bound.name}; use bound=elbo.")
        require_known(model, family, self.needs, self.lacking)


def refuse_relaxed(name: str, family: Family) -> None:
    """Raise `Unsupported` where differentiable draws leave the support, on which alone densities have a meaning."""
    if family.relaxed:
        raise Unsupported(
            f"estimator={name} evaluates densities at differentiable draws, which here are relaxed and have none; "
            "use estimator=closed_form_kl or score_function, or family/relaxation=straight_through."
        )


def require_known(model: Model, family: Family, protocol: type, lacking: str) -> None:
    """Raise `Unsupported` unless the model has the closed forms of a protocol for q of this family."""
    if not isinstance(model, protocol) or not model.knows(family.layout):
        raise Unsupported(f"{type(model).__name__} and {type(family).__name__} have no {lacking}.")
