"""The forward process of a diffusion model as q: q(x_1, ..., x_T | x_0) = Π_t N(x_t; √(1 − β_t) x_{t−1}, β_t I).

It has no parameters to learn: `Params` hold x_0, and the noise is the model's own. Sohl-Dickstein et al. 2015.
"""

from typing import Any

import torch
from torch import Tensor

from vi_core.distributions import supports
from vi_core.distributions.normal import Normal
from vi_core.errors import Unsupported
from vi_core.families.base import Family, VariationalDistribution, all_local
from vi_core.models.diffusion.process import Diffusion
from vi_core.types import Latent, Latents, Params


class ForwardProcessDistribution(VariationalDistribution):
    """The Markov chain from x_0, (1, B, D), as one latent (K, 1, B, T, D)."""

    def __init__(self, name: str, start: Tensor, process: Diffusion):
        self.name, self.start, self.process = name, start, process

    def rsample(self, num_samples: int) -> Latents:
        state, states = self.start, []
        for beta in self.process.beta:
            noise = torch.randn(num_samples, *self.start.shape, dtype=state.dtype, device=state.device)
            state = (1 - beta).sqrt() * state + beta.sqrt() * noise
            states.append(state)
        return {self.name: torch.stack(states, dim=-2)}

    def log_prob_terms(self, z: Latents) -> dict[str, Tensor]:
        path, beta = z[self.name], self.process.beta.unsqueeze(-1)
        first = self.start.expand(*path.shape[:-2], -1).unsqueeze(-2)
        before = torch.cat([first, path[..., :-1, :]], dim=-2)
        return {self.name: Normal((1 - beta).sqrt() * before, beta.sqrt()).log_prob(path).sum(dim=(-2, -1))}

    def moments(self) -> dict[str, tuple[Tensor, Tensor]]:
        t = torch.arange(1, self.process.num_steps + 1, device=self.start.device)
        marginal = self.process.marginal(self.start.unsqueeze(-2), t)
        return {self.name: (marginal.loc, marginal.scale.expand_as(marginal.loc))}


class ForwardProcess(Family):
    """q(x_1, ..., x_T | x_0) of a diffusion model.

    Args:
        latents: The model's latents: one, `path`, with shape (T, D).
        replicates: R.
        process: The forward process of a diffusion model; None, for other models, is refused.
    """

    name = "forward_process"
    described = "the path of a diffusion model, one real matrix for each data point"
    has_scores = False

    def __init__(self, latents: dict[str, Latent], replicates: int = 1, process: Diffusion | None = None, /):
        super().__init__()
        if process is None:
            raise Unsupported("family=forward_process adds a diffusion model's noise; use it with model=ddpm.")
        self.check_latents(latents)
        (self.latent,) = latents
        self.process, self.replicates = process, replicates
        self.layout = {self.latent: frozenset({"start"})}

    @classmethod
    def describes(cls, latents: dict[str, Latent]) -> bool:
        return len(latents) == 1 and all_local(latents, supports.real, 2)

    def variational(self, x: Any = None) -> Params:
        """Return x_0, (1, B, D), for data (B, D)."""
        return {self.latent: {"start": self.process.lift(x).unsqueeze(0)}}

    def distribution(self, params: Params) -> VariationalDistribution:
        return ForwardProcessDistribution(self.latent, params[self.latent]["start"], self.process)
