"""The ELBO with the entropy of q in closed form: ∇ (1/K) Σ_k [log p(x, z_k) + log|det ∂z/∂u|] + ∇ H[u].

Approximates ∇ ELBO, with u the coordinates of z whose entropy is known: unconstrained ones for Normals there, z itself
for mean field. Requires a reparameterised family that knows its entropy. The gradient of log q, which is noise for the
pathwise estimator, is left out as in sticking the landing, and its expectation is added exactly, so that the noise
does not vanish at q(z) = p(z | x); far from it there is less than with either. Kucukelbir, Tran, Ranganath, Gelman,
Blei 2017; Titsias, Lázaro-Gredilla 2014.
"""

from typing import Any, cast

import torch
from torch import Tensor

from vi_core.bounds.base import Bound
from vi_core.errors import Unsupported
from vi_core.estimators.base import Estimate, Estimator, in_chunks, refuse_relaxed
from vi_core.families.base import Family, HasEntropy
from vi_core.models.base import Model
from vi_core.types import Latents, Params


class ClosedFormEntropy(Estimator):
    """Unbiased, for the ELBO alone.

    Args:
        num_samples: K, samples per step.
        chunk_size: Samples at which the model is evaluated at once, or None for all: less memory, one more evaluation.
    """

    def check(self, model: Model, family: Family, bound: Bound) -> None:
        if not bound.linear:
            raise Unsupported(
                f"estimator=closed_form_entropy is for the ELBO, not for bound={bound.name}; use bound=elbo."
            )
        if not isinstance(family, HasEntropy):
            raise Unsupported(
                f"{type(family).__name__} has no entropy in closed form; use estimator=sticking_the_landing."
            )
        refuse_relaxed("closed_form_entropy", family)

    def forward(self, model: Model, family: Family, bound: Bound, x: Any) -> Estimate:
        params = family.variational(x)
        value = self._bound(model, family, params, family.distribution(params).rsample(self.num_samples), x)
        return Estimate(value.detach(), value, None, {})

    @torch.no_grad()
    def value(self, model: Model, family: Family, bound: Bound, x: Any) -> Tensor:
        params = family.variational(x)
        return self._bound(model, family, params, family.distribution(params).sample(self.num_samples), x)

    def _bound(self, model: Model, family: Family, params: Params, z: Latents, x: Any) -> Tensor:
        log_p = in_chunks(model.log_joint, z, x, self.chunk_size)
        return (log_p + cast(HasEntropy, family).entropy(params, z)).mean(dim=0)
