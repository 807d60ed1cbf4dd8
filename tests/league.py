"""Thirteen small posteriors with references, a bench for recipes and verdicts.

    python -m tests.league 0 full_rank_normal     # fits each with four replicates from seed 0, and prints a table

A replicate is *good* where each mean in unconstrained space is within 0.3 posterior deviations, and each deviation
within a factor of 0.7 to 1.4. References are exact where the posterior is built from Normals; for eight schools a
quadrature over mu and tau, given which theta is Normal; for the others importance sampling from a Student-t around the
mode, 200,000 draws, whose effective size is checked.
"""

import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    HalfNormal,
    InverseGamma,
    LogNormal,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    Poisson,
    StudentT,
)

import vi_core
from vi_core.algorithms.whitening import climb, differences
from vi_core.families.unconstrained import Space
from vi_core.fits.trust import draws_for, verdict, weigh
from vi_core.models.bayesian.hierarchical import EightSchools, EightSchoolsCentered

SCHOOLS = {"y": [28.0, 8, -3, 7, -1, 1, 18, 12], "sigma": [15.0, 10, 16, 11, 9, 11, 10, 18]}
GOOD_MEAN, GOOD_SD = 0.3, (0.7, 1.4)
REFERENCE_DRAWS = 200_000


class Moments(NamedTuple):
    """Means and deviations in unconstrained space, each (D,)."""

    mean: np.ndarray
    sd: np.ndarray


@dataclass(frozen=True)
class Posterior:
    """A model with data, and moments of its posterior where they are known by other means."""

    model: type[vi_core.BayesianModel]
    data: dict[str, np.ndarray]
    known: Callable[[], Moments] | None = None

    def reference(self) -> Moments:
        """Return the moments."""
        return by_importance_sampling(self) if self.known is None else self.known()


class Regression(vi_core.BayesianModel):
    """Intercept, slopes and noise with wide priors; subclasses change the likelihood."""

    noise = True
    width = 10.0

    def prior(self, data: Any) -> Iterator[Any]:
        yield "alpha", Normal(0.0, self.width)
        yield "beta", Normal(torch.zeros(data["x"].shape[1]), self.width)
        if self.noise:
            yield "sigma", HalfNormal(5.0)

    def line(self, z: Any, data: Any) -> Tensor:
        """The linear predictor."""
        return z["alpha"] + data["x"] @ z["beta"]

    def likelihood(self, z: Any, data: Any) -> Any:
        return Normal(self.line(z, data), z["sigma"])


class Logistic(Regression):
    """Bernoulli likelihood."""

    noise, width = False, 2.5

    def likelihood(self, z: Any, data: Any) -> Any:
        return Bernoulli(logits=self.line(z, data))


class Counts(Regression):
    """Poisson likelihood."""

    noise, width = False, 2.5

    def likelihood(self, z: Any, data: Any) -> Any:
        return Poisson(self.line(z, data).exp())


class Robust(Regression):
    """Student-t likelihood."""

    def likelihood(self, z: Any, data: Any) -> Any:
        return StudentT(4.0, self.line(z, data), z["sigma"])


class Kids(Regression):
    """Scores near 87 on predictors near 100, nothing standardised."""

    width = 100.0

    def prior(self, data: Any) -> Iterator[Any]:
        yield "alpha", Normal(0.0, 100.0)
        yield "beta", Normal(torch.zeros(data["x"].shape[1]), 10.0)
        yield "sigma", HalfNormal(50.0)


class Autoregression(vi_core.BayesianModel):
    """y_t ~ N(alpha + beta y_(t−1), sigma²)."""

    def prior(self, data: Any) -> Iterator[Any]:
        yield "alpha", Normal(0.0, 10.0)
        yield "beta", Normal(0.0, 10.0)
        yield "sigma", HalfNormal(5.0)

    def likelihood(self, z: Any, data: Any) -> Any:
        return Normal(z["alpha"] + z["beta"] * data["before"], z["sigma"])


