"""The ELBO with its KL in closed form: E_q[log p(x | z)] by pathwise samples, minus KL(q(z) ‖ p(z)) exactly.

Approximates ∇ ELBO with ∇ (1/K) Σ_k log p(x | z_k) − ∇ KL. Requires a model that knows the KL and a reparameterised
family; only the ELBO splits this way. Kingma, Welling 2014, equation 7.

A model of prior and likelihood knows the KL where the prior of each latent is a Normal with constant parameters, and q
one Normal on unconstrained space: there z = u, and the KL is that of two Normals of all latents, in every
preconditioner.

With a relaxed family the gradient is that of a *relaxed objective*, with the likelihood at points off the support of q,
as in Jang, Gu, Poole 2017. The objective is no bound, since its expectation is not under q; its value is reported as
the term `relaxed`. The reported bound is the ELBO, at the same draws moved onto the support.

Two ablations are sometimes mistaken for the path derivative of Roeder, Wu, Duvenaud 2017, which is
`sticking_the_landing`. `detached_latent` detaches z before the decoder. That removes the likelihood's gradient from the
encoder, which then follows that of −KL alone: q(z | x) falls back to the prior, the decoder learns one image for all x,
and the bound stays near −206 nats on MNIST. `detached_mean` detaches the mean in z = loc + scale ε alone: x is still
told by the scales, as these can be small where a coordinate matters.
"""

from typing import Any, cast

import torch
from torch import Tensor

from vi_core.bounds.base import Bound
from vi_core.errors import Unsupported
from vi_core.estimators.base import ELBOEstimator, Estimate, in_chunks
from vi_core.families.base import Family, HasKLToNormal
from vi_core.models.base import HasClosedFormKL, HasNormalPrior, Model
from vi_core.types import Latents, Params


class SplitELBO(ELBOEstimator):
    """An abstract estimator of E_q[log p(x | z)] − KL(q(z) ‖ p(z)), with the second term in closed form."""

    needs, lacking = HasClosedFormKL, "KL in closed form; use estimator=pathwise"

    def check_known(self, model: Model, family: Family) -> None:
        if not isinstance(model, HasNormalPrior):
            return super().check_known(model, family)
        model.normal_prior()
        if not isinstance(family, HasKLToNormal):
            raise Unsupported(
                f"{type(family).__name__} has no KL from a Normal prior in closed form; use family=full_rank_normal, "
                "or estimator=pathwise."
            )

    def rate(self, model: Model, family: Family, params: Params) -> Tensor:
        """Return KL(q ‖ prior), (*batch)."""
        if isinstance(model, HasNormalPrior):
            return cast(HasKLToNormal, family).kl_to_normal(params, *model.normal_prior())
        return cast(HasClosedFormKL, model).kl(params)

    def split(self, model: Model, z: Latents, x: Any, rate: Tensor) -> Estimate:
        """Return the estimate at draws z with the KL `rate`, (*batch), both differentiable, with its two terms."""
        known = cast(HasClosedFormKL | HasNormalPrior, model)
        log_likelihood = in_chunks(known.log_likelihood, z, x, self.chunk_size).mean(dim=0)
        value = log_likelihood - rate
        return Estimate(value.detach(), value, None, {"rate": rate.detach(), "distortion": -log_likelihood.detach()})


class ClosedFormKL(SplitELBO):
    """Unbiased, but for relaxed families. Reports the terms `rate` (the KL) and `distortion` (−log-likelihood).

    Args:
        num_samples: K, samples per step.
        chunk_size: Samples at which the model is evaluated at once, or None for all: less memory, one more evaluation.
    """

    name = "closed_form_kl"

    def forward(self, model: Model, family: Family, bound: Bound, x: Any) -> Estimate:
        params = family.variational(x)
        q, rate = family.distribution(params), self.rate(model, family, params)
        z = q.rsample(self.num_samples)
        estimate = self.split(model, z, x, rate)
        if not family.relaxed:
            return estimate
        with torch.no_grad():
            true = self.split(model, q.on_support(z), x, rate)
        return true._replace(surrogate=estimate.surrogate, terms=true.terms | {"relaxed": estimate.bound})

    @torch.no_grad()
    def value(self, model: Model, family: Family, bound: Bound, x: Any) -> Tensor:
        params = family.variational(x)
        z = family.distribution(params).sample(self.num_samples)
        return self.split(model, z, x, self.rate(model, family, params)).bound


class DetachedLatent(SplitELBO):
    """Biased in the parameters of q: their gradient is that of −KL alone.

    Args:
        num_samples: K, samples per step.
        chunk_size: Samples at which the model is evaluated at once, or None for all: less memory, one more evaluation.
    """

    name = "detached_latent"
    differentiates_draws = False

    def bias(self, bound: Bound) -> str:
        return "the likelihood's gradient does not reach the encoder"

    def forward(self, model: Model, family: Family, bound: Bound, x: Any) -> Estimate:
        params = family.variational(x)
        z = family.distribution(params).sample(self.num_samples)
        return self.split(model, z, x, self.rate(model, family, params))


class DetachedMean(SplitELBO):
    """Biased in the locations of q: their gradient is that of −KL alone, and that of the scales is right.

    Args:
        num_samples: K, samples per step.
        chunk_size: Samples at which the model is evaluated at once, or None for all: less memory, one more evaluation.
    """

    name = "detached_mean"

    def check(self, model: Model, family: Family, bound: Bound) -> None:
        super().check(model, family, bound)
        if not any("loc" in names for names in family.layout.values()):
            raise Unsupported(
                f"estimator={self.name} detaches locations, and {type(family).__name__} has none; "
                "use estimator=detached_latent."
            )

    def bias(self, bound: Bound) -> str:
        return "the likelihood's gradient does not reach the mean of q"

    def forward(self, model: Model, family: Family, bound: Bound, x: Any) -> Estimate:
        params = family.variational(x)
        held = {
            latent: {name: value.detach() if name == "loc" else value for name, value in group.items()}
            for latent, group in params.items()
        }
        z = family.distribution(held).rsample(self.num_samples)
        return self.split(model, z, x, self.rate(model, family, params))
