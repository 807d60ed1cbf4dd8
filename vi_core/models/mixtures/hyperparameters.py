"""The constants of the earthquake model: given, or estimated by empirical Bayes.

Empirical Bayes maximises the ELBO in the constants θ as one more block of coordinate ascent, so the ELBO still never
falls. With N_k, the expected number of events of component k under q, and expectations under q,

    weights_k = N_k / N,                       precision = 2 N / Σ_nk r_nk E|x_n − mu_k|²,
    loc = mean_k E[mu_k],                      loc_precision = 2 K / Σ_k E|mu_k − loc|²,
    rate = a / mean_k E[λ_k],                  log a − ψ(a) = log mean_k E[λ_k] − mean_k E[log λ_k]

with a = concentration. The last equation is solved by Newton steps in 1/a (Minka 2002, "Estimating a Gamma
distribution"), which converge from the start used here for every right-hand side.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

NEWTON_STEPS = 12  # two reach rounding from the start below, for differences of logarithms from 1e-10 to 100


class Constants(NamedTuple):
    """Constants θ of each replicate.

    Attributes:
        weights: Probabilities of the components, (R, 1, K).
        precision: Of a place around its epicentre in each coordinate, (R, 1).
        loc: Prior mean of the epicentres, (R, 1, 2).
        loc_precision: Prior precision of the epicentres, (R, 1).
        concentration, rate: Of the Gamma prior of the strengths, each (R, 1).
    """

    weights: Tensor
    precision: Tensor
    loc: Tensor
    loc_precision: Tensor
    concentration: Tensor
    rate: Tensor


class Moments(NamedTuple):
    """Moments of q in the ELBO's terms in θ.

    Attributes:
        counts: N_k, (R, 1, K).
        squared_distance: Σ_nk r_nk E|x_n − mu_k|², (R, 1).
        loc: E[mu_k], (R, 1, K, 2).
        loc_variance: Var[mu_k] by coordinate, (R, 1, K, 2).
        strength, log_strength: E[λ_k] and E[log λ_k], each (R, 1, K).
    """

    counts: Tensor
    squared_distance: Tensor
    loc: Tensor
    loc_variance: Tensor
    strength: Tensor
    log_strength: Tensor


class Hyperparameters(ABC):
    """A rule for the constants of a model given q.

    Attributes:
        estimated: Whether the rule changes them.
    """

    estimated: bool

    @abstractmethod
    def update(self, constants: Constants, moments: Moments) -> Constants:
        """Return the constants for the next sweep."""


class Fixed(Hyperparameters):
    """Constants stay those of the model's settings."""

    estimated = False

    def update(self, constants: Constants, moments: Moments) -> Constants:
        return constants


class EmpiricalBayes(Hyperparameters):
    """Constants maximise the ELBO given q, starting from the model's settings."""

    estimated = True

    def update(self, constants: Constants, moments: Moments) -> Constants:
        points = moments.counts.sum(dim=-1)
        smallest = torch.finfo(points.dtype).tiny  # an empty component has log weight −708, not −∞
        loc = moments.loc.mean(dim=-2)
        spread = (moments.loc - loc.unsqueeze(-2)).square() + moments.loc_variance
        concentration, rate = fit_gamma(moments.strength, moments.log_strength)
        return Constants(
            weights=(moments.counts / points.unsqueeze(-1)).clamp_min(smallest),
            precision=2 * points / moments.squared_distance,
            loc=loc,
            loc_precision=2 * spread.shape[-2] / spread.sum(dim=(-2, -1)),
            concentration=concentration,
            rate=rate,
        )


def fit_gamma(mean: Tensor, mean_log: Tensor) -> tuple[Tensor, Tensor]:
    """Return the concentration and rate, (...,), that maximise Σ_k E[log Gamma(λ_k)], from E[λ_k] and E[log λ_k]."""
    average = mean.mean(dim=-1)
    gap = average.log() - mean_log.mean(dim=-1)
    a = (3 - gap + ((gap - 3).square() + 24 * gap).sqrt()) / (12 * gap)
    for _ in range(NEWTON_STEPS):
        slope = a.reciprocal() - torch.polygamma(1, a)
        a = (a.reciprocal() + (a.log() - torch.digamma(a) - gap) / (a.square() * slope)).reciprocal()
    return a, a / average