class Surface(vi_core.BayesianModel):
    """Hyperparameters of a Gaussian process with a squared-exponential kernel."""

    def prior(self, data: Any) -> Iterator[Any]:
        yield "length", InverseGamma(5.0, 5.0)
        yield "amplitude", HalfNormal(2.0)
        yield "noise", HalfNormal(1.0)

    def likelihood(self, z: Any, data: Any) -> Any:
        square = (data["x"][:, None] - data["x"][None]).square() / z["length"].square()
        kernel = z["amplitude"].square() * (-0.5 * square).exp()
        return MultivariateNormal(0 * data["y"], kernel + (z["noise"].square() + 1e-9) * torch.eye(len(data["y"])))


class Neal(vi_core.BayesianModel):
    """The funnel: x_i ~ N(0, e^v), v ~ N(0, 9); a datum without information."""

    def prior(self, data: Any) -> Iterator[Any]:
        yield "v", Normal(0.0, 3.0)
        yield "x", lambda z: Normal(torch.zeros(4), (0.5 * z["v"]).exp())

    def likelihood(self, z: Any, data: Any) -> Any:
        return Normal(0 * z["v"], 1.0)


class Banana(vi_core.BayesianModel):
    """b ~ N(0.5 a², 0.5²), a ~ N(0, 1)."""

    def prior(self, data: Any) -> Iterator[Any]:
        yield "a", Normal(0.0, 1.0)
        yield "b", lambda z: Normal(0.5 * z["a"].square(), 0.5)

    def likelihood(self, z: Any, data: Any) -> Any:
        return Normal(0 * z["a"], 1.0)


class Bimodal(vi_core.BayesianModel):
    """a is 0.7 N(−4, 1) + 0.3 N(4, 1), and b ~ N(a, 1)."""

    def prior(self, data: Any) -> Iterator[Any]:
        weights = torch.distributions.Categorical(torch.tensor([0.7, 0.3]))
        yield "a", MixtureSameFamily(weights, Normal(torch.tensor([-4.0, 4.0]), 1.0))
        yield "b", lambda z: Normal(z["a"], 1.0)

    def likelihood(self, z: Any, data: Any) -> Any:
        return Normal(0 * z["a"], 1.0)


class Skewed(vi_core.BayesianModel):
    """A rate with few counts: its logarithm is skewed, which a Normal misses by little."""

    def prior(self, data: Any) -> Iterator[Any]:
        yield "rate", LogNormal(0.0, 2.0)
        yield "ratio", LogNormal(0.0, 1.0)

    def likelihood(self, z: Any, data: Any) -> Any:
        return Poisson(z["rate"] * torch.where(data["group"] > 0, z["ratio"], torch.ones(())))


def by_importance_sampling(posterior: Posterior, seed: int = 0) -> Moments:
    """Return moments by importance sampling from a Student-t with 5 degrees of freedom around the mode."""
    f, space = density(posterior)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        ends = [climb(f, torch.rand(space.size) * 4 - 2)[-1] for _ in range(4)]
    mode = max(ends, key=lambda u: float(f(u[None])))
    root = torch.linalg.cholesky(torch.linalg.inv(-differences(f, mode))) * 1.1
    gamma = np.random.default_rng(seed).gamma(2.5, 1 / 2.5, (REFERENCE_DRAWS, 1))
    scale = torch.from_numpy(gamma).rsqrt()
    normal = torch.randn(REFERENCE_DRAWS, space.size, generator=generator)
    u = mode + (scale * normal) @ root.mT
    square = (scale * normal).square().sum(-1)
    with torch.no_grad():
        log_p = torch.cat([f(piece) for piece in u.split(20_000)])
    weights = (log_p + 0.5 * (5 + space.size) * torch.log1p(square / 5)).softmax(0)
    assert 1 / weights.square().sum() > 0.1 * REFERENCE_DRAWS, "the proposal does not fit"
    mean = weights @ u
    return Moments(mean.numpy(), (weights @ (u - mean).square()).sqrt().numpy())


def density(posterior: Posterior) -> tuple[Callable[[Tensor], Tensor], Space]:
    """Return log p(u) of points (S, D), and the space; torch's default type must be float64."""
    model = posterior.model()
    data = {name: torch.from_numpy(np.asarray(value)) for name, value in posterior.data.items()}
    model.observe(data, len(next(iter(data.values()))))
    space = Space(model.latents)

    def f(u: Tensor) -> Tensor:
        z = space.values(u[:, None, None])
        log_det = torch.stack(list(space.log_dets(u[:, None, None], z).values())).sum(0)
        return (model.log_joint(z, data) + log_det).flatten()

    return f, space


