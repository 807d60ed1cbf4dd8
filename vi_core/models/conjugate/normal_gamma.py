"""Normal data with a Normal–Gamma prior: the conjugate problem with every answer in closed form.

    x_n | mu, tau ~ N(mu, 1/tau),   mu | tau ~ N(mu_0, 1/(lambda_0 tau)),   tau ~ Gamma(a_0, rate b_0).

With n points of mean x̄ and S = Σ (x_n − x̄)², the posterior is Normal–Gamma with

    lambda_n = lambda_0 + n,                    mu_n = (lambda_0 mu_0 + n x̄) / lambda_n,
    a_n = a_0 + n/2,                            b_n = b_0 + S/2 + lambda_0 n (x̄ − mu_0)² / (2 lambda_n),

and log p(x) = log Γ(a_n) − log Γ(a_0) + a_0 log b_0 − a_n log b_n + ½ log(lambda_0/lambda_n) − (n/2) log 2π. For
large a_0 it is evaluated as [log Γ(a_n) − log Γ(a_0) − (n/2) log a_0] − a_0 log(b_n/b_0) + (n/2) log(a_0/b_n) + ...
The likelihood meets the data through (n, x̄, S) alone, so an iteration costs the same for 100 and for 10⁷ points.
Sources: Murphy 2007, "Conjugate Bayesian analysis of the Gaussian distribution"; Bishop 2006, section 10.1.3.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, distributions
from torch.distributions import Distribution, StudentT

from vi_core.distributions import supports
from vi_core.distributions.gamma import Gamma, kl_gamma, log_gamma_ratio
from vi_core.distributions.normal import HALF_LOG_2PI, Normal
from vi_core.errors import Unsupported
from vi_core.models.base import Factors, Model
from vi_core.per_replicate import PerReplicate, each, hold, require_each, require_positive
from vi_core.types import Latent, Latents, Params

TAU = frozenset({"concentration", "rate"})
MEAN_FIELD = {"mu": frozenset({"loc", "scale"}), "tau": TAU}
STRUCTURED = {"mu": frozenset({"loc", "precision_ratio"}), "tau": TAU}


class NormalStatistics(NamedTuple):
    """Sufficient statistics of univariate data, each a scalar tensor.

    Attributes:
        num_points: n.
        mean: x̄.
        sum_squares: S = Σ (x_n − x̄)², centred, so that nothing cancels.
    """

    num_points: Tensor
    mean: Tensor
    sum_squares: Tensor


class Expectations(NamedTuple):
    """Expectations under q in the closed-form ELBO, each (*batch).

    Attributes:
        loc: E[mu].
        tau, log_tau: E[tau] and E[log tau].
        spread: E[tau (mu − E mu)²].
        entropy_mu: Entropy of q(mu), or the mean over q(tau) of that of q(mu | tau).
    """

    loc: Tensor
    tau: Tensor
    log_tau: Tensor
    spread: Tensor
    entropy_mu: Tensor


class NormalGamma(Model):
    """Normal data, with latents `mu` (real) and `tau` (positive) shared by all data points.

    Each setting is one number, or one for each replicate: numbers or buffers (R, 1).

    Args:
        replicates: R.
        loc: mu_0, the prior mean of mu.
        precision_ratio: lambda_0, the prior precision of mu in units of tau.
        concentration: a_0 of tau's Gamma prior.
        rate: b_0 of tau's Gamma prior.

    Attributes:
        normalizer_mu: ½ log(lambda_0/2π).
        normalizer_tau: a_0 log b_0 − log Γ(a_0).
    """

    loc: float | Tensor
    precision_ratio: float | Tensor
    concentration: float | Tensor
    rate: float | Tensor
    normalizer_mu: float | Tensor
    normalizer_tau: float | Tensor

    layouts = (MEAN_FIELD, STRUCTURED)

    def __init__(
        self,
        replicates: int = 1,
        /,
        *,
        loc: PerReplicate = 1.0,
        precision_ratio: PerReplicate = 0.1,
        concentration: PerReplicate = 1.0,
        rate: PerReplicate = 2.0,
    ):
        super().__init__()
        self.latents = {"mu": Latent(supports.real), "tau": Latent(supports.positive)}
        require_each(math.isfinite, loc, f"model.loc={loc} must be finite.")
        settings = {"precision_ratio": precision_ratio, "concentration": concentration, "rate": rate}
        require_positive("model", **settings)
        for name, value in {"loc": loc, **settings}.items():
            hold(self, name, value, replicates, f"model.{name}")
        half_log_ratio = each(lambda ratio: 0.5 * math.log(ratio) - HALF_LOG_2PI, precision_ratio)
        hold(self, "normalizer_mu", half_log_ratio, replicates, "model.precision_ratio")
        gamma = each(lambda a, b: a * math.log(b) - math.lgamma(a), concentration, rate)
        hold(self, "normalizer_tau", gamma, replicates, "model.concentration")

    def check_data(self, x: Tensor) -> None:
        if x.dim() != 1:
            raise Unsupported("model=normal_gamma describes single numbers; use dataset=normal or dataset=csv.")

    def summarize(self, x: Tensor) -> NormalStatistics:
        """Reduce data (N,) to sufficient statistics, computed in float64."""
        wide = x.cpu().double() if x.device.type == "mps" else x.double()
        mean = wide.mean()
        statistics = (torch.tensor(float(len(x))), mean, (wide - mean).square().sum())
        return NormalStatistics(*(value.to(x.dtype).to(x.device) for value in statistics))

    def log_likelihood(self, z: Latents, x: NormalStatistics) -> Tensor:
        """Σ_n log N(x_n | mu, 1/tau) = (n/2)(log tau − log 2π) − (tau/2)(S + n (mu − x̄)²), (K, *batch)."""
        return self._log_likelihood(z["mu"], z["tau"], 0.5 * z["tau"].log(), x)

    @staticmethod
    def _log_likelihood(mu: Tensor, tau: Tensor, half_log_tau: Tensor, x: NormalStatistics) -> Tensor:
        squares = torch.addcmul(x.sum_squares, x.num_points, (mu - x.mean).square())
        return torch.addcmul(x.num_points * (half_log_tau - HALF_LOG_2PI), tau, squares, value=-0.5)

    def factors(self, z: Latents, x: NormalStatistics) -> Factors:
        """The likelihood, N(mu | mu_0, 1/(lambda_0 tau)) and Gamma(tau | a_0, b_0), each (K, *batch)."""
        mu, tau = z["mu"], z["tau"]
        half_log_tau = 0.5 * tau.log()
        precision, log_power = self.precision_ratio * tau, 2 * (self.concentration - 1) * half_log_tau
        prior_mu = torch.addcmul(half_log_tau + self.normalizer_mu, precision, (mu - self.loc).square(), value=-0.5)
        prior_tau = log_power + self.normalizer_tau - self.rate * tau
        both = frozenset({"mu", "tau"})
        return {
            "likelihood": (self._log_likelihood(mu, tau, half_log_tau, x), both),
            "prior_mu": (prior_mu, both),
            "prior_tau": (prior_tau, frozenset({"tau"})),
        }

    def log_density(self, points: Tensor, z: Latents) -> Tensor:
        shaped = points.reshape(-1, *(1,) * z["mu"].dim())
        return Normal(z["mu"], z["tau"].rsqrt()).log_prob(shaped)

    def gains(self, x: NormalStatistics) -> tuple[Tensor, Tensor]:
        """Return mu_n, and b_n − b_0 with the digits that b_n itself loses for a large b_0, in float64."""
        count, mean, sum_squares = (value.cpu().double() for value in x)
        share = count / (self.precision_ratio + count)
        shift = mean - self.loc
        return self.loc + share * shift, 0.5 * (sum_squares + self.precision_ratio * share * shift.square())

    def posterior(self, x: NormalStatistics) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return (mu_n, lambda_n, a_n, b_n) in float64: scalars, or (R, 1) where the prior differs."""
        count, (loc, gain) = x.num_points.cpu().double(), self.gains(x)
        return loc, self.precision_ratio + count, self.concentration + 0.5 * count, self.rate + gain

    @property
    def _one_prior(self) -> bool:
        """Whether all replicates have one prior, and so a common answer."""
        prior = (self.loc, self.precision_ratio, self.concentration, self.rate)
        return not any(isinstance(value, Tensor) for value in prior)

    def exact_marginals(self, x: NormalStatistics) -> dict[str, Distribution]:
        """Student's t with 2 a_n degrees of freedom for mu, and Gamma(a_n, b_n) for tau."""
        if not self._one_prior:
            return {}
        loc, ratio, a, b = (torch.as_tensor(value, dtype=torch.float64) for value in self.posterior(x))
        return {"mu": StudentT(2 * a, loc, (b / (ratio * a)).sqrt()), "tau": distributions.Gamma(a, b)}

    def exact(self, x: NormalStatistics) -> dict[str, float]:
        """Return the exact answers, or {} where the replicates have priors of their own and so no common answer."""
        if not self._one_prior:
            return {}
        loc, ratio, a, b = (float(value) for value in self.posterior(x))
        a_0, b_0, gain = float(self.concentration), float(self.rate), float(self.gains(x)[1])
        half = 0.5 * x.num_points.cpu().double()
        growth = float(log_gamma_ratio(torch.tensor(a_0, dtype=torch.float64), half)) - a_0 * math.log1p(gain / b_0)
        evidence = growth + float(half) * (math.log(a_0 / b) - 2 * HALF_LOG_2PI)
        evidence += 0.5 * math.log(float(self.precision_ratio) / ratio)
        variance_mu = b / (ratio * (a - 1)) if a > 1 else math.inf
        return {
            "mu": loc,
            "mu.std": math.sqrt(variance_mu),
            "tau": a / b,
            "tau.std": math.sqrt(a) / b,
            "log_evidence": evidence,
        }

    def expectations(self, params: Params) -> Expectations:
        """Return the moments of q, mean field (`mu.scale`) or structured (`mu.precision_ratio`)."""
        mu, tau = params["mu"], Gamma(**params["tau"])
        if "scale" in mu:
            q_mu = Normal(mu["loc"], mu["scale"])
            return Expectations(q_mu.loc, tau.mean, tau.mean_log, tau.mean * q_mu.variance, q_mu.entropy())
        entropy_mu = 0.5 + HALF_LOG_2PI - 0.5 * (mu["precision_ratio"].log() + tau.mean_log)
        return Expectations(mu["loc"], tau.mean, tau.mean_log, mu["precision_ratio"].reciprocal(), entropy_mu)

    def kl(self, params: Params) -> Tensor:
        """KL(q ‖ prior) = E_q(tau)[KL(q(mu | tau) ‖ p(mu | tau))] + KL(q(tau) ‖ p(tau)), (*batch)."""
        q = self.expectations(params)
        distance = q.tau * (q.loc - self.loc).square() + q.spread
        log_prior_mu = self.normalizer_mu + 0.5 * (q.log_tau - self.precision_ratio * distance)
        q_tau = Gamma(**params["tau"])
        prior_tau = Gamma(*(torch.as_tensor(v).to(q_tau.rate) for v in (self.concentration, self.rate)))
        return kl_gamma(q_tau, prior_tau) - log_prior_mu - q.entropy_mu

    def expected_bound(self, params: Params, x: NormalStatistics) -> Tensor:
        """ELBO = E_q[log p(x | mu, tau)] − KL(q ‖ prior), (*batch), differentiable."""
        q = self.expectations(params)
        squares = q.tau * (x.sum_squares + x.num_points * (q.loc - x.mean).square()) + x.num_points * q.spread
        return 0.5 * (x.num_points * (q.log_tau - 2 * HALF_LOG_2PI) - squares) - self.kl(params)

    def update(self, block: str, params: Params, x: NormalStatistics) -> dict[str, Tensor]:
        """Return the optimum of one factor with the other fixed, for mean field and structured q."""
        q = self.expectations(params)
        structured = "precision_ratio" in params["mu"]
        if block == "mu":
            ratio = self.precision_ratio + x.num_points
            loc = ((self.precision_ratio * self.loc + x.num_points * x.mean) / ratio).expand_as(q.loc)
            if structured:
                return {"loc": loc, "precision_ratio": ratio.expand_as(q.loc)}
            return {"loc": loc, "scale": (ratio * q.tau).rsqrt()}
        variance = 0 if structured else params["mu"]["scale"].square()
        squares = x.sum_squares + x.num_points * ((q.loc - x.mean).square() + variance)
        prior = self.precision_ratio * ((q.loc - self.loc).square() + variance)
        a = self.concentration + 0.5 * (x.num_points if structured else x.num_points + 1)
        return {"concentration": a.expand_as(q.loc), "rate": self.rate + 0.5 * (squares + prior)}
