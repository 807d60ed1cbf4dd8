"""Protocol of diffusion models, whose bound is a sum over the steps of the diffusion."""

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from vi_core.models.diffusion.process import Diffusion


class Denoising(NamedTuple):
    """One term of a diffusion model's bound at given noise, each (K, *batch) and differentiable.

    Attributes:
        squared_error: ‖ε − ε_θ(x_t, t)‖².
        term: An unbiased estimate of L_{t−1}; L_0 where t = 1.
    """

    squared_error: Tensor
    term: Tensor


@runtime_checkable
class HasDenoisingTerms(Protocol):
    """A diffusion model: −ELBO = L_T + Σ_{t>1} L_{t−1} + L_0, for the q that it `knows`.

    Attributes:
        num_steps: T.
        process: The forward process, which the family uses too.
        units: Name of nats per dimension divided by log 2: `bits per dimension`, or `differential` ones of a density.
    """

    num_steps: int
    process: Diffusion
    units: str

    def end_term(self, x: Tensor) -> Tensor:
        """Return L_T = KL(q(x_T | x_0) ‖ p(x_T)), in closed form, (1, B), for data (B, D)."""
        ...

    def denoising(self, x: Tensor, t: Tensor, noise: Tensor) -> Denoising:
        """Return the step t, (K, 1, B), from x_t at noise ε ~ N(0, I), (K, 1, B, D), for data (B, D)."""
        ...

    def affine_optimum(self, mean: Tensor, covariance: Tensor) -> Tensor:
        """Return L_0, L_1, ..., L_T, (T + 1,), of the best affine denoiser for x_0 with these moments.

        It is the best of all denoisers for Gaussian data. NaN for terms that the moments do not determine.
        """
        ...

    def generate(self, num_samples: int) -> Tensor:
        """Sample the reverse process; return x_T, ..., x_0 in the data's units, (T + 1, num_samples, D)."""
        ...


def denoising_terms(model: HasDenoisingTerms, x: Tensor, num_samples: int) -> Tensor:
    """Return independent estimates of L_0, L_1, ..., L_T by data point, (T + 1, B), each from `num_samples` draws."""
    terms = []
    for step in range(1, model.num_steps + 1):
        noise = torch.randn(num_samples, 1, *x.shape, dtype=x.dtype, device=x.device)
        t = torch.full(noise.shape[:-1], step, device=x.device)
        terms.append(model.denoising(x, t, noise).term.mean(dim=(0, 1)))
    return torch.stack([*terms, model.end_term(x).squeeze(0)])