def schools(centred: bool) -> Moments:
    """Eight schools by quadrature over mu and log tau, given which each theta_j is Normal."""
    y, sigma = np.array(SCHOOLS["y"]), np.array(SCHOOLS["sigma"])
    mu, log_tau = np.meshgrid(np.linspace(-15, 25, 401), np.linspace(-12, 5, 681), indexing="ij")
    tau = np.exp(log_tau)
    spread = tau[..., None] ** 2 + sigma**2
    log_p = -0.5 * (mu / 5) ** 2 - np.log1p((tau / 5) ** 2) + log_tau
    log_p += (-0.5 * (y - mu[..., None]) ** 2 / spread - 0.5 * np.log(spread)).sum(-1)
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    share = tau[..., None] ** 2 / spread
    centre = share * (y - mu[..., None])  # E[theta − mu | mu, tau]
    variance = share * sigma**2
    if centred:
        centre = centre + mu[..., None]
    else:
        centre, variance = centre / tau[..., None], variance / tau[..., None] ** 2
    effects = np.einsum("ij,ijk->k", p, centre)
    square = np.einsum("ij,ijk->k", p, variance + centre**2)
    outer = [((p * v).sum(), math.sqrt((p * v**2).sum() - (p * v).sum() ** 2)) for v in (mu, log_tau)]
    mean = np.array([*(m for m, _ in outer), *effects])
    return Moments(mean, np.array([*(s for _, s in outer), *np.sqrt(square - effects**2)]))


def posteriors() -> dict[str, Posterior]:
    """Return the posteriors by name; their data are drawn from fixed seeds."""
    g = np.random.default_rng(7)
    x = g.normal(size=(60, 3))
    close = g.normal(size=(80, 1)) + 0.1 * g.normal(size=(80, 4))
    iq, series, grid = g.normal(100, 15, size=(120, 2)), [0.0], np.linspace(0, 6, 25)
    for _ in range(100):
        series.append(0.5 + 0.6 * series[-1] + 0.4 * g.normal())
    before, after = np.array(series[:-1]), np.array(series[1:])
    probability = 1 / (1 + np.exp(-(x @ [1.0, -1.5, 0.5])))
    nothing = {"y": np.zeros(1)}
    return {
        "schools_centred": Posterior(EightSchoolsCentered, arrays(SCHOOLS), lambda: schools(True)),
        "schools_noncentred": Posterior(EightSchools, arrays(SCHOOLS), lambda: schools(False)),
        "logistic": Posterior(Logistic, {"x": x, "y": (g.random(60) < probability).astype(float)}),
        "correlated": Posterior(Regression, {"x": close, "y": close.sum(1) + g.normal(size=80)}),
        "counts": Posterior(Counts, {"x": x, "y": g.poisson(np.exp(0.5 + x @ [0.4, -0.3, 0.2])).astype(float)}),
        "robust": Posterior(Robust, {"x": x, "y": x @ [1.0, 2.0, 0.0] + g.standard_t(3, size=60)}),
        "kids": Posterior(Kids, {"x": iq, "y": 25 + iq @ [0.6, 0.02] + 18 * g.normal(size=120)}),
        "autoregression": Posterior(Autoregression, {"before": before, "y": after}),
        "surface": Posterior(Surface, {"x": grid, "y": np.sin(grid) + 0.3 * g.normal(size=25)}),
        "skewed": Posterior(Skewed, {"group": np.array([0.0, 0.0, 1.0, 1.0]), "y": np.array([1.0, 2.0, 4.0, 3.0])}),
        "funnel": Posterior(Neal, nothing, lambda: Moments(np.zeros(5), np.array([3.0, *[math.exp(2.25)] * 4]))),
        "banana": Posterior(Banana, nothing, lambda: Moments(np.array([0, 0.5]), np.array([1, math.sqrt(0.75)]))),
        "bimodal": Posterior(
            Bimodal, nothing, lambda: Moments(np.array([-1.6, -1.6]), np.sqrt([1 + 64 * 0.21, 2 + 64 * 0.21]))
        ),
    }


