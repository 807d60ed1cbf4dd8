"""An ablation of `closed_form_kl`: the ELBO with z detached before the decoder.

Detaching z removes the likelihood's gradient from the encoder, which then follows that of −KL alone: q(z | x) falls
back to the prior, the decoder learns one image for all x, and the bound stays near −206 nats on MNIST. It is sometimes
mistaken for the path derivative of Roeder, Wu, Duvenaud 2017, which is `sticking_the_landing`.
"""

from typing import Any, cast

from vi_core.bounds.base import Bound
from vi_core.estimators.base import Estimate, Estimator
from vi_core.estimators.closed_form_kl import mean_log_likelihood, require_split, split_estimate
from vi_core.families.base import Family
from vi_core.models.base import HasClosedFormKL, Model


class DetachedLatent(Estimator):
    """Biased in the parameters of q: their gradient is that of −KL alone.

    Args:
        num_samples: K, samples per step.
        chunk_size: Samples at which the model is evaluated at once, or None for all: less memory, one more evaluation.
    """

    differentiates_draws = False

    def check(self, model: Model, family: Family, bound: Bound) -> None:
        require_split("detached_latent", model, family, bound)

    def bias(self, bound: Bound) -> str:
        return "the likelihood's gradient does not reach the encoder"

    def forward(self, model: Model, family: Family, bound: Bound, x: Any) -> Estimate:
        known = cast(HasClosedFormKL, model)
        params = family.variational(x)
        z = family.distribution(params).sample(self.num_samples)
        return split_estimate(mean_log_likelihood(known, z, x, self.chunk_size), known.kl(params))
