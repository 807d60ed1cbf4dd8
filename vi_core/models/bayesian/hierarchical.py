"""Models with partial pooling: regression with an intercept for each group, and the eight schools.

An effect alpha ~ N(mu, tau²) can be a latent itself, or mu + tau·raw with raw ~ N(0, 1). The first has a funnel in tau
where the data say little about each effect; the second has one where they say much, since they then fix mu + tau·raw,
and the density rises along this ridge with tau without end (Papaspiliopoulos, Roberts, Sköld 2007). Where the data are
Normal given the effects, neither need be chosen. With n_g points in group g, and r_g the mean of y − x·beta over them,
alpha_g given all other latents and the data is N(m_g, s_g²), with

    w_g = n_g tau² / (n_g tau² + sigma²),     m_g = mu + w_g (r_g − mu),     s_g = tau √(1 − w_g).

The regression has the latent raw_g = (alpha_g − m_g) / s_g, whose prior N((mu − m_g)/s_g, tau²/s_g²) makes alpha_g
N(mu, tau²), and whose posterior is N(0, 1), independent of all else. What remains is the posterior of mu, tau, beta and
sigma with the effects integrated out, which has no funnel.

The eight schools (Rubin 1981): y_j ~ N(theta_j, sigma_j²) with known sigma_j, theta_j ~ N(mu, tau²). They come in the
two usual forms: `eight_schools` with theta = mu + tau·raw; `eight_schools_centered` shows what the funnel does.
"""

from abc import abstractmethod
from collections.abc import Iterable

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, HalfCauchy, HalfNormal, Normal

from vi_core.errors import DataError
from vi_core.models.bayesian.base import BayesianModel, Prior, Values
from vi_core.models.bayesian.laws import observations
from vi_core.models.bayesian.regression import predictors
from vi_core.per_replicate import require_positive


class HierarchicalRegression(BayesianModel):
    """y_n ~ N(alpha[group_n] + x_n·beta, sigma²) with alpha_g ~ N(mu, tau²); `alpha` is a quantity.

    The data have the columns `y`, `x`, (N, P) or (N,), and `group`, integers from 0. The latent `raw` holds the effects
    standardised by their law given all else.

    Args:
        intercept_scale: Prior deviation of mu.
        slope_scale: Prior deviation of each element of beta.
        group_scale: Scale of the half-Normal prior of tau, the deviation of groups.
        noise_scale: Scale of the half-Normal prior of sigma.
    """

    def __init__(
        self,
        *,
        intercept_scale: float = 10.0,
        slope_scale: float = 2.5,
        group_scale: float = 2.5,
        noise_scale: float = 2.5,
    ):
        super().__init__()
        scales = {"intercept": intercept_scale, "slope": slope_scale, "group": group_scale, "noise": noise_scale}
        require_positive("model", **{f"{name}_scale": scale for name, scale in scales.items()})
        self.scales = scales

    def statistics(self, data: Values) -> Values:
        if "group" not in data:
            raise DataError("data lack 'group', the level of each row; of a table, name it by dataset.group=<column>.")
        group, x, y = data["group"], predictors(data), observations(data["y"], data)
        if group.is_floating_point() or bool((group < 0).any()):
            raise DataError("data 'group' must be whole numbers from 0; number the groups 0, 1, 2 and so on.")
        rows = torch.cat([x.new_ones(len(x), 1), y.unsqueeze(-1), x], dim=1)
        sums = x.new_zeros(int(group.max()) + 1, rows.shape[1]).index_add(0, group, rows)
        means = sums / sums[:, :1].clamp_min(1)
        return {"group_size": sums[:, 0], "group_y": means[:, 1], "group_x": means[:, 2:]}

    def prior(self, data: Values) -> Iterable[tuple[str, Prior]]:
        yield "mu", Normal(0.0, self.scales["intercept"])
        yield "tau", HalfNormal(self.scales["group"])
        yield "beta", Normal(0.0, self.scales["slope"]).expand([predictors(data).shape[-1]])
        yield "sigma", HalfNormal(self.scales["noise"])
        yield "raw", lambda z: self.standardised(z, data)

    def standardised(self, z: Values, data: Values) -> Normal:
        """Return the prior of `raw`."""
        centre, scale = self.conditional(z, data)
        return Normal((z["mu"] - centre) / scale, z["tau"] / scale)

    def conditional(self, z: Values, data: Values) -> tuple[Tensor, Tensor]:
        """Return mean and deviation of the effects given all else, each (groups,)."""
        residual = data["group_y"] - data["group_x"] @ z["beta"]
        spread = z["sigma"].square() + data["group_size"] * z["tau"].square()
        weight = data["group_size"] * z["tau"].square() / spread
        return z["mu"] + weight * (residual - z["mu"]), z["tau"] * z["sigma"] * spread.rsqrt()

    def likelihood(self, z: Values, data: Values) -> Distribution:
        alpha = self.quantities(z, data)["alpha"]
        return Normal(alpha[data["group"]] + predictors(data) @ z["beta"], z["sigma"])

    def quantities(self, z: Values, data: Values) -> Values:
        centre, scale = self.conditional(z, data)
        return {"alpha": centre + scale * z["raw"]}


class _Schools(BayesianModel):
    """What both parametrisations of the eight schools share: the settings of the priors of mu and tau.

    Args:
        mu_scale: Prior deviation of mu.
        tau_scale: Scale of the half-Cauchy prior of tau.
    """

    own_dataset = "eight_schools"

    def __init__(self, *, mu_scale: float = 5.0, tau_scale: float = 5.0):
        super().__init__()
        require_positive("model", mu_scale=mu_scale, tau_scale=tau_scale)
        self.mu_scale, self.tau_scale = mu_scale, tau_scale

    def prior(self, data: Values) -> Iterable[tuple[str, Prior]]:
        yield "mu", Normal(0.0, self.mu_scale)
        yield "tau", HalfCauchy(self.tau_scale)
        yield self.effects(data["sigma"].shape)

    @abstractmethod
    def effects(self, shape: Size) -> tuple[str, Prior]:
        """Return name and law of the schools' latent, one element for each."""

    @property
    def has_points(self) -> bool:
        return False  # each point has an effect of its own among the latents


class EightSchools(_Schools):
    """The eight schools with theta = mu + tau·raw, non-centred; `theta` is a quantity."""

    def effects(self, shape: Size) -> tuple[str, Prior]:
        return "raw", Normal(0.0, 1.0).expand(shape)

    def likelihood(self, z: Values, data: Values) -> Distribution:
        return Normal(self.quantities(z, data)["theta"], data["sigma"])

    def quantities(self, z: Values, data: Values) -> Values:
        return {"theta": z["mu"] + z["tau"] * z["raw"]}


class EightSchoolsCentered(_Schools):
    """The eight schools with the effects theta as latents, whose density with tau is a funnel."""

    def effects(self, shape: Size) -> tuple[str, Prior]:
        return "theta", lambda z: Normal(z["mu"], z["tau"]).expand(shape)

    def likelihood(self, z: Values, data: Values) -> Distribution:
        return Normal(z["theta"], data["sigma"])