def arrays(columns: dict[str, list[float]]) -> dict[str, np.ndarray]:
    """Return columns as arrays."""
    return {name: np.array(values) for name, values in columns.items()}


@lru_cache
def reference(name: str) -> Moments:
    """Return the moments of a posterior, in float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return posteriors()[name].reference()
    finally:
        torch.set_default_dtype(before)


class Outcome(NamedTuple):
    """One replicate beside its reference.

    Attributes:
        mean_error: Largest error of a mean in posterior deviations.
        low, high: Smallest and largest ratio of deviations.
    """

    mean_error: float
    low: float
    high: float

    @property
    def good(self) -> bool:
        """Whether the moments are right."""
        return self.mean_error < GOOD_MEAN and GOOD_SD[0] < self.low and self.high < GOOD_SD[1]


def outcomes(fit: Any, name: str) -> list[Outcome]:
    """Return how far each replicate of a fit is from the reference, in unconstrained space."""
    q, wanted = fit.q, reference(name)
    with torch.no_grad():
        centre, covariance = q.coordinate_moments()
    mean, sd = centre[:, 0].numpy(), covariance.diagonal(dim1=-2, dim2=-1).sqrt()[:, 0].numpy()
    ratio = sd / wanted.sd
    errors = np.abs(mean - wanted.mean) / wanted.sd
    return [Outcome(float(e.max()), float(r.min()), float(r.max())) for e, r in zip(errors, ratio, strict=True)]


def corrected_outcome(fit: Any, name: str) -> Outcome:
    """Return how far corrected moments of the best replicate are from the reference, in unconstrained space."""
    from vi_core.diagnostics.importance import smoothed_weights

    weighed, wanted, best = fit._weighed, reference(name), fit.best
    weights = smoothed_weights(weighed.log_w[:, best])
    space = Space(fit.model.latents)
    u = space.coordinates({latent: z[:, best] for latent, z in weighed.z.items()})
    mean = weights @ u
    sd = (weights @ (u - mean).square()).sqrt().numpy()
    errors, ratio = np.abs(mean.numpy() - wanted.mean) / wanted.sd, sd / wanted.sd
    return Outcome(float(errors.max()), float(ratio.min()), float(ratio.max()))


def cost_of_verdict(fit: Any) -> float:
    """Return the processor seconds that draws, their weights and the verdict take."""
    began, problem = time.process_time(), fit.run.problem
    weighed = weigh(problem, draws_for(problem, fit.run.loop.done))
    verdict(problem, weighed, np.arange(len(fit.elbo)) == fit.best)
    return time.process_time() - began


def main(families: list[str], seeds: list[int], **settings: Any) -> None:
    """Print a line for each fit."""
    names = list(posteriors())
    for family in families:
        for name in names:
            posterior = posteriors()[name]
            for seed in seeds:
                began = time.process_time()
                fit = vi_core.fit(posterior.model(), posterior.data, family=family, seed=seed, **settings)
                spent, cost = time.process_time() - began, cost_of_verdict(fit)
                found, judged = outcomes(fit, name), fit.verdict
                of_best, fixed = found[fit.best], corrected_outcome(fit, name)
                print(
                    f"{name:19} {family:18} {seed} good {sum(o.good for o in found)}/4 best {of_best.good!s:5} "
                    f"{of_best.mean_error:5.2f} {of_best.low:4.2f} {of_best.high:5.2f}  {judged.trust:9} "
                    f"k {judged.k_hat:5.2f} gap {judged.kl_gap:6.3f} ess {judged.ess:6.0f} "
                    f"modes {len(judged.modes)} "
                    f"fixed {fixed.good!s:5} {fixed.mean_error:5.2f} {fixed.low:4.2f} {fixed.high:5.2f} "
                    f"steps {fit.run.loop.done:5} gradients {fit.gradients:6} {fit.seconds:5.1f} s, "
                    f"and {cost / (spent - cost):.1%} for the verdict",
                    flush=True,
                )


if __name__ == "__main__":
    main(sys.argv[2:] or ["full_rank_normal", "mean_field_normal"], [int(sys.argv[1]) if len(sys.argv) > 1 else 0])
