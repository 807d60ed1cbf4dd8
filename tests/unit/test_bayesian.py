"""Models of one's own: densities against ones written by hand, factors, minibatches, every common law as a prior."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch import distributions as laws
from torch.distributions import Bernoulli, Gamma, HalfCauchy, Normal, Poisson

import vi_core
from tests import oracles
from vi_core.distributions import supports
from vi_core.errors import LabError
from vi_core.models.bayesian.laws import Named, log_density

N = 12


@pytest.fixture(autouse=True)
def _double() -> None:
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)


def observed(model: vi_core.BayesianModel, data: dict[str, Tensor]) -> Any:
    """The model, with its data."""
    model.observe(data, N)
    return model


def axes(value: Tensor) -> Tensor:
    """Values (S, *event) as (S, 1, 1, *event)."""
    return value[:, None, None]


class Logistic(vi_core.BayesianModel):
    """y_n ~ Bernoulli(σ(a + x_n · b)), with whole numbers observed."""

    def prior(self, data: Any) -> Iterator[Any]:
        yield "a", Normal(0.0, 3.0)
        yield "b", Normal(torch.zeros(2), 1.5)

    def likelihood(self, z: Any, data: Any) -> Any:
        return Bernoulli(logits=z["a"] + data["x"] @ z["b"])


class Groups(vi_core.BayesianModel):
    """Means of three groups around a common one, and counts observed beside."""

    def prior(self, data: Any) -> Iterator[Any]:
        yield "mu", Normal(0.0, 5.0)
        yield "tau", HalfCauchy(2.0)
        yield "theta", lambda z: Normal(z["mu"] * torch.ones(3), z["tau"])
        yield "rate", Gamma(2.0, 1.0)

    def likelihood(self, z: Any, data: Any) -> Any:
        return {
            "y": Normal(z["theta"][data["group"]], data["sigma"]),
            "count": Poisson(z["rate"] * data["x"][:, 0].exp()),
        }

    def quantities(self, z: Any, data: Any) -> Any:
        return {"spread": z["theta"].max() - z["theta"].min()}


class ByProbabilities(Logistic):
    """The same law by probabilities, which torch turns into logits where it needs them."""

    def likelihood(self, z: Any, data: Any) -> Any:
        return Bernoulli(probs=super().likelihood(z, data).logits.sigmoid())


class Weighted(Logistic):
    """Each point counts as often as it says."""

    def weights(self, data: Any) -> Tensor:
        return data["w"]


def data() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "x": torch.randn(N, 2, generator=generator),
        "y": (torch.rand(N, generator=generator) < 0.5).long(),
        "w": 1.0 + torch.arange(N) % 3,
    }


def grouped() -> dict[str, Tensor]:
    return {
        "x": data()["x"],
        "y": torch.linspace(-2.0, 5.0, N),
        "group": torch.arange(N) % 3,
        "count": torch.arange(N) % 4,
        "sigma": torch.tensor(0.7),
    }


# --- densities ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Logistic, ByProbabilities, Weighted])
def test_a_logistic_regression(kind: type[vi_core.BayesianModel]) -> None:
    model, known = observed(kind(), data()), data()
    a, b = torch.randn(4), torch.randn(4, 2)
    found = model.log_joint({"a": axes(a), "b": axes(b)}, known)
    assert found.shape == (4, 1, 1) and model.has_points
    points = torch.empty(0)
    for s in range(4):
        eta = a[s] + known["x"] @ b[s]
        points = known["y"] * eta - eta.exp().log1p()
        weight = known["w"] if kind is Weighted else 1.0
        prior = -0.5 * (a[s] / 3) ** 2 - torch.tensor(3.0).log() - 0.5 * (b[s] / 1.5).square().sum()
        prior = prior - 2 * torch.tensor(1.5).log() - 1.5 * oracles.LOG_2PI
        torch.testing.assert_close(found[s, 0, 0], prior + (weight * points).sum())
    each = model.log_likelihood_of_points({"a": axes(a), "b": axes(b)}, known)
    assert each.shape == (4, 1, 1, N)
    torch.testing.assert_close(each[3, 0, 0], points)


def draw_of_groups(count: int) -> dict[str, Tensor]:
    return {
        "mu": torch.randn(count),
        "tau": torch.rand(count) + 0.5,
        "theta": torch.randn(count, 3),
        "rate": torch.rand(count) + 0.5,
    }


def test_groups_and_two_observed_variables() -> None:
    model, known, z = observed(Groups(), grouped()), grouped(), draw_of_groups(3)
    factors = model.factors({name: axes(value) for name, value in z.items()}, known)
    for s in range(3):
        mu, tau, theta, rate = (z[name][s] for name in ("mu", "tau", "theta", "rate"))
        intensity = rate * known["x"][:, 0].exp()
        wanted = {
            "mu": -0.5 * (mu / 5) ** 2 - torch.tensor(5.0).log() - 0.5 * oracles.LOG_2PI,
            "tau": torch.log(2 / (torch.pi * 2 * (1 + (tau / 2) ** 2))),
            "theta": (-0.5 * ((theta - mu) / tau) ** 2 - tau.log() - 0.5 * oracles.LOG_2PI).sum(),
            "rate": rate.log() - rate,
            "y": (
                -0.5 * ((known["y"] - theta[known["group"]]) / 0.7) ** 2
                - torch.tensor(0.7).log()
                - 0.5 * oracles.LOG_2PI
            ).sum(),
            "count": (known["count"] * intensity.log() - intensity - torch.lgamma(known["count"] + 1.0)).sum(),
        }
        assert factors.keys() == wanted.keys()
        for name, value in wanted.items():
            torch.testing.assert_close(factors[name][0][s, 0, 0], value, msg=name)
    spread = model.quantities_at({name: axes(value) for name, value in z.items()}, known)["spread"]
    torch.testing.assert_close(spread.flatten(), z["theta"].amax(1) - z["theta"].amin(1))


def test_scopes_are_what_is_read() -> None:
    """An observed variable shares the likelihood's scope: its method returns all laws at once."""
    model = observed(Groups(), grouped())
    scopes = {
        name: scope
        for name, (_, scope) in model.factors({n: axes(v) for n, v in draw_of_groups(2).items()}, grouped()).items()
    }
    own = {"mu": {"mu"}, "tau": {"tau"}, "theta": {"mu", "tau", "theta"}, "rate": {"rate"}}
    assert scopes == own | {"y": {"theta", "rate"}, "count": {"theta", "rate"}}
    assert model.latents["tau"].support == supports.positive and model.latents["theta"].shape == (3,)


