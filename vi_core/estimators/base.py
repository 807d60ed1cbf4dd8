"""The contract of a gradient estimator: where the gradient of a bound flows."""

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
    """One Monte Carlo estimate of a bound and of its gradient; `*batch` is (R, B)."""

    bound: Tensor
    """(*batch), detached: report this."""
    surrogate: Tensor
    """(*batch), ascends: its gradient is the estimate. Never reported."""
    log_w: Tensor | None
    """(K, *batch), detached; None where there are no weights."""
    terms: dict[str, Tensor]
    """Named parts of the bound, (*batch), detached: rate, distortion, ..."""


class Estimator(nn.Module, ABC):
    """A module, so that running baselines are buffers and resume."""

    num_samples: int = 1
    """K; also of the bound that evaluation reports."""

    chunk_size: int | None = None
    """Samples at which the model is evaluated at once, None for all K: see `vi_core.estimators._chunks`."""

    differentiates_draws: ClassVar[bool] = True
    """Whether gradients in the parameters of q flow through its draws, and have their bias: see `Family.bias`."""

    def check(self, model: Model, family: Family, bound: Bound) -> None:
        """Raise `Unsupported` for a combination that has no meaning; called once, before the first step."""

    def bias(self, bound: Bound) -> str:
        """Say in a few words why the gradient of `bound` is biased; empty where it is not."""
        return ""

    @abstractmethod
    def forward(self, model: Model, family: Family, bound: Bound, x: Any) -> Estimate:
        """Estimate `bound` and its gradient at the family's parameters on data x."""

    @torch.no_grad()
    def value(self, model: Model, family: Family, bound: Bound, x: Any) -> Tensor:
        """Return an estimate of the bound alone, (*batch), from fresh samples: what evaluation reports."""
        q = family.distribution(family.variational(x))
        z = q.sample(self.num_samples)
        return bound(in_chunks(model.log_joint, z, x, self.chunk_size) - q.log_prob(z))


def refuse_relaxed(name: str, family: Family) -> None:
    """Raise where differentiable draws leave the support on which an estimator evaluates densities."""
    if family.relaxed:
        raise Unsupported(
            f"estimator={name} evaluates densities at differentiable draws, which here are relaxed and have none; "
            "use estimator=closed_form_kl or score_function, or family/relaxation=straight_through."
        )


def positive_samples(num_samples: int, least: int = 1, reason: str = "") -> int:
    """Return `num_samples`, or raise when it is below `least`."""
    require(num_samples >= least, f"estimator.num_samples={num_samples} must be at least {least}{reason}.")
    return num_samples


def positive_chunk(chunk_size: int | None) -> int | None:
    """Return `chunk_size`, or raise when it is below 1."""
    valid = chunk_size is None or chunk_size >= 1
    require(valid, f"estimator.chunk_size={chunk_size} must be at least 1, or null for all samples at once.")
    return chunk_size
