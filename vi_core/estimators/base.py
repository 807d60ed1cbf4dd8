"""The contract of a gradient estimator: where the gradient of a bound flows."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vi_core.bounds.base import Bound
from vi_core.errors import Unsupported, require
from vi_core.families.base import Family
from vi_core.models.base import Model
from vi_core.types import Latents

Result = TypeVar("Result")


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
    """Samples at which the model is evaluated at once, None for all K: see `per_chunk`."""

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


def per_chunk(function: Callable[[Latents, Any], Result], z: Latents, x: Any, size: int | None) -> list[Result]:
    """Return function(z, x) for each `size` of the K samples in z, in their order; for all at once if `size` is None.

    Of a chunk only z and the result are kept. The backward pass computes what it needs of a chunk once more, before it
    goes on to the next, so that memory holds one chunk instead of K samples, for one more evaluation of the model. The
    gradient is the same; `function` must draw no random numbers.
    """
    if size is None or size >= len(next(iter(z.values()))):
        return [function(z, x)]
    chunks = zip(*(values.split(size) for values in z.values()), strict=True)
    pieces = [dict(zip(z, chunk, strict=True)) for chunk in chunks]
    return [checkpoint(function, piece, x, use_reentrant=False, preserve_rng_state=False) for piece in pieces]


def in_chunks(density: Callable[[Latents, Any], Tensor], z: Latents, x: Any, size: int | None) -> Tensor:
    """Return density(z, x), (K, *batch), evaluated at `size` samples at a time; see `per_chunk`."""
    values = per_chunk(density, z, x, size)
    return values[0] if len(values) == 1 else torch.cat(values)