@pytest.mark.parametrize(
    "read", [lambda z: z.get("a"), lambda z: [*z.values()], lambda z: dict(z), lambda z: {**z}, lambda z: [*z.items()]]
)
def test_every_way_of_reading_is_noted(read: Any) -> None:
    z = Named({"a": torch.ones(())}, "latent")
    assert list(z) == ["a"] and not z.read
    read(z)
    assert z.read == {"a"}


# --- minibatches ----------------------------------------------------------------------------------------------------


class Forgetful(Logistic):
    """The likelihood of a minibatch without the factor N/B."""

    def _total(self, name: Any, summands: Any, data: Any) -> Any:
        before, self.num_points = self.num_points, len(data["y"])
        try:
            return super()._total(name, summands, data)
        finally:
            self.num_points = before


def gradients(kind: type[vi_core.BayesianModel], size: int) -> tuple[Tensor, Tensor]:
    """The mean gradient over all minibatches of a size, and that of all data."""
    model, known = observed(kind(), data()), data()
    a, b = torch.randn(3).requires_grad_(), torch.randn(3, 2).requires_grad_()

    def slope(rows: Tensor) -> Tensor:
        own = {name: value[rows] for name, value in known.items()}
        density = model.log_joint({"a": axes(a), "b": axes(b)}, own).sum()
        return torch.cat([g.flatten() for g in torch.autograd.grad(density, [a, b])])

    parts = [slope(rows) for rows in torch.arange(N).split(size)]
    return torch.stack(parts).mean(0), slope(torch.arange(N))


@pytest.mark.parametrize("kind", [Logistic, ByProbabilities, Weighted])
@pytest.mark.parametrize("size", [1, 3, 6])
def test_minibatches_have_the_gradient_of_all_data_in_the_mean(kind: type[vi_core.BayesianModel], size: int) -> None:
    torch.testing.assert_close(*gradients(kind, size))


def test_a_forgotten_factor_is_caught() -> None:
    found, wanted = gradients(Forgetful, 3)
    assert not torch.allclose(found, wanted, rtol=0.1)


