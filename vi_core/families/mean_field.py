"""Mean field: q(z) = Π_i q_i(z_i), a Normal for each real latent and a Gamma for each positive one.

Jordan et al. 1999; Blei, Kucukelbir, McAuliffe 2017, section 2.3.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from vi_core.distributions import supports
from vi_core.distributions.base import sum_last
from vi_core.distributions.gamma import Gamma
from vi_core.distributions.normal import Normal
from vi_core.distributions.transforms import Positive
from vi_core.families._packed import Entry, PackedFamily
from vi_core.families.base import VariationalDistribution
from vi_core.per_replicate import PerReplicate
from vi_core.types import Latent, Latents, Params


class MeanFieldDistribution(VariationalDistribution):
    """Independent factors.

    Args:
        factors: The law of each latent, with parameters (*batch, *event).
        event_dims: Number of event axes of each latent.
    """

    def __init__(self, factors: Mapping[str, Normal | Gamma], event_dims: dict[str, int]):
        self.factors, self.event_dims = factors, event_dims

    def rsample(self, num_samples: int) -> Latents:
        return {name: factor.rsample(num_samples) for name, factor in self.factors.items()}

    def log_prob_terms(self, z: Latents) -> dict[str, Tensor]:
        return {name: sum_last(q.log_prob(z[name]), self.event_dims[name]) for name, q in self.factors.items()}

    def moments(self) -> dict[str, tuple[Tensor, Tensor]]:
        return {name: (factor.mean, factor.variance.sqrt()) for name, factor in self.factors.items()}


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
