"""A small problem, ways to set one up, and broken parts: negative controls that the tests must catch."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vi_core.bounds.base import Bound
from vi_core.bounds.elbo import ELBO, IWELBO
from vi_core.distributions import supports
from vi_core.distributions.transforms import Exponential, Positive
from vi_core.estimators.base import Estimate, Estimator
from vi_core.estimators.closed_form_kl import ClosedFormKL
from vi_core.estimators.pathwise import Pathwise
from vi_core.estimators.score_function.estimator import ScoreFunction, inner_product, per_sample_scores
from vi_core.families.base import Family
from vi_core.families.mean_field import MeanField
from vi_core.families.normal_gamma import NormalGammaFamily
from vi_core.models.base import Factors, Model
from vi_core.models.conjugate.normal_gamma import NormalGamma, NormalStatistics
from vi_core.optimizers.base import Optimizer
from vi_core.training.stopping import StoppingRule
from vi_core.types import Latent, Latents, Params, detached

NORMAL_GAMMA_LATENTS = {"mu": Latent(supports.real), "tau": Latent(supports.positive)}


def normal_gamma_params(values: dict[str, float], replicates: int) -> Params:
    """The same parameters of a Normal–Gamma q for every replicate, each (R, 1), in float64."""

    def group(*names: str) -> dict[str, Tensor]:
        return {n: torch.full((replicates, 1), values[n], dtype=torch.float64) for n in names if n in values}

    return {"mu": group("loc", "scale", "precision_ratio"), "tau": group("concentration", "rate")}


def normal_gamma_family(values: dict[str, float], replicates: int, positive: Positive | None = None) -> Family:
    """A mean field (with `scale`) or structured (with `precision_ratio`) family at `values`, in float64."""
    kind = MeanField if "scale" in values else NormalGammaFamily
    family = kind(NORMAL_GAMMA_LATENTS, replicates, positive=positive or Exponential()).double()
    family.assign(normal_gamma_params(values, replicates))
    return family


# --- a problem with Normal latents only -----------------------------------------------------------------------------


class Gaussian(Model):
    """z ~ N(0, 1), x_n | z ~ N(z, 1): no rejection sampler, so that replicates share the shape of a draw alone."""

    def __init__(self) -> None:
        super().__init__()
        self.latents = {"z": Latent(supports.real)}

    def factors(self, z: Latents, x: Tensor) -> Factors:
        value, mentioned = z["z"], frozenset({"z"})
        prior = -0.5 * (value.square() + math.log(2 * math.pi))
        squares = (value.unsqueeze(-1) - x).square().sum(dim=-1)
        return {
            "prior": (prior, mentioned),
            "likelihood": (-0.5 * (squares + len(x) * math.log(2 * math.pi)), mentioned),
        }


def gaussian_family(loc: Sequence[float], scale: Sequence[float]) -> MeanField:
    """N(loc_r, scale_r²) for each replicate, in float64."""
    family = MeanField({"z": Latent(supports.real)}, len(loc), positive=Exponential()).double()
    column = {"loc": torch.tensor(loc), "scale": torch.tensor(scale)}
    family.assign({"z": {name: value.double().unsqueeze(1) for name, value in column.items()}})
    return family


class Poisoned(Model):
    """`Gaussian` whose derivative, and not its value, is NaN for one replicate: 0 · d√u/du at u = 0."""

    def __init__(self, replicate: int, replicates: int):
        super().__init__()
        self.model = Gaussian()
        self.latents = self.model.latents
        self.harmless = (torch.arange(replicates) != replicate).double().unsqueeze(1)

    def factors(self, z: Latents, x: Tensor) -> Factors:
        trap = (0 * z["z"] + self.harmless).sqrt() - self.harmless
        return self.model.factors(z, x) | {"trap": (trap, frozenset({"z"}))}


class Shifted(Model):
    """Normal–Gamma with a constant added to log p(x | z): the same gradients, and less noise in a plain score."""

    def __init__(self, constant: float):
        super().__init__()
        self.constant, self.model = constant, NormalGamma()
        self.latents = self.model.latents

    def factors(self, z: Latents, x: NormalStatistics) -> Factors:
        shift = torch.full_like(z["tau"], self.constant)
        return self.model.factors(z, x) | {"constant": (shift, frozenset())}

    def log_likelihood(self, z: Latents, x: NormalStatistics) -> Tensor:
        return self.model.log_likelihood(z, x) + self.constant

    def kl(self, params: Params) -> Tensor:
        return self.model.kl(params)


# --- broken estimators ----------------------------------------------------------------------------------------------


class MissingLogQ(Estimator):
    """A score function whose signal is log p(x, z), without − log q(z): it climbs to the mode of the joint."""

    def __init__(self, num_samples: int):
        super().__init__()
        self.num_samples = num_samples

    def forward(self, model: Model, family: Family, bound: Bound, x: Any) -> Estimate:
        params = family.variational(x)
        z = family.distribution(detached(params)).sample(self.num_samples)
        log_q, scores = per_sample_scores(family, params, z)
        log_p = model.log_joint(z, x)
        value = bound(log_p - log_q)
        surrogate = value + inner_product(params, (log_p.detach() * scores).mean(dim=1))
        return Estimate(value.detach(), surrogate, (log_p - log_q).detach(), {})


class DetachedLatent(Estimator):
    """A pathwise estimator with z detached: only the direct dependence of log q on its parameters is left."""

    def __init__(self, num_samples: int):
        super().__init__()
        self.num_samples = num_samples

    def forward(self, model: Model, family: Family, bound: Bound, x: Any) -> Estimate:
        q = family.distribution(family.variational(x))
        z = q.sample(self.num_samples)
        log_w = model.log_joint(z, x) - q.log_prob(z)
        value = bound(log_w)
        return Estimate(value.detach(), value, log_w.detach(), {})


class KLOffByATerm(Estimator):
    """The closed-form KL without its first term, (a − a_0) ψ(a) for tau or log scale for a Normal z."""

    def __init__(self, num_samples: int):
        super().__init__()
        self.right = ClosedFormKL(num_samples=num_samples)

    def forward(self, model: Model, family: Family, bound: Bound, x: Any) -> Estimate:
        right, params = self.right(model, family, bound, x), family.variational(x)
        if "tau" in params:
            a = params["tau"]["concentration"]
            term = (a - 1) * torch.digamma(a)
        else:
            term = params["z"]["scale"].log().sum(dim=-1)
        return right._replace(bound=right.bound + term.detach(), surrogate=right.surrogate + term)


class Shrunk(Estimator):
    """A right estimator whose gradient is divided by K + 1 instead of K."""

    def __init__(self, right: ScoreFunction | Pathwise | ClosedFormKL):
        super().__init__()
        self.right, self.factor = right, right.num_samples / (right.num_samples + 1)

    def forward(self, model: Model, family: Family, bound: Bound, x: Any) -> Estimate:
        right = self.right(model, family, bound, x)
        return right._replace(surrogate=self.factor * right.surrogate)


class Scaled(Estimator):
    """A right estimator whose gradient is multiplied by a constant; −1 descends."""

    def __init__(self, right: Estimator, factor: float):
        super().__init__()
        self.right, self.factor, self.num_samples = right, factor, right.num_samples

    def forward(self, model: Model, family: Family, bound: Bound, x: Any) -> Estimate:
        right = self.right(model, family, bound, x)
        return right._replace(surrogate=self.factor * right.surrogate)


class Mixing(Estimator):
    """A right estimator that scales its gradient by the mean bound of all replicates."""

    def __init__(self, right: Estimator):
        super().__init__()
        self.right = right

    def forward(self, model: Model, family: Family, bound: Bound, x: Any) -> Estimate:
        right = self.right(model, family, bound, x)
        return right._replace(surrogate=right.surrogate / right.bound.abs().mean())


# --- broken bounds --------------------------------------------------------------------------------------------------


class SignalOfELBO(Bound):
    """The IWELBO with the ELBO's signal."""

    name, additive = "iwelbo", False

    def __call__(self, log_w: Tensor) -> Tensor:
        return IWELBO()(log_w)

    def signal(self, log_w: Tensor) -> Tensor:
        return ELBO().signal(log_w)


