"""Mean field stored in natural coordinates: q(z) = Π_i exp(η_iᵀ t(z_i) − A(η_i)), the densities of `mean_field`.

    Normal: t = (z, z²), η = (loc/scale², −1/(2 scale²));     Gamma: t = (z, log z), η = (−rate, concentration − 1).

In these coordinates the Fisher information F(η_i) = ∇²A(η_i) is also the Jacobian of the mean parameters m_i = ∇A(η_i).
For a conjugate model log p(x, z) is linear in t(z_i). With η_i* = ∂ E_q[log p(x, z)] / ∂m_i, a function of the other
factors alone, ∇_{η_i} ELBO = F(η_i) (η_i* − η_i). The natural gradient is then η_i* − η_i, and a step of size lr is

    η_i ← (1 − lr) η_i + lr η_i*,

at lr = 1 the coordinate update of each factor with the others at their old values. In other coordinates that holds to
first order only. The domain is convex and holds η_i*, so that exact steps with lr ≤ 1 never leave it; a noisy or longer
step may, and is cut. Hoffman, Blei, Wang, Paisley 2013, section 2; Amari 1998.
"""

import math

import torch
from torch import Tensor, nn

from vi_core.distributions import supports
from vi_core.distributions.exponential_family import fisher_information, gamma_log_normalizer, normal_log_normalizer
from vi_core.distributions.transforms import Exponential
from vi_core.families.base import Family, all_shared
from vi_core.families.mean_field import MeanFieldDistribution, block_diagonal, factor_entries, independent
from vi_core.per_replicate import PerReplicate
from vi_core.types import Latent, Params


class NaturalMeanField(Family):
    """A Normal for each real latent and a Gamma for each positive one, stored as natural parameters η.

    Args:
        latents: The model's latents; all shared by the data points.
        replicates: R, independent copies.
        loc, loc_std: Mean and standard deviation of the initial `loc`, drawn per replicate from the default stream.
        scale, concentration, rate: Initial values. All are one number, or one for each replicate.
    """

    name = "natural_mean_field"
    described = "real and positive latents that all data points share"

    def __init__(
        self,
        latents: dict[str, Latent],
        replicates: int = 1,
        /,
        *,
        loc: PerReplicate = 0.0,
        loc_std: PerReplicate = 1.0,
        scale: PerReplicate = 1.0,
        concentration: PerReplicate = 1.0,
        rate: PerReplicate = 1.0,
    ):
        super().__init__()
        self.check_latents(latents)
        self.latents, self.replicates = latents, replicates
        params: Params = {}
        initial = {"loc": loc, "scale": scale, "concentration": concentration, "rate": rate}
        for entry in factor_entries(latents, Exponential(), Exponential(), loc_std, **initial):
            entry.check()
            params.setdefault(entry.latent, {})[entry.name] = entry.draw(replicates)
        self.layout = {name: frozenset(group) for name, group in params.items()}
        self.natural = nn.Parameter(torch.empty(replicates, 1, 2 * sum(map(_size, latents.values()))))
        self.assign(params)

    @classmethod
    def describes(cls, latents: dict[str, Latent]) -> bool:
        return all_shared(latents, supports.real, supports.positive)

    def variational(self, x: object = None) -> Params:
        params: Params = {}
        for (name, latent), pair in zip(self.latents.items(), self._pairs(self.natural), strict=True):
            first, second = (value.reshape(self.replicates, 1, *latent.shape) for value in pair)
            if latent.support == supports.real:
                params[name] = {"loc": -0.5 * first / second, "scale": (-2 * second).rsqrt()}
            else:
                params[name] = {"concentration": second + 1, "rate": -first}
        return params

    def distribution(self, params: Params) -> MeanFieldDistribution:
        return independent(params, self.latents)

    def assign(self, params: Params) -> None:
        pieces = []
        for name, latent in self.latents.items():
            value = {field: tensor.reshape(self.replicates, 1, -1) for field, tensor in params[name].items()}
            if latent.support == supports.real:
                precision = value["scale"].square().reciprocal()
                pieces += [value["loc"] * precision, -0.5 * precision]
            else:
                pieces += [-value["rate"], value["concentration"] - 1]
        with torch.no_grad():
            self.natural.copy_(torch.cat(pieces, dim=-1))

    def stored_names(self) -> list[str]:
        indices = {n: [f"[{i}]" for i in range(_size(z))] if z.shape else [""] for n, z in self.latents.items()}
        return [f"{name}.eta{part}{i}" for name, found in indices.items() for part in (1, 2) for i in found]

    def fisher(self) -> Tensor:
        """Block diagonal: ∇²A by automatic differentiation, one block of two for each scalar latent."""
        blocks = []
        for latent, pair in zip(self.latents.values(), self._pairs(self.natural.detach()), strict=True):
            normalizer = normal_log_normalizer if latent.support == supports.real else gamma_log_normalizer
            blocks.append(fisher_information(normalizer, torch.stack(pair, dim=-1)).squeeze(1))
        return block_diagonal(blocks)

    def confine(self, step: Tensor) -> Tensor:
        """Cut the step of each replicate that would leave the domain to half the way to its boundary.

        The domain is η₂ < 0 for a Normal, and η₁ < 0, η₂ > −1 for a Gamma.
        """
        room = self._room(self.natural)
        change = self._room(self.natural + step) - room
        reach = torch.where(change < 0, room / -change, torch.inf).amin(dim=-1, keepdim=True)
        return step * torch.where(reach > 1, 1, 0.5 * reach)

    def _room(self, natural: Tensor) -> Tensor:
        """Return −η₂ of Normals, and −η₁ and η₂ + 1 of Gammas, (R, 1, ·): positive inside the domain, linear in η."""
        pieces = []
        for latent, (first, second) in zip(self.latents.values(), self._pairs(natural), strict=True):
            pieces += [-second] if latent.support == supports.real else [-first, second + 1]
        return torch.cat(pieces, dim=-1)

    def _pairs(self, natural: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Split (R, 1, P) into η₁ and η₂ of each latent, each (R, 1, n)."""
        sizes = [_size(latent) for latent in self.latents.values() for _ in range(2)]
        pieces = natural.split(sizes, dim=-1)
        return list(zip(pieces[::2], pieces[1::2], strict=True))


def _size(latent: Latent) -> int:
    return math.prod(latent.shape)
