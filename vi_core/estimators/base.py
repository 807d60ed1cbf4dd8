"""Contract of a gradient estimator: how the gradient of a bound is estimated, and where it flows.

A model may be evaluated at some of the K samples at a time, so that memory does not grow with K. What the derivative of
f needs, the activations, is forgotten after each chunk, and computed once more when the backward pass comes to it
(`torch.utils.checkpoint`). It goes through the chunks one after the other, so that there is room for one where K
samples had to be kept. Values and gradients are those of all samples at once, at the cost of one more evaluation.
Griewank, Walther 2000; Chen et al. 2016.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from vi_core.bounds.base import Bound
from vi_core.errors import Unsupported, require
from vi_core.families.base import Family
from vi_core.models.base import Model
from vi_core.types import Latents

Result = TypeVar("Result")
Function = Callable[[Latents, Any], Result]


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
        self.check_known(model, family)

    def check_known(self, model: Model, family: Family) -> None:
        """Raise `Unsupported` for a model without the closed forms for q of this family."""
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


def in_chunks(density: Function[Tensor], z: Latents, x: Any, size: int | None) -> Tensor:
    """Return density(z, x), (K, *batch), evaluated at `size` samples at a time; see `per_chunk`."""
    values = per_chunk(density, z, x, size)
    return values[0] if len(values) == 1 else torch.cat(values)


def per_chunk(function: Function[Result], z: Latents, x: Any, size: int | None) -> list[Result]:
    """Return function(z, x) for each `size` of the K samples in z, in their order; for all at once if `size` is None.

    The function must give the same again: it draws no random numbers.
    """
    if size is None or size >= len(next(iter(z.values()))):
        return [function(z, x)]
    chunks = zip(*(values.split(size) for values in z.values()), strict=True)
    return [forgetful(function, dict(zip(z, chunk, strict=True)), x) for chunk in chunks]


def forgetful(function: Function[Result], z: Latents, x: Any) -> Result:
    """Return function(z, x), of which nothing is kept for the backward pass but z and x."""
    from torch.utils.checkpoint import checkpoint  # which imports torch's compiler: a second, and 80 MB

    return checkpoint(function, z, x, use_reentrant=False, preserve_rng_state=False)
