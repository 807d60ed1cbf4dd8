"""A mixture model of earthquakes from K super-epicentres, over their places and strengths.

Event n has a place x_n in the plane, a strength s_n in 0, 1, 2, ... and an unknown origin k_n:

    k_n ~ Categorical(weights),   x_n | k ~ N(mu_k, I / precision),   s_n | k ~ Poisson(λ_k),
    mu_k ~ N(loc, I / loc_precision),   λ_k ~ Gamma(concentration, rate).

The latents are `epicentre` (mu) and `strength` (λ). `factors` sums the assignments out, so every estimator runs on the
model. Coordinate ascent keeps them: for q(k_1..N) q(mu) q(λ) the best q(k_n = k) = r_nk is the softmax over k of

    log weights_k + 2 · ½ log(precision/2π) − (precision/2) E|x_n − mu_k|² + s_n E[log λ_k] − E[λ_k] − log s_n!,

whose normaliser sums to the ELBO with q(k) at its optimum, L = Σ_n log Σ_k exp(...) − KL(mu) − KL(λ). Given r,

    q(mu_k) = N((loc_precision loc + precision Σ_n r_nk x_n)/P_k, I/P_k),   P_k = loc_precision + precision Σ_n r_nk,
    q(λ_k) = Gamma(concentration + Σ_n r_nk s_n, rate + Σ_n r_nk).

A sweep is one pass of `vi_core.models.mixtures.one_pass`. Places are centred on their mean. Bishop 2006, section 10.2.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vi_core.distributions import supports
from vi_core.distributions.gamma import Gamma, kl_gamma
from vi_core.distributions.normal import HALF_LOG_2PI, Normal, kl_normal
from vi_core.errors import Unsupported, require
from vi_core.models.base import Completed, Factors, Model, Network
from vi_core.models.mixtures.hyperparameters import Constants, Hyperparameters, Moments
from vi_core.models.mixtures.one_pass import Components, expected_sums, log_normalizer, pieces, responsibilities
from vi_core.per_replicate import require_positive
from vi_core.types import Latent, Latents, Params

MEAN_FIELD = {"epicentre": frozenset({"loc", "scale"}), "strength": frozenset({"concentration", "rate"})}
SEEN_BY_START = 10_000  # events among which the initial epicentres are drawn; bounds the cost of k-means++


class Events(NamedTuple):
    """A catalogue of N events.

    Attributes:
        places: Less `centre`, (N, 2).
        strengths: Counts, (N,).
        centre: The mean place, (2,).
        log_factorials: Σ_n log s_n!, a scalar.
    """

    places: Tensor
    strengths: Tensor
    centre: Tensor
    log_factorials: Tensor


class Completion(NamedTuple):
    """Expected sufficient statistics under q(k_1..N), places measured from `centre`.

    Attributes:
        counts: Σ_n r_nk, (R, 1, K).
        places: Σ_n r_nk x_n, (R, 1, K, 2).
        strengths: Σ_n r_nk s_n, (R, 1, K).
        distances: Σ_n r_nk |x_n − loc_k|², (R, 1, K).
        loc: The centres that `distances` are measured from, (R, 1, K, 2).
        centre: (2,).
    """

    counts: Tensor
    places: Tensor
    strengths: Tensor
    distances: Tensor
    loc: Tensor
    centre: Tensor


class Earthquakes(Model):
    """The mixture, with latents `epicentre` (K, 2) and `strength` (K,) shared by all events.

    Args:
        replicates: R; the constants may differ between them once they are estimated.
        components: K, the number of super-epicentres.
        weights: Their probabilities, or None for equal ones.
        precision: Of a place around its epicentre, in each coordinate.
        loc, loc_precision: Prior of the epicentres.
        concentration, rate: Prior of the strengths.
        hyperparameters: Whether these constants are fixed, or estimated by empirical Bayes.
    """

    layouts = (MEAN_FIELD,)

    def __init__(
        self,
        replicates: int = 1,
        /,
        *,
        components: int = 4,
        weights: Sequence[float] | None = None,
        precision: float = 1.0,
        loc: Sequence[float] = (0.0, 0.0),
        loc_precision: float = 0.01,
        concentration: float = 1.0,
        rate: float = 0.05,
        hyperparameters: Hyperparameters,
    ):
        super().__init__()
        self.hyperparameters = hyperparameters
        least = 2 if self.hyperparameters.estimated else 1  # the prior of a single component would shrink to a point
        require(components >= least, f"model.components={components} must be at least {least}.")
        weights = [1 / components] * components if weights is None else weights
        valid = len(weights) == components and min(weights) > 0 and abs(sum(weights) - 1) < 1e-6
        require(valid, f"model.weights={list(weights)} must be {components} positive numbers with sum 1, or null.")
        require(len(loc) == 2 and all(map(math.isfinite, loc)), f"model.loc={list(loc)} must be two finite numbers.")
        require_positive("model", precision=precision, loc_precision=loc_precision)
        require_positive("model", concentration=concentration, rate=rate)
        self.components = components
        epicentre, strength = Latent(supports.real, (components, 2)), Latent(supports.positive, (components,))
        self.latents = {"epicentre": epicentre, "strength": strength}
        start = Constants(*map(torch.tensor, (weights, precision, loc, loc_precision, concentration, rate)))
        for name, value in start._asdict().items():
            value = value.to(torch.get_default_dtype()).expand(replicates, 1, *value.shape)
            self.register_buffer(f"constants_{name}", value.clone())

    @property
    def constants(self) -> Constants:
        """The present constants of each replicate."""
        return Constants(*(self.get_buffer(f"constants_{name}") for name in Constants._fields))

    def check_data(self, x: Tensor) -> None:
        wrong = x.dim() != 2 or x.shape[1] != 3 or bool((x[:, 2] < 0).any()) or bool((x[:, 2] != x[:, 2].round()).any())
        if wrong:
            events = "events with two coordinates and a count 0, 1, 2, ..."
            raise Unsupported(f"model=earthquakes describes {events}; use dataset=earthquakes or dataset=catalogue.")

    def summarize(self, x: Tensor) -> Events:
        """Centre the places of events (N, 3)."""
        centre = x[:, :2].mean(dim=0)
        return Events(x[:, :2] - centre, x[:, 2].contiguous(), centre, (x[:, 2] + 1).lgamma().sum())

    def _components(
        self, place: Tensor, variance: Tensor | float, strength: Tensor, log_strength: Tensor, events: Events
    ) -> Components:
        """Return the components (M, K, ...) from moments of the latents, (*batch, K, ...) with M elements of batch."""
        constants, offset = self.constants, place - events.centre
        tau = constants.precision.unsqueeze(-1)
        scatter = torch.zeros_like(offset) + variance
        constant = constants.weights.log() + (tau.log() - 2 * HALF_LOG_2PI) - 0.5 * tau * scatter.sum(dim=-1) - strength
        precision = constants.precision.expand(constant.shape[:-1]).flatten()
        log_strengths = log_strength.expand_as(constant).flatten(0, -2)
        return Components(constant.flatten(0, -2), offset.flatten(0, -3), precision, log_strengths)

    def factors(self, z: Latents, x: Events) -> Factors:
        """The likelihood with the assignments summed out, and both priors, each (K, *batch)."""
        place, strength = z["epicentre"], z["strength"]
        components = self._components(place, 0.0, strength, strength.log(), x)
        likelihood = log_normalizer(components, x.places, x.strengths).reshape(place.shape[:-2]) - x.log_factorials
        prior_place = self._prior_place().log_prob(place).sum(dim=(-2, -1))
        prior_strength = self._prior_strength().log_prob(strength).sum(dim=-1)
        return {
            "likelihood": (likelihood, frozenset({"epicentre", "strength"})),
            "prior_epicentre": (prior_place, frozenset({"epicentre"})),
            "prior_strength": (prior_strength, frozenset({"strength"})),
        }

    def network(self, points: int) -> Network:
        """Places and strengths of the events, with the origins that `factors` sums out."""
        parents = {"mu_k": (), "lambda_k": (), "k_n": (), "x_n": ("k_n", "mu_k"), "s_n": ("k_n", "lambda_k")}
        components = {f"K = {self.latents['strength'].shape[0]}": frozenset({"mu_k", "lambda_k"})}
        events = {f"N = {points}": frozenset({"k_n", "x_n", "s_n"})}
        return Network(parents, frozenset({"x_n", "s_n"}), components | events)

    def _prior_place(self) -> Normal:
        """p(mu), broadcasting over (R, 1, K, 2)."""
        constants = self.constants
        return Normal(constants.loc.unsqueeze(-2), constants.loc_precision.rsqrt()[..., None, None])

    def _prior_strength(self) -> Gamma:
        """p(λ), broadcasting over (R, 1, K)."""
        constants = self.constants
        return Gamma(constants.concentration.unsqueeze(-1), constants.rate.unsqueeze(-1))

    def _expected_components(self, params: Params, events: Events) -> Components:
        """The components under q, (R, K, ...)."""
        place, strength = params["epicentre"], Gamma(**params["strength"])
        return self._components(place["loc"], place["scale"].square(), strength.mean, strength.mean_log, events)

    def kl(self, params: Params) -> Tensor:
        """KL(q(mu) q(λ) ‖ prior), (R, 1)."""
        place = kl_normal(Normal(**params["epicentre"]), self._prior_place()).sum(dim=(-2, -1))
        return place + kl_gamma(Gamma(**params["strength"]), self._prior_strength()).sum(dim=-1)

    def expected_bound(self, params: Params, x: Events) -> Tensor:
        """The ELBO of q(k) q(mu) q(λ) with q(k) at its optimum, (R, 1), differentiable."""
        normalizer = log_normalizer(self._expected_components(params, x), x.places, x.strengths)
        return normalizer.unsqueeze(-1) - x.log_factorials - self.kl(params)

    def complete(self, params: Params, x: Events) -> Completed:
        components = self._expected_components(params, x)
        sums, kl = expected_sums(components, x.places, x.strengths), self.kl(params)
        bound = sums.log_normalizer.unsqueeze(-1) - x.log_factorials - kl
        magnitude = sums.magnitude.unsqueeze(-1) + x.log_factorials + kl.abs()
        counts, places, strengths, distances = (value.unsqueeze(1) for value in sums[2:])
        loc = components.place.unsqueeze(1)
        return Completed(bound, Completion(counts, places, strengths, distances, loc, x.centre), magnitude)

    def update(self, block: str, params: Params, x: Completion) -> dict[str, Tensor]:
        constants = self.constants
        if block == "strength":
            prior = self._prior_strength()
            return {"concentration": prior.concentration + x.strengths, "rate": prior.rate + x.counts}
        tau, rho = constants.precision.unsqueeze(-1), constants.loc_precision.unsqueeze(-1)
        precision = (rho + tau * x.counts).unsqueeze(-1)
        drawn = rho.unsqueeze(-1) * (constants.loc - x.centre).unsqueeze(-2) + tau.unsqueeze(-1) * x.places
        return {"loc": x.centre + drawn / precision, "scale": precision.rsqrt().expand_as(drawn)}

    @property
    def estimates_constants(self) -> bool:
        return self.hyperparameters.estimated

    def estimate_constants(self, params: Params, x: Completion, alive: Tensor) -> None:
        place, strength = params["epicentre"], Gamma(**params["strength"])
        offset, variance = place["loc"] - x.centre, place["scale"].square()
        moved = x.loc - offset
        cross = 2 * (moved * (x.places - x.counts.unsqueeze(-1) * x.loc)).sum(dim=-1)
        distance = (x.distances + cross + x.counts * (moved.square() + variance).sum(dim=-1)).sum(dim=-1)
        moments = Moments(x.counts, distance, place["loc"], variance, strength.mean, strength.mean_log)
        new = self.hyperparameters.update(self.constants, moments)
        for name, value in new._asdict().items():
            buffer = self.get_buffer(f"constants_{name}")
            mask = alive.reshape(-1, *(1,) * (buffer.dim() - 1))
            buffer.copy_(torch.where(mask, value, buffer))

    def start(self, params: Params, x: Events) -> Params:
        """Return q around K events drawn as in k-means++, one set for each replicate; Arthur, Vassilvitskii 2007.

        The next event is drawn with probability proportional to its squared distance from the nearest one before, in
        units of the model's noise: precision |Δx|² + 4 (Δ√s)². Each component starts as if an equal share of all events
        lay where its event does.
        """
        points, constants = len(x.strengths), self.constants
        drawn = torch.randperm(points, device=x.centre.device)[:SEEN_BY_START]
        seen = torch.cat([x.places[drawn], x.strengths[drawn].unsqueeze(-1)], dim=-1)
        scale = torch.cat([constants.precision.expand(-1, 2), torch.full_like(constants.precision, 4.0)], dim=-1).sqrt()
        whitened = torch.cat([seen[:, :2], seen[:, 2:].sqrt()], dim=1) * scale.unsqueeze(1)
        picked = seen[spread_out(whitened, self.components)]
        share = x.places.new_full((*picked.shape[:2], 1), points / self.components).unsqueeze(1)
        sums, picked = share * picked.unsqueeze(1), picked.unsqueeze(1)
        none = torch.zeros_like(sums[..., 0])
        like = Completion(share[..., 0], sums[..., :2], sums[..., 2], none, picked[..., :2], x.centre)
        return {block: self.update(block, params, like) for block in self.latents}

    def responsibilities(self, params: Params, points: Tensor, x: Events) -> Tensor:
        """Return r_nk of events `points` (B, 3) under q, (R, B, K)."""
        components = self._expected_components(params, x)
        return responsibilities(components, points[:, :2] - x.centre, points[:, 2]).transpose(1, 2)

    def place_scale(self) -> Tensor:
        return self.constants.precision.rsqrt().squeeze(1)

    def count_probabilities(self, params: Params, counts: Tensor) -> Tensor:
        """Return p(s) of a new event at `counts` (G,), (R, G): Σ_k weights_k NegativeBinomial(s; a_k, b_k).

        log NB = log Γ(a + s) − log Γ(a) − log s! + a log(b/(b + 1)) − s log(b + 1).
        """
        a, b = (params["strength"][name].squeeze(1).unsqueeze(-1) for name in ("concentration", "rate"))
        normalizer = (a + counts).lgamma() - a.lgamma() - (counts + 1).lgamma()
        log_mass = normalizer - a * b.reciprocal().log1p() - counts * b.log1p()
        return (self.constants.weights.squeeze(1).unsqueeze(-1) * log_mass.exp()).sum(dim=1)

    def misfit(self, params: Params, x: Events) -> dict[str, Tensor]:
        """Return posterior predictive checks of the strengths' Poisson law, each (R,); see docs/earthquakes.md.

        `count_dispersion` is Σ_nk r_nk (s_n − E λ_k)² / E λ_k / N, about 1 for Poisson strengths.
        """
        observed, constants = x.strengths, self.constants
        strength = Gamma(**params["strength"]).mean.squeeze(1)
        components, total = self._expected_components(params, x), strength.new_zeros(len(strength))
        for places, counts in pieces(components, x.places, counts=observed):
            deviation = (counts - strength.unsqueeze(-1)).square() / strength.unsqueeze(-1)
            total += (responsibilities(components, places, counts) * deviation).sum(dim=(1, 2))
        weights, law = constants.weights.squeeze(1), Gamma(**params["strength"])
        mean = (weights * strength).sum(dim=-1)
        second = (weights * (law.variance.squeeze(1) + strength.square() + strength)).sum(dim=-1)
        return {
            "count_mean": observed.mean().expand_as(mean),
            "count_variance": observed.var().expand_as(mean),
            "predictive_mean": mean,
            "predictive_variance": second - mean.square(),
            "count_dispersion": total / len(observed),
        }


def spread_out(points: Tensor, count: int) -> Tensor:
    """Return indices (R, count) of `points` (R, N, D), the first drawn evenly, each next by squared distance."""
    replicates, number, _ = points.shape
    rows = torch.arange(replicates, device=points.device)
    chosen = [torch.randint(number, (replicates,), device=points.device)]
    nearest = points.new_full((replicates, number), torch.inf)
    for _ in range(count - 1):
        distance = (points - points[rows, chosen[-1]].unsqueeze(1)).square().sum(dim=-1)
        nearest = torch.minimum(nearest, distance)
        least = torch.finfo(nearest.dtype).tiny  # all points may coincide
        chosen.append(torch.multinomial(nearest + least, 1).squeeze(1))
    return torch.stack(chosen, dim=1)
