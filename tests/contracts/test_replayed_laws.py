"""Common laws of `torch.distributions`, as priors and as likelihoods: mapped as in a loop, and replayed bit for bit.

A law that cannot be mapped or replayed makes a run slower by an order of magnitude, or impossible.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch import distributions as laws

import vi_core
from tests.unit.test_bayesian import LAWS, with_prior
from vi_core.datasets.columns import InMemory, column_data
from vi_core.fits.parts import part
from vi_core.models.bayesian.laws import log_density
from vi_core.problem import Loaded, assemble
from vi_core.run import Run

ROWS = 6
COUNT = torch.arange(ROWS).double()
POSITIVE, INSIDE = torch.linspace(0.5, 3, ROWS).double(), torch.linspace(0.05, 0.95, ROWS).double()
PLANE, UNIT = torch.stack([POSITIVE, -POSITIVE], dim=1), torch.eye(2).double()
SIMPLEX = torch.tensor([[0.2, 0.3, 0.5], [0.6, 0.1, 0.3]]).double()[COUNT.long() % 2]
MASSES = torch.tensor([[1.0, 2, 1], [0, 4, 0]]).double()[COUNT.long() % 2]


def three(z: Tensor) -> Tensor:
    return torch.stack([z, -z, 0 * z])


LIKELIHOODS: dict[str, tuple[Callable[[Tensor], laws.Distribution], Tensor]] = {
    "Bernoulli": (lambda z: laws.Bernoulli(logits=z), COUNT % 2),
    "Bernoulli(p)": (lambda z: laws.Bernoulli(z.sigmoid()), COUNT % 2),
    "Binomial": (lambda z: laws.Binomial(5, logits=z), COUNT % 5),
    "Geometric": (lambda z: laws.Geometric(logits=z), COUNT % 4),
    "Geometric(p)": (lambda z: laws.Geometric(z.sigmoid()), COUNT % 4),
    "Geometrics": (lambda z: laws.Independent(laws.Geometric(logits=three(z)), 1), MASSES),
    "NegativeBinomial": (lambda z: laws.NegativeBinomial(torch.tensor(5.0), logits=z), COUNT),
    "Poisson": (lambda z: laws.Poisson(z.exp()), COUNT),
    "Categorical": (lambda z: laws.Categorical(logits=three(z)), COUNT % 3),
    "OneHotCategorical": (lambda z: laws.OneHotCategorical(logits=three(z)), torch.eye(3).double()[COUNT.long() % 3]),
    "Multinomial": (lambda z: laws.Multinomial(4, logits=three(z)), MASSES),
    "Normal": (lambda z: laws.Normal(z, z.exp()), POSITIVE),
    "StudentT": (lambda z: laws.StudentT(z.exp(), z, 1.0), POSITIVE),
    "Cauchy": (lambda z: laws.Cauchy(z, 1.0), POSITIVE),
    "Laplace": (lambda z: laws.Laplace(z, 1.0), POSITIVE),
    "Gumbel": (lambda z: laws.Gumbel(z, 1.0), POSITIVE),
    "LogNormal": (lambda z: laws.LogNormal(z, 1.0), POSITIVE),
    "HalfNormal": (lambda z: laws.HalfNormal(z.exp()), POSITIVE),
    "HalfCauchy": (lambda z: laws.HalfCauchy(z.exp()), POSITIVE),
    "Gamma": (lambda z: laws.Gamma(z.exp(), 1.0), POSITIVE),
    "InverseGamma": (lambda z: laws.InverseGamma(z.exp(), torch.tensor(1.0)), POSITIVE),
    "Exponential": (lambda z: laws.Exponential(z.exp()), POSITIVE),
    "Weibull": (lambda z: laws.Weibull(z.exp(), 2.0), POSITIVE),
    "Chi2": (lambda z: laws.Chi2(z.exp()), POSITIVE),
    "FisherSnedecor": (lambda z: laws.FisherSnedecor(z.exp(), torch.tensor(3.0)), POSITIVE),
    "Pareto": (lambda z: laws.Pareto(torch.tensor(0.1), z.exp()), POSITIVE),
    "Uniform": (lambda z: laws.Uniform(0.0, 3 + z.exp()), POSITIVE),
    "Beta": (lambda z: laws.Beta(z.exp(), 2.0), INSIDE),
    "Kumaraswamy": (lambda z: laws.Kumaraswamy(z.exp(), torch.tensor(2.0)), INSIDE),
    "ContinuousBernoulli": (lambda z: laws.ContinuousBernoulli(logits=z), INSIDE),
    "RelaxedBernoulli": (lambda z: laws.RelaxedBernoulli(torch.tensor(0.5), logits=z), INSIDE),
    "VonMises": (lambda z: laws.VonMises(z, torch.tensor(2.0)), PLANE[:, 1]),
    "Dirichlet": (lambda z: laws.Dirichlet(three(z).exp()), SIMPLEX),
    "MultivariateNormal": (lambda z: laws.MultivariateNormal(z.expand(2), UNIT), PLANE),
    "LowRankMultivariateNormal": (
        lambda z: laws.LowRankMultivariateNormal(z.expand(2), UNIT[:, :1], torch.ones(2).double()),
        PLANE,
    ),
    "Mixture": (
        lambda z: laws.MixtureSameFamily(
            laws.Categorical(torch.ones(2)), laws.Normal(torch.stack([z, -z]), torch.ones(2))
        ),
        POSITIVE,
    ),
}  # fmt: skip
FAST = ("Geometric(p)", "Multinomial")


def with_likelihood(law: Callable[[Tensor], laws.Distribution]) -> vi_core.BayesianModel:
    class One(vi_core.BayesianModel):
        def prior(self, data: Any) -> Iterator[Any]:
            yield "z", laws.Normal(0.0, 1.0)

        def likelihood(self, z: Any, data: Any) -> Any:
            return law(z["z"])

    return One()


def trained(model: vi_core.BayesianModel, y: Tensor, execution: str, estimator: str = "pathwise") -> tuple[Tensor, str]:
    """Parameters after four steps, and how they were made."""
    torch.manual_seed(1)
    loaded = column_data({"y": y}, "drawn")
    config = {
        "dataset": InMemory(loaded, batch_size=4),
        "model": model,
        "family": part("family", "full_rank_normal"),
        "bound": part("bound", "elbo"),
        "estimator": part("estimator", estimator, num_samples=4),
        "optimizer": part("optimizer", "adam", lr=0.05),
        "trainer": part("trainer", "default", steps=4, eval_every=0, execution=execution),
        "replicates": 2,
    }
    generator = torch.Generator().manual_seed(1)
    problem = assemble(config, torch.device("cpu"), torch.float64, generator, Loaded(loaded, loaded.checksum))
    run = Run(config, problem)
    run.loop.run()
    return torch.cat([value.detach().flatten() for value in problem.family.parameters()]), run.loop.execution.used


def replayed(make: Callable[[], vi_core.BayesianModel], y: Tensor) -> bool:
    """Whether replayed steps are eager ones, and are made at all."""
    (eager, _), (found, used) = (trained(make(), y, execution) for execution in ("eager", "replay"))
    return used == "replay" and bool(eager.isfinite().all()) and torch.equal(eager, found)


@pytest.mark.parametrize("name", ["Bernoulli", "Geometric", "Geometric(p)", "Geometrics", "Multinomial"])
def test_own_forms_of_densities_are_those_of_torch(name: str) -> None:
    make, y = LIKELIHOODS[name]
    z = torch.linspace(-3, 3, 7, dtype=torch.float64)
    wanted = torch.stack([make(one).log_prob(y) for one in z])
    torch.testing.assert_close(torch.stack([log_density(make(one), y) for one in z]), wanted)
    impossible = laws.Multinomial(4, logits=torch.tensor([0.0, 0.0, -torch.inf]))
    assert log_density(impossible, torch.tensor([1.0, 3.0, 0.0])).isfinite()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in LIKELIHOODS]
)
def test_a_law_as_likelihood_is_replayed(name: str) -> None:
    law, y = LIKELIHOODS[name]
    assert replayed(lambda: with_likelihood(law), y)


@pytest.mark.slow
@pytest.mark.parametrize("name", LAWS)
def test_a_law_as_prior_is_replayed(name: str) -> None:
    assert replayed(lambda: with_prior(LAWS[name][0]()), torch.linspace(-1, 2, ROWS).double())
