"""The KL of models of one's own in closed form: against torch's of assembled Normals, exact bounds, and refusals.

A linear regression with a known deviation has E_q[log p(y | z)] in closed form, so that the gradient of the ELBO is
known too. False alarms of the comparison of means: `oracles.limit`, one in a million runs of the suite.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import HalfNormal, Independent, LogNormal, MultivariateNormal, Normal, StudentT, kl_divergence

import vi_core
from tests import oracles
from tests.contracts.test_replayed_laws import trained
from tests.unit.test_families import Grouped
from tests.unit.test_unconstrained import FAMILIES, family_of, law_of
from vi_core.algorithms.anchor import Anchored
from vi_core.bounds.elbo import ELBO, IWELBO
from vi_core.errors import LabError, Unsupported
from vi_core.estimators.closed_form_kl import ClosedFormKL
from vi_core.families.flow import Flow
from vi_core.families.laplace import Laplace
from vi_core.families.mixture import MixtureOfNormals
from vi_core.families.normals import FullRankNormal, LowRank, MeanFieldNormal
from vi_core.models.bayesian.gaussian_process import GaussianProcess
from vi_core.models.bayesian.regression import LinearRegression
from vi_core.models.conjugate.normal_gamma import NormalGamma

N, R = 12, 3
HOW = ("none", "diagonal", "full")


@pytest.fixture(autouse=True)
def _double() -> None:
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)


def covariance(size: int) -> Tensor:
    root = torch.randn(size, size, generator=torch.Generator().manual_seed(size), dtype=torch.float64)
    return root @ root.T + torch.eye(size)


TWO, THREE = covariance(2), covariance(3)


class Alone(vi_core.BayesianModel):
    """Independent numbers, some in a matrix, one by a function that reads no latent."""

    def prior(self, data: Any) -> Iterator[Any]:
        yield "a", Normal(0.5, 2.0)
        yield "b", Independent(Normal(torch.tensor([[0.1, -1.0], [2.0, 0.0]]), torch.tensor([0.3, 1.7])), 2)
        yield "c", lambda z: Normal(data["middle"], 0.7)

    def likelihood(self, z: Any, data: Any) -> Any:
        return Normal(z["a"] + data["x"] @ z["b"].sum(dim=0) + z["c"], 0.8)


class Together(Alone):
    """The same latents, with correlations: inside rows of the matrix, and of two more latents."""

    def prior(self, data: Any) -> Iterator[Any]:
        yield "a", Normal(0.5, 2.0)
        yield "b", MultivariateNormal(torch.tensor([[0.1, -1.0], [2.0, 0.0]]), TWO)
        yield "c", Independent(Normal(data["middle"], 0.7), 0)
        yield "d", MultivariateNormal(torch.ones(3), THREE)


def data(replicates: int | None = None) -> dict[str, Tensor]:
    shape = (N,) if replicates is None else (N, replicates)
    middle = torch.tensor(0.4) if replicates is None else torch.tensor([[0.4, -0.2, 1.0]])
    return {"x": torch.randn(N, 2), "y": torch.randn(shape), "middle": middle}


def observed(model: Any, **own: Tensor) -> tuple[Any, dict[str, Tensor]]:
    known = data() | own
    model.observe(known, N)
    return model, known


def joint_prior(model: vi_core.BayesianModel) -> MultivariateNormal:
    """The prior of all latents by hand, side by side."""
    laws: list[Any] = [law({}) if callable(law) else law for law in model.laws.values()]
    loc = torch.cat([law.mean.flatten() for law in laws])
    blocks = []
    for law in laws:
        whole = isinstance(law, MultivariateNormal)
        blocks += (
            [*law.covariance_matrix.reshape(-1, *law.event_shape * 2)] if whole else [law.variance.flatten().diag()]
        )
    return MultivariateNormal(loc, torch.block_diag(*blocks))


# --- values ---------------------------------------------------------------------------------------------------------


class Grouped2(Grouped):
    """Structured, with groups of these latents."""

    def __init__(self, *arguments: Any, **settings: Any):
        super().__init__(*arguments, **{"groups": [["a", "c"]], **settings})


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("kind", [*FAMILIES, Grouped2])
@pytest.mark.parametrize("prior", [Alone, Together])
def test_the_kl_is_torch_s_of_the_joint_normals(prior: type, kind: type, how: str) -> None:
    model, _ = observed(prior())
    family = family_of(kind, how, R, model.latents)
    found = ClosedFormKL().rate(model, family, family.variational())
    assert found.shape == (R, 1)
    for r in range(R):
        if kind is Grouped2:
            q: Any = family.distribution(family.variational())
            mean, spread = q.coordinate_moments()
            law = MultivariateNormal(mean[r, 0], spread[r, 0])
        else:
            law = law_of(family, r)
        torch.testing.assert_close(found[r, 0], kl_divergence(law, joint_prior(model)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("prior", [Alone, Together])
def test_replicates_with_data_of_their_own_have_priors_of_their_own(prior: type) -> None:
    model, known = prior(), data(R)
    model.per_replicate = frozenset({"y", "middle"})
    model.observe(known, N)
    family = family_of(FullRankNormal, "full", R, model.latents)
    found = ClosedFormKL().rate(model, family, family.variational())
    likelihood = model.log_likelihood(z := family.distribution(family.variational()).sample(2), known)
    for r in range(R):
        single = prior()
        own = known | {"y": known["y"][:, r], "middle": known["middle"][0, r]}
        single.observe(own, N)
        torch.testing.assert_close(found[r, 0], kl_divergence(law_of(family, r), joint_prior(single)))
        alone = single.log_likelihood({name: value[:, r : r + 1] for name, value in z.items()}, own)
        torch.testing.assert_close(likelihood[:, r : r + 1], alone)


def test_thousands_of_latents_need_no_matrix() -> None:
    """Of a low rank and of none: a matrix of 20,000 × 20,000 numbers would take 3 GB."""
    model, _ = observed(Wide())
    for kind in (MeanFieldNormal, LowRank):
        family = kind(model.latents, 1)
        params = family.variational()
        z, q = (law := family.distribution(params)).sample(200), law
        value = ClosedFormKL().rate(model, family, params)
        draws = q.log_prob(z) - Normal(0.0, 2.0).log_prob(z["w"]).sum(dim=-1)
        assert oracles.max_z(draws[:, 0].detach(), value[0].detach()) < oracles.limit(200)


class Wide(vi_core.BayesianModel):
    """Many numbers."""

    def prior(self, data: Any) -> Iterator[Any]:
        yield "w", Normal(0.0, 2.0).expand([20_000])

    def likelihood(self, z: Any, data: Any) -> Any:
        return Normal(data["x"] @ z["w"][:2], 1.0)


# --- estimates ------------------------------------------------------------------------------------------------------


def regression() -> tuple[LinearRegression, dict[str, Tensor]]:
    x = torch.randn(N, 2) + 0.5
    model, known = LinearRegression(sigma=3.0, intercept_scale=0.2, slope_scale=0.1), {"x": x, "y": torch.randn(N)}
    model.observe(known, N)
    return model, known


def exact_elbo(law: MultivariateNormal, known: dict[str, Tensor], weight: float = 1.0) -> Tensor:
    """The ELBO of the regression for q = N(m, C), with |y − Am|² + tr(A C Aᵀ) as E|y − Au|²; and a weight of the KL."""
    design = torch.cat([torch.ones(N, 1), known["x"]], dim=1)
    squares = (known["y"] - design @ law.mean).square().sum() + (design @ law.covariance_matrix @ design.T).trace()
    fit = -0.5 * squares / 9 - N * (torch.tensor(3.0).log() + 0.5 * oracles.LOG_2PI)
    prior = MultivariateNormal(torch.zeros(3), torch.tensor([0.6, 0.3, 0.3]).square().diag())
    return fit - weight * kl_divergence(law, prior)


def value_and_slope(family: Any, known: dict[str, Tensor], weight: float = 1.0) -> Tensor:
    """The ELBO's gradient in the stored numbers and, last, its value, (P + 1,)."""
    bound = exact_elbo(law_of(family, 0), known, weight)
    (slope,) = torch.autograd.grad(bound, family.packed.raw)
    return torch.cat([slope.flatten(), bound.detach()[None]])