# --- laws -----------------------------------------------------------------------------------------------------------

LAWS: dict[str, tuple[Any, str]] = {
    "Normal": (lambda: Normal(0.0, 1.0), "real"),
    "StudentT": (lambda: laws.StudentT(4.0), "real"),
    "Cauchy": (lambda: laws.Cauchy(0.0, 1.0), "real"),
    "Laplace": (lambda: laws.Laplace(torch.zeros(2), 1.0), "real"),
    "Gumbel": (lambda: laws.Gumbel(0.0, 1.0), "real"),
    "HalfNormal": (lambda: laws.HalfNormal(1.0), "positive"),
    "HalfCauchy": (lambda: HalfCauchy(1.0), "positive"),
    "Gamma": (lambda: Gamma(torch.tensor([2.0, 3.0]), 1.0), "positive"),
    "InverseGamma": (lambda: laws.InverseGamma(torch.tensor(3.0), torch.tensor(1.0)), "positive"),
    "LogNormal": (lambda: laws.LogNormal(0.0, 1.0), "positive"),
    "Exponential": (lambda: laws.Exponential(1.0), "positive"),
    "Weibull": (lambda: laws.Weibull(1.0, 2.0), "positive"),
    "Chi2": (lambda: laws.Chi2(torch.tensor(3.0)), "positive"),
    "FisherSnedecor": (lambda: laws.FisherSnedecor(torch.tensor(5.0), torch.tensor(6.0)), "positive"),
    "Pareto": (lambda: laws.Pareto(1.0, 3.0), ""),
    "Beta": (lambda: laws.Beta(2.0, 3.0), "unit-interval"),
    "Kumaraswamy": (lambda: laws.Kumaraswamy(torch.tensor(2.0), torch.tensor(3.0)), "unit-interval"),
    "Uniform(0, 1)": (lambda: laws.Uniform(0.0, 1.0), "unit-interval"),
    "Uniform": (lambda: laws.Uniform(-1.0, 3.0), "bounded(-1.0, 3.0)"),
    "Uniform of vectors": (lambda: laws.Uniform(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 4.0])), ""),
    "Dirichlet": (lambda: laws.Dirichlet(torch.ones(3)), "simplex"),
    "Dirichlets": (lambda: laws.Dirichlet(torch.ones(2, 3)), "simplex"),
    "MultivariateNormal": (lambda: laws.MultivariateNormal(torch.zeros(3), torch.eye(3)), "real"),
    "LowRankMultivariateNormal": (
        lambda: laws.LowRankMultivariateNormal(torch.zeros(3), torch.ones(3, 1), torch.ones(3)),
        "real",
    ),
    "LKJCholesky": (lambda: laws.LKJCholesky(3, 2.0), "correlation-Cholesky"),
    "Independent": (lambda: laws.Independent(Gamma(torch.ones(3), 1.0), 1), "positive"),
    "Mixture": (
        lambda: laws.MixtureSameFamily(laws.Categorical(torch.ones(2)), Normal(torch.tensor([-1.0, 1.0]), 1.0)),
        "real",
    ),
    "Logistic": (
        lambda: laws.TransformedDistribution(laws.Uniform(0.0, 1.0), [laws.SigmoidTransform().inv]),
        "real",
    ),
}


def with_prior(law: Any) -> vi_core.BayesianModel:
    """A latent with a prior, and one number observed of its sum."""

    class One(vi_core.BayesianModel):
        def prior(self, data: Any) -> Iterator[Any]:
            yield "z", law

        def likelihood(self, z: Any, data: Any) -> Any:
            return Normal(z["z"].sum(), 2.0)

    return One()


@pytest.mark.parametrize("name", LAWS)
def test_a_law_as_prior_is_mapped_as_in_a_loop(name: str) -> None:
    make, support = LAWS[name]
    law, y = make(), torch.linspace(-1, 2, N)
    model = observed(with_prior(law), {"y": y})
    latent = model.latents["z"]
    if support:
        assert latent.support.name == support
    u = torch.rand(5, *latent.unconstrained_shape) * 2 - 1
    z = latent.support.transform(u).requires_grad_()
    found = model.log_joint({"z": axes(z)}, {"y": y}).flatten()
    wanted = torch.stack([law.log_prob(one).sum() + Normal(one.sum(), 2.0).log_prob(y).sum() for one in z.detach()])
    torch.testing.assert_close(found, wanted)
    (slope,) = torch.autograd.grad(found.sum(), z)
    assert bool(found.isfinite().all()) and bool(slope.isfinite().all())


