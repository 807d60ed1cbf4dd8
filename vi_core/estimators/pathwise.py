"""The pathwise (reparameterisation) gradient: the total derivative through the samples.

Approximates ∇ E_q[L(log w)] with ∇ L(log w(z(ε, λ), λ)), where z = z(ε, λ) is a differentiable draw.
Requires a reparameterised family and a model whose log p(x, z) is differentiable in z.
Kingma, Welling 2014; Rezende, Mohamed, Wierstra 2014.
"""

from typing import Any

from vi_core.bounds.base import Bound
from vi_core.estimators._chunks import in_chunks
from vi_core.estimators.base import Estimate, Estimator, refuse_relaxed
from vi_core.families.base import Family
from vi_core.models.base import Model


class Pathwise(Estimator):
    """Unbiased for every bound.

    Args:
        num_samples: K, samples per step.
        chunk_size: Samples at which the model is evaluated at once, or None for all: less memory, one more evaluation.
    """

    def check(self, model: Model, family: Family, bound: Bound) -> None:
        refuse_relaxed("pathwise", family)

    def forward(self, model: Model, family: Family, bound: Bound, x: Any) -> Estimate:
        q = family.distribution(family.variational(x))
        z = q.rsample(self.num_samples)
        log_w = in_chunks(model.log_joint, z, x, self.chunk_size) - q.log_prob(z)
        value = bound(log_w)
        return Estimate(value.detach(), value, log_w.detach(), {})
