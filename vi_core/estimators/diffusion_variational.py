"""The ELBO of a diffusion model, by random steps: −L̂ = −L_T − (T/K) Σ_k ℓ(t_k, ε_k), with t_k uniform on 1, ..., T.

ℓ(t, ε) estimates L_{t−1} without bias at x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) ε, so L̂ and its gradient are unbiased, and a step
costs K evaluations of the network where `pathwise` needs T. Requires a diffusion model with its forward process; only
the ELBO is a sum of terms. Ho, Jain, Abbeel 2020, equations 5 to 8.
"""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from vi_core.bounds.base import Bound
from vi_core.errors import Unsupported
from vi_core.estimators.base import Estimate, Estimator, require_known
from vi_core.families.base import Family
from vi_core.models.base import Model
from vi_core.models.diffusion.protocols import Denoising, HasDenoisingTerms, denoising_terms


class DiffusionVariational(Estimator):
    """Unbiased. Reports L_T, the sum of L_{t−1} over t > 1 as `L_t`, and L_0.

    Args:
        num_samples: K, draws of (t, ε) per data point; of ε per data point and t where the bound is only evaluated.
    """

    def __init__(self, *, num_samples: int = 1):
        super().__init__(num_samples=num_samples)

    def check(self, model: Model, family: Family, bound: Bound) -> None:
        require_terms("diffusion_variational", model, family, bound)

    def forward(self, model: Model, family: Family, bound: Bound, x: Any) -> Estimate:
        drawn = draw_steps(cast(HasDenoisingTerms, model), x, self.num_samples)
        value = -drawn.end - drawn.scaled.mean(dim=0)
        return Estimate(value.detach(), value, None, drawn.report())

    def value(self, model: Model, family: Family, bound: Bound, x: Any) -> Tensor:
        return every_step(cast(HasDenoisingTerms, model), x, self.num_samples)


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


def require_terms(name: str, model: Model, family: Family, bound: Bound) -> None:
    """Raise `Unsupported` unless the bound is the ELBO of a diffusion model and its own forward process."""
    if not bound.linear:
        raise Unsupported(f"estimator={name} sums terms of the ELBO, not of bound={bound.name}; use bound=elbo.")
    require_known(model, family, HasDenoisingTerms, "denoising terms; use estimator=pathwise, or model=ddpm")


def draw_steps(model: HasDenoisingTerms, x: Tensor, num_samples: int) -> Steps:
    """Draw t uniform on 1, ..., T and ε ~ N(0, I), `num_samples` times for each of the data (B, D)."""
    noise = torch.randn(num_samples, 1, *x.shape, dtype=x.dtype, device=x.device)
    t = torch.randint(1, model.num_steps + 1, noise.shape[:-1], device=x.device)
    denoising = model.denoising(x, t, noise)
    return Steps(t, model.end_term(x), model.num_steps * denoising.term, denoising)


@torch.no_grad()
def every_step(model: HasDenoisingTerms, x: Tensor, num_samples: int) -> Tensor:
    """Return an estimate of the ELBO, (1, B), from `num_samples` draws at every t: less noise than random steps."""
    return -denoising_terms(model, x, num_samples).sum(dim=0, keepdim=True)