@pytest.mark.parametrize("name", ["Normal", "StudentT", "Gamma", "Beta", "Uniform", "Dirichlet", "LKJCholesky"])
def test_replayed_steps_are_eager_steps(name: str) -> None:
    from vi_core.datasets.columns import InMemory, column_data
    from vi_core.fits.parts import part
    from vi_core.problem import Loaded, assemble
    from vi_core.run import Run

    def trained(execution: str) -> Tensor:
        torch.manual_seed(1)
        loaded = column_data({"y": torch.linspace(-1, 2, N)}, "drawn")
        config = {
            "dataset": InMemory(loaded, batch_size=4),
            "model": with_prior(LAWS[name][0]()),
            "family": part("family", "full_rank_normal"),
            "bound": part("bound", "elbo"),
            "estimator": part("estimator", "sticking_the_landing", num_samples=4),
            "optimizer": part("optimizer", "adam", lr=0.05),
            "trainer": part("trainer", "default", steps=30, eval_every=0, execution=execution),
            "replicates": 2,
        }
        generator = torch.Generator().manual_seed(1)
        problem = assemble(config, torch.device("cpu"), torch.float64, generator, Loaded(loaded, loaded.checksum))
        Run(config, problem).loop.run()
        return torch.cat([value.detach().flatten() for value in problem.family.parameters()])

    eager = trained("eager")
    torch.testing.assert_close(trained("replay"), eager, rtol=1e-10, atol=1e-12)
    assert bool(eager.isfinite().all())


# --- draws ----------------------------------------------------------------------------------------------------------


def test_draws_from_prior_and_predictive_laws() -> None:
    """theta | mu, tau has mean mu; y given the draws has mean theta[group]."""
    model, draws = observed(Groups(), grouped()), 1500
    values = [model.prior_draw() for _ in range(draws)]
    prior = {name: torch.stack([value[name] for value in values]) for name in values[0]}
    standard = (prior["theta"] - prior["mu"][:, None]) / prior["tau"][:, None]
    assert oracles.max_z(standard, torch.zeros(3)) < oracles.limit(draws)
    assert oracles.max_z(prior["mu"][:, None], torch.zeros(1)) < oracles.limit(draws)
    assert oracles.max_z(prior["rate"][:, None], torch.full((1,), 2.0)) < oracles.limit(draws)
    rows = {name: value for name, value in grouped().items() if name not in ("y", "count")}
    found = model.predictive(prior, rows)
    assert found["y"].shape == found["count"].shape == (draws, N)
    noise = (found["y"] - prior["theta"][:, grouped()["group"]]) / 0.7
    assert oracles.max_z(noise, torch.zeros(N)) < oracles.limit(draws)
    assert oracles.max_z(noise.square(), torch.ones(N)) < oracles.limit(draws)


def test_checks_draw_from_a_stream_of_their_own() -> None:
    before = torch.get_rng_state()
    observed(Groups(), grouped())
    assert torch.equal(torch.get_rng_state(), before)


def test_bounds_that_move_are_refused_and_scales_that_move_are_not() -> None:
    class Moving(Groups):
        def prior(self, data: Any) -> Iterator[Any]:
            yield from super().prior(data)
            yield "top", lambda z: laws.Uniform(0.0, z["tau"])

    with pytest.raises(LabError, match="the bounds of 'top' depend on other latents"):
        observed(Moving(), grouped())


def test_a_mapped_bernoulli_density_is_that_of_torch() -> None:
    """Value and slope in the logits, to 1e-12, for probabilities down to 1e-13."""
    logits = torch.linspace(-30.0, 30.0, 61).reshape(1, -1).repeat(2, 1).requires_grad_()
    y = (torch.arange(61) % 2).to(logits)
    mapped = torch.func.vmap(lambda own: log_density(Bernoulli(logits=own, validate_args=False), y))(logits)
    right = Bernoulli(logits=logits).log_prob(y.expand_as(logits))
    torch.testing.assert_close(mapped, right, rtol=1e-12, atol=1e-12)
    slopes = [torch.autograd.grad(value.sum(), logits)[0] for value in (mapped, right)]
    torch.testing.assert_close(*slopes, rtol=1e-12, atol=1e-12)
