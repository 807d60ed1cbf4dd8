"""Mean field: q(z) = Π_i q_i(z_i), a Normal for each real latent and a Gamma for each positive one.

Jordan et al. 1999; Blei, Kucukelbir, McAuliffe 2017, section 2.3.

The same densities stored in natural coordinates, q(z) = Π_i exp(η_iᵀ t(z_i) − A(η_i)), are `natural_mean_field`:

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
from collections.abc import Mapping, Sequence

import torch
from torch import Size, Tensor, nn

from vi_core.distributions import supports
from vi_core.distributions.exponential_family import fisher_information, gamma_log_normalizer, normal_log_normalizer
from vi_core.distributions.gamma import Gamma
from vi_core.distributions.normal import Normal
from vi_core.distributions.transforms import Exponential, Positive
from vi_core.families._packed import Entry, PackedFamily
from vi_core.families.base import Family, VariationalDistribution, all_shared
from vi_core.per_replicate import PerReplicate
from vi_core.types import Latent, Latents, Params, sum_last


class MeanFieldDistribution(VariationalDistribution):
    """Independent factors.

    Args:
        factors: The law of each latent, with parameters (*batch, *event).
        event_dims: Number of event axes of each latent.
    """

    kind = "independent factors"

    def __init__(self, factors: Mapping[str, Normal | Gamma], event_dims: dict[str, int]):
        self.factors, self.event_dims = factors, event_dims

    def shapes(self) -> dict[str, Size]:
        return {name: factor.mean.shape for name, factor in self.factors.items()}

    def rsample(self, num_samples: int) -> Latents:
        return {name: factor.rsample(num_samples) for name, factor in self.factors.items()}

    def log_prob_terms(self, z: Latents) -> dict[str, Tensor]:
        return {name: sum_last(q.log_prob(z[name]), self.event_dims[name]) for name, q in self.factors.items()}

    def entropy(self) -> Tensor:
        """Return H[z], (*batch), in closed form."""
        terms = [sum_last(factor.entropy(), self.event_dims[name]) for name, factor in self.factors.items()]
        return torch.stack(terms).sum(dim=0)

    def moments(self) -> dict[str, tuple[Tensor, Tensor]]:
        return {name: (factor.mean, factor.variance.sqrt()) for name, factor in self.factors.items()}

    def quantiles(self, levels: Sequence[float]) -> dict[str, tuple[Tensor, ...]]:
        return {name: tuple(map(factor.icdf, levels)) for name, factor in self.factors.items()}


def factor_entries(
    latents: dict[str, Latent], positive: Positive, spread: Positive, loc_std: PerReplicate, **initial: PerReplicate
) -> list[Entry]:
    """Return the parameters of a Normal for each real latent, and of a Gamma for each positive one.

    Args:
        latents: Real and positive latents.
        positive, spread: Transforms of concentrations and rates, and of scales.
        loc_std: Standard deviation of the initial `loc`.
        initial: Initial `loc`, `scale`, `concentration` and `rate`, each one number or one for each replicate.
    """
    found = []
    for name, latent in latents.items():
        if latent.support == supports.real:
            found.append(Entry(name, "loc", latent.shape, initial["loc"], None, loc_std))
            found.append(Entry(name, "scale", latent.shape, initial["scale"], spread))
        else:
            names = ("concentration", "rate")
            found += [Entry(name, field, latent.shape, initial[field], positive) for field in names]
    return found


class MeanField(PackedFamily):
    """q(mu) = N(loc, scale²) for real latents and q(tau) = Gamma(concentration, rate) for positive ones.

    Args:
        latents: The model's latents; all shared by the data points.
        replicates: R, independent copies.
        positive: Transform of scales, concentrations and rates.
        spread: Transform of scales; None for that of `positive`.
        loc, loc_std: Mean and standard deviation of the initial `loc`, drawn per replicate from the default stream.
        scale, concentration, rate: Initial values. All of these are one number, or one for each replicate.
    """

    name = "mean_field"

    def __init__(
        self,
        latents: dict[str, Latent],
        replicates: int = 1,
        /,
        *,
        positive: Positive,
        spread: Positive | None = None,
        loc: PerReplicate = 0.0,
        loc_std: PerReplicate = 1.0,
        scale: PerReplicate = 1.0,
        concentration: PerReplicate = 1.0,
        rate: PerReplicate = 1.0,
    ):
        self.check_latents(latents)
        initial = {"loc": loc, "scale": scale, "concentration": concentration, "rate": rate}
        super().__init__(factor_entries(latents, positive, spread or positive, loc_std, **initial), replicates)
        self.latents = latents

    def distribution(self, params: Params) -> MeanFieldDistribution:
        return independent(params, self.latents)

    def entropy(self, params: Params, z: Latents) -> Tensor:
        return self.distribution(params).entropy()

    def fisher(self) -> Tensor:
        """Block diagonal: one block of two for each scalar latent, in closed form."""
        with torch.no_grad():
            q = self.distribution(self.variational())
            blocks = [factor.fisher().flatten(1, -3) for factor in q.factors.values()]
        return self.pull_back(block_diagonal(blocks))


def independent(params: Params, latents: dict[str, Latent]) -> MeanFieldDistribution:
    """Return q with a Normal for each latent that has a `loc` among its parameters, and a Gamma for the others."""
    factors = {name: Normal(**p) if "loc" in p else Gamma(**p) for name, p in params.items()}
    return MeanFieldDistribution(factors, {name: len(latent.shape) for name, latent in latents.items()})


def block_diagonal(blocks: Sequence[Tensor]) -> Tensor:
    """Return the information (R, P, P) of independent factors, from one block (R, n, 2, 2) for each latent.

    A latent of n scalars has n first parameters, then n second ones.
    """
    size, start = 2 * sum(block.shape[1] for block in blocks), 0
    information = blocks[0].new_zeros(len(blocks[0]), size, size)
    for block in blocks:
        end = start + 2 * block.shape[1]
        diagonals = torch.diag_embed(block.movedim(1, -1)).transpose(2, 3)  # (R, 2, n, 2, n)
        information[:, start:end, start:end] = diagonals.reshape(-1, end - start, end - start)
        start = end
    return information


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

    def entropy(self, params: Params, z: Latents) -> Tensor:
        return self.distribution(params).entropy()

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