class SignalWithoutWeights(SignalOfELBO):
    """The IWELBO with signal L: the derivative of L in its weights is forgotten."""

    def signal(self, log_w: Tensor) -> Tensor:
        return self(log_w).expand_as(log_w)


class LinearSpace(SignalOfELBO):
    """The IWELBO formed from weights, which overflow, instead of their logarithms."""

    def __call__(self, log_w: Tensor) -> Tensor:
        return log_w.exp().mean(dim=0).log()


class MeanOfLogarithms(SignalOfELBO):
    """The arithmetic mean in the wrong space: of log-weights where the IWELBO averages weights."""

    def __call__(self, log_w: Tensor) -> Tensor:
        return log_w.mean(dim=0)


class SumOfWeights(SignalOfELBO):
    """The IWELBO without − log K: above log p(x)."""

    def __call__(self, log_w: Tensor) -> Tensor:
        return log_w.logsumexp(dim=0)


class NegativeBound(Bound):
    """The negative of the ELBO."""

    name, additive = "elbo", True

    def __call__(self, log_w: Tensor) -> Tensor:
        return -ELBO()(log_w)

    def signal(self, log_w: Tensor) -> Tensor:
        return -ELBO().signal(log_w)


# --- broken optimizers ----------------------------------------------------------------------------------------------