@pytest.mark.parametrize("kind", FAMILIES)
def test_value_and_gradient_are_exact_in_expectation(kind: type) -> None:
    """By 40,000 replicates with one draw each. Power: a KL that counts 1.2 times is found."""
    (model, known), draws = regression(), 40_000
    one, many = family_of(kind, "full", 1, model.latents), kind(model.latents, draws, preconditioner="full")
    with torch.no_grad():
        many.packed.raw.copy_(one.packed.raw.expand_as(many.packed.raw))  # type: ignore[attr-defined]
        many.place(one.origin, one.factor)
    estimate = ClosedFormKL()(model, many, ELBO(), known)
    (slope,) = torch.autograd.grad(estimate.surrogate.sum(), many.packed.raw)
    found = torch.cat([slope.flatten(1), estimate.bound], dim=1)
    assert oracles.max_z(found, value_and_slope(one, known)) < oracles.limit(draws)
    assert oracles.max_z(found, value_and_slope(one, known, 1.2)) > oracles.limit(draws)
    torch.testing.assert_close(estimate.bound, -estimate.terms["rate"] - estimate.terms["distortion"])


def test_the_likelihood_is_the_joint_without_the_prior() -> None:
    """Of all data, and of a minibatch, whose log-likelihood counts N/B times; the control variate has no prior."""
    model, known = observed(Together())
    family = family_of(FullRankNormal, "full", R, model.latents)
    z = family.distribution(family.variational()).sample(4)
    prior = sum(value for name, (value, _) in model.factors(z, known).items() if name != "y")
    torch.testing.assert_close(model.log_likelihood(z, known), model.log_joint(z, known) - prior)
    halves = [{name: v[half] if v.dim() else v for name, v in known.items()} for half in (slice(0, 6), slice(6, 12))]
    each = torch.stack([model.log_likelihood(z, half) for half in halves])
    torch.testing.assert_close(each.mean(dim=0), model.log_likelihood(z, known))
    anchor = Anchored(model, family)
    anchor.settle((half, 0.5) for half in halves)
    each = torch.stack([anchor.log_likelihood(z, half) for half in halves])
    torch.testing.assert_close(each.mean(dim=0), model.log_likelihood(z, known))
    torch.testing.assert_close(each[0], anchor.log_joint(z, halves[0]) - prior)
    for target in (model, anchor):
        ours = ClosedFormKL(num_samples=3)(target, family, ELBO(), halves[0])
        assert ours.bound.shape == (R, 1) and ours.terms["rate"].equal(
            ClosedFormKL().rate(model, family, family.variational())
        )


