"""Normal–Gamma densities q(tau) q(mu | tau), a structured family that contains the exact posterior of that model.

q(tau) = Gamma(concentration, rate) and q(mu | tau) = N(loc, 1/(precision_ratio · tau)).
"""

import math
from collections.abc import Sequence

import torch
from torch import Size, Tensor

from vi_core.distributions import supports
from vi_core.distributions.gamma import Gamma
from vi_core.distributions.normal import Normal
from vi_core.distributions.transforms import Positive
from vi_core.families._packed import Entry, PackedFamily
from vi_core.families.base import VariationalDistribution
from vi_core.per_replicate import PerReplicate
from vi_core.types import Graph, Latent, Latents, Params


class NormalGammaDistribution(VariationalDistribution):
    """q(tau) q(mu | tau), with parameters (*batch)."""

    kind = "Normal–Gamma"

    def __init__(self, params: Params):
        self.mu, self.tau = params["mu"], Gamma(**params["tau"])

    def shapes(self) -> dict[str, Size]:
        return dict.fromkeys(("mu", "tau"), self.tau.rate.shape)

    def _conditional(self, tau: Tensor) -> Normal:
        return Normal(self.mu["loc"], (self.mu["precision_ratio"] * tau).rsqrt())

    def rsample(self, num_samples: int) -> Latents:
        tau = self.tau.rsample(num_samples)
        q_mu = self._conditional(tau)
        return {"mu": torch.addcmul(q_mu.loc, q_mu.scale, torch.randn_like(tau)), "tau": tau}

    def log_prob_terms(self, z: Latents) -> dict[str, Tensor]:
        return {"mu": self._conditional(z["tau"]).log_prob(z["mu"]), "tau": self.tau.log_prob(z["tau"])}

    def moments(self) -> dict[str, tuple[Tensor, Tensor]]:
        """The marginal of mu is Student's t, with variance E[1/tau]/precision_ratio, infinite for concentration ≤ 1."""
        a, b = self.tau.concentration, self.tau.rate
        variance = torch.where(a > 1, b / ((a - 1) * self.mu["precision_ratio"]), math.inf)
        return {"mu": (self.mu["loc"], variance.sqrt()), "tau": (self.tau.mean, self.tau.variance.sqrt())}

    def quantiles(self, levels: Sequence[float]) -> dict[str, tuple[Tensor, ...]]:
        from scipy.special import stdtrit  # slow to import

        a, b = self.tau.concentration, self.tau.rate
        scale, degrees = (b / (a * self.mu["precision_ratio"])).sqrt(), (2 * a).detach().cpu().double().numpy()
        student = (torch.as_tensor(stdtrit(degrees, level)).to(scale) for level in levels)
        return {
            "mu": tuple(torch.addcmul(self.mu["loc"], scale, standard) for standard in student),
            "tau": tuple(map(self.tau.icdf, levels)),
        }


class NormalGammaFamily(PackedFamily):
    """Normal–Gamma densities on latents `mu` and `tau`.

    Args:
        latents: The model's latents: a real scalar `mu` and a positive scalar `tau`.
        replicates: R, independent copies.
        positive: Transform of precision_ratio, concentration and rate.
        loc, loc_std: Mean and standard deviation of the initial `loc`, drawn per replicate from the default stream.
        precision_ratio, concentration, rate: Initial values. All are one number, or one for each replicate.
    """

    name = "normal_gamma"
    described = "the latents mu and tau, a real and a positive number that all data points share"

    def __init__(
        self,
        latents: dict[str, Latent],
        replicates: int = 1,
        /,
        *,
        positive: Positive,
        loc: PerReplicate = 0.0,
        loc_std: PerReplicate = 1.0,
        precision_ratio: PerReplicate = 1.0,
        concentration: PerReplicate = 1.0,
        rate: PerReplicate = 1.0,
    ):
        self.check_latents(latents)
        entries = [
            Entry("mu", "loc", (), loc, None, loc_std),
            Entry("mu", "precision_ratio", (), precision_ratio, positive),
            Entry("tau", "concentration", (), concentration, positive),
            Entry("tau", "rate", (), rate, positive),
        ]
        super().__init__(entries, replicates)
        self.latents = latents

    @classmethod
    def describes(cls, latents: dict[str, Latent]) -> bool:
        return latents == {"mu": Latent(supports.real), "tau": Latent(supports.positive)}

    @property
    def parents(self) -> Graph:
        return {"mu": frozenset({"tau"}), "tau": frozenset()}

    def distribution(self, params: Params) -> VariationalDistribution:
        return NormalGammaDistribution(params)
