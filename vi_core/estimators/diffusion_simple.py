"""The simple objective of diffusion models: climb − mean_k ‖ε_k − ε_θ(x_{t_k}, t_k)‖², with t_k uniform on 1, ..., T.

It weighs all steps alike where the ELBO weighs L_{t−1} with β_t²/(2 σ_t² α_t (1 − ᾱ_t)), large at small t. It is no
bound and its gradient is not the ELBO's; both share their optimum only where the network can fit every t. The reported
bound is the ELBO from the same draws, as in `diffusion_variational`. Ho, Jain, Abbeel 2020, equation 14.
"""

from typing import Any, cast

from torch import Tensor

from vi_core.bounds.base import Bound
from vi_core.estimators.base import Estimate, Estimator
from vi_core.estimators.diffusion_variational import draw_steps, every_step, require_terms
from vi_core.families.base import Family
from vi_core.models.base import Model
from vi_core.models.diffusion.protocols import HasDenoisingTerms


class DiffusionSimple(Estimator):
    """Biased as a gradient of the ELBO, on purpose. Reports the ELBO, its terms, and `squared_error`.

    Args:
        num_samples: K, draws of (t, ε) per data point; of ε per data point and t where the bound is only evaluated.
    """

    def __init__(self, *, num_samples: int = 1):
        super().__init__(num_samples=num_samples)

    def check(self, model: Model, family: Family, bound: Bound) -> None:
        require_terms("diffusion_simple", model, family, bound)

    def bias(self, bound: Bound) -> str:
        return "every step weighs alike, and no bound has those weights"

    def forward(self, model: Model, family: Family, bound: Bound, x: Any) -> Estimate:
        drawn = draw_steps(cast(HasDenoisingTerms, model), x, self.num_samples)
        value = -drawn.end - drawn.scaled.mean(dim=0)
        error = drawn.denoising.squared_error.mean(dim=0)
        return Estimate(value.detach(), -error, None, {**drawn.report(), "squared_error": error.detach()})

    def value(self, model: Model, family: Family, bound: Bound, x: Any) -> Tensor:
        return every_step(cast(HasDenoisingTerms, model), x, self.num_samples)