# --- fits -----------------------------------------------------------------------------------------------------------


def table(rows: int = 40) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(rows, 2))
    return {"x": x, "y": x @ [1.0, -0.5] + 0.5 * rng.normal(size=rows)}


@pytest.mark.parametrize("settings", [{"family": "low_rank_normal"}, {"batch_size": 10}])
def test_a_fit_reaches_the_evidence(settings: dict[str, Any]) -> None:
    model = LinearRegression(sigma=0.5)
    fit = vi_core.fit(model, table(), estimator="closed_form_kl", replicates=2, steps=300, **settings)
    gap = model.exact(fit.data)["log_evidence"] - fit.elbo.max()
    assert -0.02 < gap < 0.03


def test_data_sets_of_replicates_are_fitted() -> None:
    both = table()
    y = np.stack([both["y"], 1 - both["y"]])
    fit = vi_core.fit(
        LinearRegression(sigma=0.5), both | {"y": y}, estimator="closed_form_kl", per_replicate=["y"], replicates=2,
        steps=200,
    )  # fmt: skip
    for r in range(2):
        exact = LinearRegression(sigma=0.5).exact({"x": torch.from_numpy(both["x"]), "y": torch.from_numpy(y[r])})
        assert abs(exact["log_evidence"] - fit.elbo[r]) < 0.03


