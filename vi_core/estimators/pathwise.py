"""The pathwise (reparameterisation) gradient: the total derivative through the samples.

Approximates ∇ E_q[L(log w)] with ∇ L(log w(z(ε, λ), λ)), where z = z(ε, λ) is a differentiable draw.
Requires a reparameterised family and a model whose log p(x, z) is differentiable in z.
Kingma, Welling 2014; Rezende, Mohamed, Wierstra 2014.

Sticking the landing: the path derivative, with the score of log q left out of the total derivative.

The pathwise gradient of log p(x, z) − log q(z; λ) is a path term, through z, and −∇_λ log q(z; λ) at fixed z, whose
expectation is zero. Leaving it out keeps the ELBO's gradient unbiased, and at q(z) = p(z | x) each sample's gradient is
exactly zero: the noise vanishes where the pathwise estimator's does not. Roeder, Wu, Duvenaud 2017.

Requires a reparameterised family and a model differentiable in z. For a bound that is not a mean over samples, such as
the IWELBO with K > 1, the weights multiply the score term, its expectation is no longer zero, and this estimator is
biased (Tucker, Lawson, Gu, Maddison 2018); it is offered there because published results use it.
"""

from typing import Any

from vi_core.bounds.base import Bound
from vi_core.estimators.base import Estimate, Estimator, in_chunks, refuse_relaxed
from vi_core.families.base import Family, VariationalDistribution
from vi_core.models.base import Model
from vi_core.types import Latents, detached


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
        z = draws(q, bound, self.num_samples)
        log_w = in_chunks(model.log_joint, z, x, self.chunk_size) - q.log_prob(z)
        value = bound(log_w)
        return Estimate(value.detach(), value, log_w.detach(), {})


class StickingTheLanding(Estimator):
    """Unbiased for the ELBO, biased for the IWELBO with K > 1.

    Args:
        num_samples: K, samples per step.
        chunk_size: Samples at which the model is evaluated at once, or None for all: less memory, one more evaluation.
    """

    def check(self, model: Model, family: Family, bound: Bound) -> None:
        refuse_relaxed("sticking_the_landing", family)

    def bias(self, bound: Bound) -> str:
        additive = bound.additive or self.num_samples == 1
        return "" if additive else f"the path derivative of bound={bound.name} with K = {self.num_samples} > 1"

    def forward(self, model: Model, family: Family, bound: Bound, x: Any) -> Estimate:
        params = family.variational(x)
        z = draws(family.distribution(params), bound, self.num_samples)
        log_q = family.distribution(detached(params)).log_prob(z)
        log_w = in_chunks(model.log_joint, z, x, self.chunk_size) - log_q
        value = bound(log_w)
        return Estimate(value.detach(), value, log_w.detach(), {})


def draws(q: VariationalDistribution, bound: Bound, num_samples: int) -> Latents:
    """Return K differentiable draws: independent ones, which a bound that is no mean over them is defined by."""
    return q.balanced(num_samples) if bound.additive else q.rsample(num_samples)
