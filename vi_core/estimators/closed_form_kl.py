"""The ELBO with its KL in closed form: E_q[log p(x | z)] by pathwise samples, minus KL(q(z) ‖ p(z)) exactly.

Approximates ∇ ELBO with ∇ (1/K) Σ_k log p(x | z_k) − ∇ KL. Requires a model that knows the KL and a reparameterised
family; only the ELBO splits this way. Kingma, Welling 2014, equation 7.

With a relaxed family the gradient is that of a *relaxed objective*, with the likelihood at points off the support of q,
as in Jang, Gu, Poole 2017. The objective is no bound, since its expectation is not under q; its value is reported as
the term `relaxed`. The reported bound is the ELBO, at the same draws moved onto the support.
"""

from typing import Any, cast

import torch
from torch import Tensor

from vi_core.bounds.base import Bound
from vi_core.errors import Unsupported
from vi_core.estimators._chunks import in_chunks
from vi_core.estimators.base import Estimate, Estimator, require_known
from vi_core.families.base import Family
from vi_core.models.base import HasClosedFormKL, Model
from vi_core.types import Latents


class ClosedFormKL(Estimator):
    """Unbiased, but for relaxed families. Reports the terms `rate` (the KL) and `distortion` (−log-likelihood).

    Args:
        num_samples: K, samples per step.
        chunk_size: Samples at which the model is evaluated at once, or None for all: less memory, one more evaluation.
    """

    def check(self, model: Model, family: Family, bound: Bound) -> None:
        require_split("closed_form_kl", model, family, bound)

    def forward(self, model: Model, family: Family, bound: Bound, x: Any) -> Estimate:
        known = cast(HasClosedFormKL, model)
        params = family.variational(x)
        q, rate = family.distribution(params), known.kl(params)
        z = q.rsample(self.num_samples)
        estimate = split_estimate(mean_log_likelihood(known, z, x, self.chunk_size), rate)
        if not family.relaxed:
            return estimate
        with torch.no_grad():
            true = split_estimate(mean_log_likelihood(known, q.on_support(z), x, self.chunk_size), rate)
        return true._replace(surrogate=estimate.surrogate, terms=true.terms | {"relaxed": estimate.bound})

    @torch.no_grad()
    def value(self, model: Model, family: Family, bound: Bound, x: Any) -> Tensor:
        known = cast(HasClosedFormKL, model)
        params = family.variational(x)
        z = family.distribution(params).sample(self.num_samples)
        return mean_log_likelihood(known, z, x, self.chunk_size) - known.kl(params)


def require_split(name: str, model: Model, family: Family, bound: Bound) -> None:
    """Raise `Unsupported` unless the bound is the ELBO and the model knows its KL for the family."""
    if not bound.linear:
        raise Unsupported(f"estimator={name} splits only the ELBO, not bound={bound.name}; use estimator=pathwise.")
    require_known(model, family, HasClosedFormKL, "KL in closed form; use estimator=pathwise")


def mean_log_likelihood(model: HasClosedFormKL, z: Latents, x: Any, chunk_size: int | None) -> Tensor:
    """Return (1/K) Σ_k log p(x | z_k), (*batch), differentiable."""
    return in_chunks(model.log_likelihood, z, x, chunk_size).mean(dim=0)


def split_estimate(log_likelihood: Tensor, rate: Tensor) -> Estimate:
    """Return the estimate log-likelihood − rate, both (*batch) and differentiable, with its two terms."""
    value = log_likelihood - rate
    return Estimate(value.detach(), value, None, {"rate": rate.detach(), "distortion": -log_likelihood.detach()})
