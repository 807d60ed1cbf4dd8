"""The Normal–Gamma problem on which claims are checked, with quadrature and densities that do not use the library.

The data are those of report 001. The mean-field q is far enough from the posterior that no term vanishes. Expectations
under q are sums over a Gauss–Hermite rule in mu and a generalised Gauss–Laguerre rule in tau, exact for polynomials of
degree 47 in each. Densities are scipy's, datum by datum, where the library works from sufficient statistics.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy import ndarray
from scipy import special, stats
from torch import Tensor

from vi_core.datasets.synthetic import NormalDraws
from vi_core.distributions.transforms import Exponential
from vi_core.families.mean_field import MeanField, MeanFieldDistribution
from vi_core.models.conjugate.normal_gamma import NormalGamma, NormalStatistics
from vi_core.studies.base import Quantity
from vi_core.types import Params

NODES = 24  # of each quadrature rule
LOC, SCALE, CONCENTRATION, RATE = 0.95, 0.16, 40.0, 80.0  # q(mu) is Normal, q(tau) is Gamma
NAMES = ("loc", "scale", "concentration", "rate")
MU_0, LAMBDA_0, A_0, B_0 = 1.0, 0.1, 1.0, 2.0  # the prior of report 001


@dataclass(frozen=True)
class Problem:
    """The model, its data and q.

    Attributes:
        num_samples: Draws of each Monte Carlo claim.
        model: Normal–Gamma with its prior.
        points: The data, (100,), in float64.
    """

    num_samples: int
    model: NormalGamma = field(
        default_factory=lambda: NormalGamma(loc=MU_0, precision_ratio=LAMBDA_0, concentration=A_0, rate=B_0)
    )
    points: Tensor = field(default_factory=lambda: NormalDraws().load().train.double())

    @property
    def x(self) -> NormalStatistics:
        """Sufficient statistics of the data."""
        return self.model.summarize(self.points)

    @property
    def evidence(self) -> float:
        """log p(x), by the model."""
        return self.model.exact(self.x)["log_evidence"]

    def family(self, replicates: int) -> MeanField:
        """Return the mean-field family at q, with the logarithms of positive parameters stored."""
        family = MeanField(self.model.latents, replicates, positive=Exponential()).double()
        family.assign(parameters(replicates))
        return family

    def joint(self, replicates: int = 1) -> MeanFieldDistribution:
        """Return the distribution q(mu, tau)."""
        return self.family(replicates).distribution(parameters(replicates))

    def log_joint(self, mu: ndarray, tau: ndarray) -> ndarray:
        """Return log p(x, mu, tau) by scipy, (M,)."""
        return self.log_likelihood(mu, tau) + log_prior(mu, tau)

    def log_likelihood(self, mu: ndarray, tau: ndarray) -> ndarray:
        """Return Σ_n log N(x_n | mu, 1/tau) by scipy, (M,)."""
        return stats.norm.logpdf(self.points.numpy()[:, None], mu, tau**-0.5).sum(axis=0)


class Rule:
    """Quadrature rule for expectations under a mean-field q.

    With mu = loc + scale·u and tau = v/rate, E_q[f] is an integral over the weights e^(−u²/2) and v^(a−1) e^(−v), for
    which the Gauss rules are exact on polynomials. The weights are divided by their sums, and so are probabilities.

    Args:
        values: (loc, scale, concentration, rate) of q.

    Attributes:
        mu, tau: Coordinates of the M nodes, each (M,).
        weight: Their weights, (M,), with sum 1.
    """

    def __init__(self, values: tuple[float, ...] = (LOC, SCALE, CONCENTRATION, RATE)):
        self.values = loc, scale, concentration, rate = values
        normal, weights = np.polynomial.hermite_e.hermegauss(NODES)
        standard, others = special.roots_genlaguerre(NODES, concentration - 1)
        self.mu, self.tau = (x.ravel() for x in np.meshgrid(loc + scale * normal, standard / rate, indexing="ij"))
        self.weight = np.outer(weights / weights.sum(), others / others.sum()).ravel()

    def mean(self, value: ndarray) -> float:
        """Return E_q[value] from values at the nodes, (M,)."""
        return float(self.weight @ value)

    def log_q(self) -> ndarray:
        """Return log q at the nodes by scipy, (M,)."""
        loc, scale, a, b = self.values
        return stats.norm.logpdf(self.mu, loc, scale) + stats.gamma.logpdf(self.tau, a, scale=1 / b)

    def scores(self) -> dict[str, ndarray]:
        """Return ∂ log q at the nodes in closed form, by parameter, each (M,): report 000, equation 14, put right."""
        loc, scale, a, b = self.values
        distance = self.mu - loc
        return {
            "loc": distance / scale**2,
            "scale": distance**2 / scale**3 - 1 / scale,
            "concentration": math.log(b) - special.digamma(a) + np.log(self.tau),
            "rate": a / b - self.tau,
        }

    def log_weights(self, problem: Problem) -> ndarray:
        """Return log w = log p(x, mu, tau) − log q at the nodes by scipy, (M,)."""
        return problem.log_joint(self.mu, self.tau) - self.log_q()

    def gradient(self, problem: Problem) -> dict[str, float]:
        """Return ∇ ELBO = E_q[log w ∇ log q] in the parameters of q, by name."""
        log_w = self.log_weights(problem)
        return {name: self.mean(log_w * score) for name, score in self.scores().items()}


def parameters(replicates: int = 1) -> Params:
    """Return the parameters of q, each (R, 1), in float64."""
    values = (LOC, SCALE, CONCENTRATION, RATE)
    loc, scale, a, b = (torch.full((replicates, 1), value, dtype=torch.float64) for value in values)
    return {"mu": {"loc": loc, "scale": scale}, "tau": {"concentration": a, "rate": b}}


def normal_gamma(loc: Tensor, ratio: Tensor, concentration: Tensor, rate: Tensor) -> Params:
    """Return parameters of the structured q(tau) q(mu | tau), the family of the exact posterior."""
    return {"mu": {"loc": loc, "precision_ratio": ratio}, "tau": {"concentration": concentration, "rate": rate}}


def log_prior(mu: ndarray, tau: ndarray) -> ndarray:
    """Return log p(mu, tau) by scipy, (M,)."""
    return stats.norm.logpdf(mu, MU_0, (LAMBDA_0 * tau) ** -0.5) + stats.gamma.logpdf(tau, A_0, scale=1 / B_0)


def nodes(rule: Rule) -> dict[str, Tensor]:
    """Return the nodes as draws of the latents, each (M, 1, 1)."""
    return {"mu": torch.from_numpy(rule.mu)[:, None, None], "tau": torch.from_numpy(rule.tau)[:, None, None]}


def largest(difference: Tensor | ndarray) -> Quantity:
    """Return the largest absolute difference between two routes, which should be zero."""
    return Quantity(float(abs(difference).max()), None, 0.0)