class Weights(vi_core.BayesianModel):
    """Correlated latents, and observations alone."""

    def prior(self, data: Any) -> Iterator[Any]:
        yield "w", MultivariateNormal(torch.ones(3), THREE)

    def likelihood(self, z: Any, data: Any) -> Any:
        return Normal(z["w"].sum() + torch.zeros(len(data["y"])), 1.0)


def test_steps_are_replayed() -> None:
    """By minibatches, with the control variate: bit for bit those that are made one by one."""
    y = torch.linspace(-1, 2, 6)
    (eager, _), (found, used) = (trained(Weights(), y, how, "closed_form_kl") for how in ("eager", "replay"))
    assert used == "replay" and torch.equal(eager, found)


# --- refusals -------------------------------------------------------------------------------------------------------


class Heavy(Alone):
    """A law with another one's tails."""

    def prior(self, data: Any) -> Iterator[Any]:
        yield "a", Normal(0.0, 1.0)
        yield "slopes", Independent(StudentT(3.0 * torch.ones(2)), 1)

    def likelihood(self, z: Any, data: Any) -> Any:
        return Normal(z["a"] + data["x"] @ z["slopes"], 1.0)


class Spread(Alone):
    """A positive latent."""

    def prior(self, data: Any) -> Iterator[Any]:
        yield "a", Normal(0.0, 1.0)
        yield "sigma", HalfNormal(1.0)

    def likelihood(self, z: Any, data: Any) -> Any:
        return Normal(z["a"] + 0 * data["x"][:, 0], z["sigma"])


class Logarithmic(Spread):
    """A law that is Normal in unconstrained space, and not in the latent itself."""

    def prior(self, data: Any) -> Iterator[Any]:
        yield "a", Normal(0.0, 1.0)
        yield "sigma", LogNormal(0.0, 1.0)


class Nested(Alone):
    """A mean that is a latent."""

    def prior(self, data: Any) -> Iterator[Any]:
        yield "mu", Normal(0.0, 1.0)
        yield "a", lambda z: Normal(z["mu"], 1.0)

    def likelihood(self, z: Any, data: Any) -> Any:
        return Normal(z["a"] + 0 * data["x"][:, 0], 1.0)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (
            Heavy(),
            "Heavy has no KL in closed form: the prior of 'slopes' is StudentT, not a Normal; use estimator=path",
        ),
        (Spread(), "the prior of 'sigma' is HalfNormal, not a Normal; use estimator=pathwise"),
        (Logarithmic(), "the prior of 'sigma' is LogNormal, not a Normal"),
        (
            Nested(),
            "Nested has no KL in closed form: the prior of 'a' depends on other latents; use estimator=pathwise",
        ),
        (LinearRegression(), "the prior of 'sigma2' is InverseGamma, not a Normal"),
        (GaussianProcess(), "the prior of 'lengthscale' is LogNormal, not a Normal"),
    ],
)
def test_another_prior_is_refused(model: Any, words: str) -> None:
    model, _ = observed(model)
    with pytest.raises(Unsupported, match=words):
        ClosedFormKL().check(model, FullRankNormal(model.latents), ELBO())
    with pytest.raises(LabError, match=words):
        vi_core.fit(model, data(), estimator="closed_form_kl", steps=2)


@pytest.mark.parametrize("kind", [MixtureOfNormals, Flow, Laplace])
def test_another_q_is_refused(kind: type) -> None:
    model, _ = observed(Alone())
    words = f"{kind.__name__} has no KL from a Normal prior in closed form; use family=full_rank_normal, or estimator="
    with pytest.raises(Unsupported, match=words):
        ClosedFormKL().check(model, kind(model.latents, 1), ELBO())


def test_another_bound_or_a_model_without_a_prior_is_refused() -> None:
    model, _ = observed(Alone())
    with pytest.raises(Unsupported, match="is for the ELBO, not for bound=iwelbo"):
        ClosedFormKL().check(model, FullRankNormal(model.latents), IWELBO())
    plain = NormalGamma()
    with pytest.raises(Unsupported, match="NormalGamma and FullRankNormal have no KL in closed form; use estimator="):
        ClosedFormKL().check(plain, FullRankNormal(plain.latents), ELBO())
