"""The contract of a model: an unnormalised target p(x, z) that knows its own truth where one exists.

Every model has `latents` and `factors`. The other abilities are protocols, and whoever needs one asks for it before
the first step and refuses in one line where it is missing. Closed forms hold for some families: `knows` says which.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from vi_core.models.diffusion.process import Diffusion


class Denoising(NamedTuple):
    """One step of a diffusion model's bound at given noise, each (K, *batch) and differentiable."""

    squared_error: Tensor
    """‖ε − ε_θ(x_t, t)‖²"""
    term: Tensor
    """An unbiased estimate of L_{t−1}; L_0 where t = 1."""


@runtime_checkable
class HasDenoisingTerms(Protocol):
    """A diffusion model: −ELBO = L_T + Σ_{t>1} L_{t−1} + L_0, for the q that it `knows`."""

    num_steps: int
    process: Diffusion
    """The noise, for the family that adds it."""
    units: str
    """What nats per dimension, divided by log 2, are."""

    def end_term(self, x: Tensor) -> Tensor:
        """Return L_T = KL(q(x_T | x_0) ‖ p(x_T)), in closed form, (1, B), for data (B, D)."""
        ...

    def denoising(self, x: Tensor, t: Tensor, noise: Tensor) -> Denoising:
        """Return the step t, (K, 1, B), from x_t at noise ε ~ N(0, I), (K, 1, B, D), for data (B, D)."""
        ...

    def affine_optimum(self, mean: Tensor, covariance: Tensor) -> Tensor:
        """Return L_0, L_1, ..., L_T, (T + 1,), of the best affine denoiser for x_0 with these moments.

        Gaussian data have no better one. NaN for what the moments do not determine.
        """
        ...

    def generate(self, num_samples: int) -> Tensor:
        """Walk back from noise; return x_T, ..., x_0 in the data's units, (T + 1, num_samples, D)."""
        ...


def denoising_terms(model: HasDenoisingTerms, x: Tensor, num_samples: int) -> Tensor:
    """Return independent estimates of L_0, L_1, ..., L_T by data point, (T + 1, B), each from `num_samples` draws."""
    terms = []
    for step in range(1, model.num_steps + 1):
        noise = torch.randn(num_samples, 1, *x.shape, dtype=x.dtype, device=x.device)
        t = torch.full(noise.shape[:-1], step, device=x.device)
        terms.append(model.denoising(x, t, noise).term.mean(dim=(0, 1)))
    return torch.stack([*terms, model.end_term(x).squeeze(0)])