class Descent(Optimizer):
    """SGD with the wrong sign."""

    def directions(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        return [-gradient for gradient in gradients]


class UncorrectedAdam(Optimizer):
    """Adam without the correction of its moving averages."""

    def allocate(self, parameters: Sequence[Tensor]) -> None:
        self.state("mean", parameters)
        self.state("square", parameters)

    def directions(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        means, squares = self.states("mean", len(gradients)), self.states("square", len(gradients))
        for gradient, mean, square in zip(gradients, means, squares, strict=True):
            mean.lerp_(gradient, 0.1)
            square.lerp_(gradient.square(), 0.001)
        return [mean / (square.sqrt() + 1e-8) for mean, square in zip(means, squares, strict=True)]


class EpsUnderTheRoot(Optimizer):
    """AdaGrad with eps added to the sum of squares instead of its root."""

    def allocate(self, parameters: Sequence[Tensor]) -> None:
        self.state("sum", parameters)

    def directions(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        sums = self.states("sum", len(gradients))
        for total, gradient in zip(sums, gradients, strict=True):
            total.addcmul_(gradient, gradient)
        return [gradient / (total + 1e-2).sqrt() for gradient, total in zip(gradients, sums, strict=True)]


class Unmasked(Optimizer):
    """SGD that moves dead replicates too."""

    def directions(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        return gradients

    def forward(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor], alive: Tensor) -> None:
        super().forward(parameters, gradients, torch.ones_like(alive))


# --- broken stopping rules ---


class AveragedChange(StoppingRule):
    """`ParameterChange` with the mean over replicates and parameters where it has the largest."""

    def __init__(self, window: int, tolerance: float):
        super().__init__(window)
        self.tolerance = tolerance

    def bind(self, parameters: Sequence[Tensor], replicates: int) -> None:
        self.last = [p.detach().clone() for p in parameters]
        self.replicates = replicates

    def observe(self, bound: Tensor) -> None: ...

    def holds(self, parameters: Sequence[Tensor]) -> Tensor:
        change = torch.stack([(p - q).abs().mean() for p, q in zip(parameters, self.last, strict=True)]).mean()
        self.last = [p.detach().clone() for p in parameters]
        return (change < self.tolerance).expand(self.replicates)


# --- broken updates -------------------------------------------------------------------------------------------------


class WrongUpdate(NormalGamma):
    """Mean field with the structured concentration, a_0 + n/2: the term of mu's own prior is forgotten."""

    def update(self, block: str, params: Params, x: NormalStatistics) -> dict[str, Tensor]:
        right = super().update(block, params, x)
        return right if block == "mu" else right | {"concentration": right["concentration"] - 0.5}


class FallingUpdate(NormalGamma):
    """Every other update of mu is far from the optimum."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def update(self, block: str, params: Params, x: NormalStatistics) -> dict[str, Tensor]:
        self.calls += 1
        right = super().update(block, params, x)
        return right if block == "tau" or self.calls % 4 == 1 else right | {"loc": right["loc"] + 1}
