"""The constants of the earthquake model: given, or estimated by empirical Bayes.

Empirical Bayes maximises the ELBO in the constants θ as one more block of coordinate ascent, so the ELBO still never
falls. With N_k, the expected number of events of component k under q, and expectations under q,

    weights_k = N_k / N,                       precision = 2 N / Σ_nk r_nk E|x_n − mu_k|²,
    loc = mean_k E[mu_k],                      loc_precision = 2 K / Σ_k E|mu_k − loc|²,
    rate = a / mean_k E[λ_k],                  log a − ψ(a) = log mean_k E[λ_k] − mean_k E[log λ_k]

with a = concentration. The last equation is solved by Newton steps in 1/a (Minka 2002, "Estimating a Gamma
distribution"), which converge from the start that is used here for every right-hand side.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

NEWTON_STEPS = 12


class Constants(NamedTuple):
    """θ of each replicate; see the module."""

    weights: Tensor
    """(R, 1, K)"""
    precision: Tensor
    """(R, 1), tau."""
    loc: Tensor
    """(R, 1, 2), the prior mean of the epicentres."""
    loc_precision: Tensor
    """(R, 1), the prior precision of the epicentres."""
    concentration: Tensor
    """(R, 1), of the Gamma prior of the strengths."""
    rate: Tensor
    """(R, 1), of the same."""


class Moments(NamedTuple):
    """What the ELBO's terms in θ need of q."""

    counts: Tensor
    """N_k, (R, 1, K)."""
    squared_distance: Tensor
    """Σ_nk r_nk E|x_n − mu_k|², (R, 1)."""
    loc: Tensor
    """E[mu_k], (R, 1, K, 2)."""
    loc_variance: Tensor
    """Var[mu_k] by coordinate, (R, 1, K, 2)."""
    strength: Tensor
    """E[λ_k], (R, 1, K)."""
    log_strength: Tensor
    """E[log λ_k], (R, 1, K)."""


class Hyperparameters(ABC):
    """How the constants of a model follow from q."""

    estimated: bool
    """Whether they move at all."""

    @abstractmethod
    def update(self, constants: Constants, moments: Moments) -> Constants:
        """Return the constants for the next sweep."""


class Fixed(Hyperparameters):
    """The constants are those of the model's settings."""

    estimated = False

    def update(self, constants: Constants, moments: Moments) -> Constants:
        return constants


class EmpiricalBayes(Hyperparameters):
    """The constants maximise the ELBO given q; the model's settings are where they start."""

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
