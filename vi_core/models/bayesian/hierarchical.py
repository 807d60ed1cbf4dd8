"""Models with partial pooling: regression with an intercept for each group, and the eight schools.

Group effects are written as mu + tau·raw with raw ~ N(0, 1): in (mu, tau, raw) the posterior has no funnel where the
data say little about each group (Papaspiliopoulos, Roberts, Sköld 2007). `eight_schools_centered` has the effects
themselves as latents, and shows what the funnel does.

The eight schools (Rubin 1981): y_j ~ N(theta_j, sigma_j²) with known sigma_j, theta_j ~ N(mu, tau²).
"""

from abc import abstractmethod
from collections.abc import Iterable

from torch import Size
from torch.distributions import Distribution, HalfCauchy, HalfNormal, Normal

from vi_core.errors import DataError
from vi_core.models.bayesian.base import BayesianModel, Prior, Values
from vi_core.models.bayesian.regression import predictors
from vi_core.per_replicate import require_positive


class HierarchicalRegression(BayesianModel):
    """y_n ~ N(alpha[group_n] + x_n·beta, sigma²) with alpha_g = mu + tau·raw_g; `alpha` is reported.

    The data have the columns `y`, `x`, (N, P) or (N,), and `group`, integers from 0.

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

    def prior(self, data: Values) -> Iterable[tuple[str, Prior]]:
        group = data["group"]
        if group.is_floating_point() or bool((group < 0).any()):
            raise DataError("data 'group' must be whole numbers from 0; number the groups 0, 1, 2 and so on.")
        yield "mu", Normal(0.0, self.scales["intercept"])
        yield "tau", HalfNormal(self.scales["group"])
        yield "raw", Normal(0.0, 1.0).expand([int(group.max()) + 1])
        yield "beta", Normal(0.0, self.scales["slope"]).expand([predictors(data).shape[-1]])
        yield "sigma", HalfNormal(self.scales["noise"])

    def likelihood(self, z: Values, data: Values) -> Distribution:
        alpha = self.quantities(z, data)["alpha"]
        return Normal(alpha[data["group"]] + predictors(data) @ z["beta"], z["sigma"])

    def quantities(self, z: Values, data: Values) -> Values:
        return {"alpha": z["mu"] + z["tau"] * z["raw"]}


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
