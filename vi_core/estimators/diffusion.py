"""The ELBO of a diffusion model, by random steps: −L̂ = −L_T − (T/K) Σ_k ℓ(t_k, ε_k), with t_k uniform on 1, ..., T.

ℓ(t, ε) estimates L_{t−1} without bias at x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) ε, so L̂ and its gradient are unbiased, and a step
costs K evaluations of the network where `pathwise` needs T. Requires a diffusion model with its forward process; only
the ELBO is a sum of terms. Ho, Jain, Abbeel 2020, equations 5 to 8.

The simple objective of diffusion models: climb − mean_k ‖ε_k − ε_θ(x_{t_k}, t_k)‖², with t_k uniform on 1, ..., T.

It weighs all steps alike where the ELBO weighs L_{t−1} with β_t²/(2 σ_t² α_t (1 − ᾱ_t)), large at small t. It is no
bound and its gradient is not the ELBO's; both share their optimum only where the network can fit every t. The reported
bound is the ELBO from the same draws, as in `diffusion_variational`. Ho, Jain, Abbeel 2020, equation 14.
"""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from vi_core.bounds.base import Bound
from vi_core.estimators.base import ELBOEstimator, Estimate
from vi_core.families.base import Family
from vi_core.models.base import Denoising, HasDenoisingTerms, Model, denoising_terms


class DiffusionEstimator(ELBOEstimator):
    """An abstract estimator from random steps of the diffusion.

    Args:
        num_samples: K, draws of (t, ε) per data point; of ε per data point and t where the bound is only evaluated.
    """

    needs, lacking = HasDenoisingTerms, "denoising terms; use estimator=pathwise, or model=ddpm"

    def __init__(self, *, num_samples: int = 1):
        super().__init__(num_samples=num_samples)

    def draw(self, model: Model, x: Tensor) -> "Steps":
        """Draw t uniform on 1, ..., T and ε ~ N(0, I), K times for each of the data (B, D)."""
        known = cast(HasDenoisingTerms, model)
        noise = torch.randn(self.num_samples, 1, *x.shape, dtype=x.dtype, device=x.device)
        t = torch.randint(1, known.num_steps + 1, noise.shape[:-1], device=x.device)
        denoising = known.denoising(x, t, noise)
        return Steps(t, known.end_term(x), known.num_steps * denoising.term, denoising)

    @torch.no_grad()
    def value(self, model: Model, family: Family, bound: Bound, x: Any) -> Tensor:
        """Return an estimate of the ELBO, (1, B), from K draws at every t: less noise than random steps."""
        return -denoising_terms(cast(HasDenoisingTerms, model), x, self.num_samples).sum(dim=0, keepdim=True)


class DiffusionVariational(DiffusionEstimator):
    """Unbiased. Reports L_T, the sum of L_{t−1} over t > 1 as `L_t`, and L_0.

    Args:
        num_samples: K, draws of (t, ε) per data point; of ε per data point and t where the bound is only evaluated.
    """

    name = "diffusion_variational"

    def forward(self, model: Model, family: Family, bound: Bound, x: Any) -> Estimate:
        drawn = self.draw(model, x)
        value = -drawn.end - drawn.scaled.mean(dim=0)
        return Estimate(value.detach(), value, None, drawn.report())


class DiffusionSimple(DiffusionEstimator):
    """Biased as a gradient of the ELBO, on purpose. Reports the ELBO, its terms, and `squared_error`.

    Args:
        num_samples: K, draws of (t, ε) per data point; of ε per data point and t where the bound is only evaluated.
    """

    name = "diffusion_simple"

    def bias(self, bound: Bound) -> str:
        return "every step weighs alike, and no bound has those weights"

    def forward(self, model: Model, family: Family, bound: Bound, x: Any) -> Estimate:
        drawn = self.draw(model, x)
        value = -drawn.end - drawn.scaled.mean(dim=0)
        error = drawn.denoising.squared_error.mean(dim=0)
        return Estimate(value.detach(), -error, None, {**drawn.report(), "squared_error": error.detach()})


class Steps(NamedTuple):
    """K random terms of the bound for each data point.

    Attributes:
        t: (K, 1, B), from 1 to T.
        end: L_T, (1, B).
        scaled: T ℓ(t, ε), (K, 1, B).
        denoising: ℓ(t, ε) and the squared error that it contains.
    """

    t: Tensor
    end: Tensor
    scaled: Tensor
    denoising: Denoising

    def report(self) -> dict[str, Tensor]:
        """Return unbiased estimates of the terms, each (1, B), detached."""
        scaled, first = self.scaled.detach(), self.t == 1
        parts = {"L_t": torch.where(first, 0, scaled).mean(dim=0), "L_0": torch.where(first, scaled, 0).mean(dim=0)}
        return {"L_T": self.end.detach(), **parts}
