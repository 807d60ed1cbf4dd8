"""Rao–Blackwellisation: the blankets against reachability and autograd, the gradient against exact ones, and where it
gains and where it does not. `test_estimators.py` has Normal–Gamma in every parametrisation.

Limits are `oracles.limit`: one false alarm in a million runs of the whole suite. Power, in 99 of 100 runs: a mean of
4,000 samples that is off by 0.141 standard deviations of one (`oracles.smallest_shift`). Each term that a blanket
could forget is a larger effect, and asserted to be found. Noise is compared with its measured value to 10 %, over four
standard errors of 300 replicates: a noise that is off by a fifth is found.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests import fakes, oracles
from vi_core.bounds.base import Bound
from vi_core.bounds.elbo import ELBO, IWELBO
from vi_core.datasets.synthetic import GaussianNetworkDraws, NormalDraws
from vi_core.distributions import supports
from vi_core.distributions.transforms import Exponential
from vi_core.estimators.score_function import scopes
from vi_core.estimators.score_function.coefficients import Coefficient, LeaveOneOut, NoControl
from vi_core.estimators.score_function.estimator import ScoreFunction, inner_product, per_sample_scores
from vi_core.estimators.score_function.scopes import (
    Blanket,
    Everything,
    MarkovBlanket,
    Scope,
    markov_blankets,
    with_descendants,
)
from vi_core.families.amortized.normal import AmortizedNormal
from vi_core.families.base import Family
from vi_core.families.mean_field import MeanField
from vi_core.families.normals import FullRankNormal
from vi_core.models.autoencoders.vae import VAE
from vi_core.models.base import Model
from vi_core.models.conjugate.gamma import GammaLikelihood
from vi_core.models.conjugate.gaussian_network import GaussianNetwork
from vi_core.models.conjugate.normal_gamma import NormalGamma
from vi_core.types import Latent, detached

R = 4000
LIMIT = oracles.limit(R)
STRUCTURED = {"loc": 1.7, "precision_ratio": 7.0, "concentration": 5.0, "rate": 12.0}
FACTORIZED = {"loc": 1.7, "scale": 0.6, "concentration": 5.0, "rate": 12.0}


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    torch.manual_seed(20241)
    torch.set_default_dtype(torch.float64)
    yield
    scopes.membership.cache_clear()


# --- blankets -------------------------------------------------------------------------------------------------------


def test_blankets_of_the_network_are_those_of_the_question() -> None:
    """The reports print z's: p(z | v) and, which 000 writes without its product, every p(x_n | z, y_n)."""
    model = GaussianNetwork(2)
    found = markov_blankets(model.scopes, dict.fromkeys(model.latents, frozenset[str]()))
    assert found == {
        "v": Blanket(("v", "z"), ("v",)),
        "z": Blanket(("z", "x_1", "x_2"), ("z",)),
        "w_1": Blanket(("w_1", "y_1", "y_2"), ("w_1",)),
        "w_2": Blanket(("w_2", "y_1", "y_2"), ("w_2",)),
        "y_1": Blanket(("y_1", "x_1"), ("y_1",)),
        "y_2": Blanket(("y_2", "x_2"), ("y_2",)),
    }


def test_an_edge_in_q_brings_the_descendants() -> None:
    q = {"mu": frozenset({"tau"}), "tau": frozenset[str]()}
    graph = {"likelihood": frozenset({"mu", "tau"}), "prior_mu": frozenset({"mu"}), "prior_tau": frozenset({"tau"})}
    assert markov_blankets(graph, q) == {
        "mu": Blanket(("likelihood", "prior_mu"), ("mu",)),
        "tau": Blanket(("likelihood", "prior_mu", "prior_tau"), ("mu", "tau")),
    }


def reachable(edges: np.ndarray) -> np.ndarray:
    """Which of L nodes a walk along `edges` (L, L), from row to column, of any length reaches."""
    size = len(edges)
    return np.linalg.matrix_power(np.eye(size) + edges, size) > 0


@pytest.mark.parametrize("seed", range(20))
def test_blankets_are_reachability_on_random_graphs(seed: int) -> None:
    """A term stays if a walk in q leads from the latent to something that it mentions."""
    random = np.random.default_rng(seed)
    size, names = 6, [f"l{i}" for i in range(6)]
    edges = np.triu(random.random((size, size)) < 0.3, k=1)
    mentions = random.random((8, size)) < 0.3
    parents = {name: frozenset(names[j] for j in np.flatnonzero(edges[:, i])) for i, name in enumerate(names)}
    graph = {f"f{a}": frozenset(names[j] for j in np.flatnonzero(row)) for a, row in enumerate(mentions)}
    reach, terms = reachable(edges), edges.T | np.eye(size, dtype=bool)
    for i, (name, found) in enumerate(markov_blankets(graph, parents).items()):
        assert found.factors == tuple(f"f{a}" for a in range(8) if (mentions[a] & reach[i]).any()), name
        assert found.terms == tuple(names[j] for j in range(size) if (terms[j] & reach[i]).any()), name


MODELS: dict[str, Callable[[], tuple[Model, Any]]] = {
    "gaussian_network": lambda: (GaussianNetwork(3), GaussianNetworkDraws(num_points=3).load().train.double()),
    "normal_gamma": lambda: (NormalGamma(), NormalDraws(num_points=5).load().train.double()),
    "gamma": lambda: (GammaLikelihood(), NormalDraws(num_points=5).load().train.double().exp()),
}


@pytest.mark.parametrize("name", MODELS)
def test_factors_mention_what_they_depend_on(name: str) -> None:
    """By autograd: a factor that names a latent too few would bias every blanket."""
    model, x = MODELS[name]()
    z = {latent: torch.rand(1, 1, 1).add(0.5).requires_grad_() for latent in model.latents}
    for value, mentioned in model.factors(z, model.summarize(x)).values():
        slopes = torch.autograd.grad(value.sum(), list(z.values()), allow_unused=True, retain_graph=True)
        assert {n for n, s in zip(z, slopes, strict=True) if s is not None and bool(s.any())} == mentioned


# --- the network's own answers --------------------------------------------------------------------------------------

SCALES = {"v_scale": 0.7, "z_scale": 1.3, "w_scale": 0.9, "y_scale": 0.6, "x_scale": 1.1}
THREE = torch.tensor([0.3, -1.1, 2.0], dtype=torch.float64)


def written_out(u: Tensor) -> Tensor:
    """log p(x, v, z, w_1, w_2, y) at u (..., 7) and `THREE` data, from the definition of the model."""
    s, normal = SCALES, torch.distributions.Normal
    v, z, w_1, w_2, y = u[..., 0], u[..., 1], u[..., 2], u[..., 3], u[..., 4:]
    mean_y = w_1.unsqueeze(-1) + w_2.unsqueeze(-1) * torch.tensor([-1.0, 0.0, 1.0])
    value = normal(0.0, s["v_scale"]).log_prob(v) + normal(v, s["z_scale"]).log_prob(z)
    value = value + normal(0.0, s["w_scale"]).log_prob(w_1) + normal(0.0, s["w_scale"]).log_prob(w_2)
    value = value + normal(mean_y, s["y_scale"]).log_prob(y).sum(-1)
    return value + normal(z.unsqueeze(-1) + y, s["x_scale"]).log_prob(THREE).sum(-1)


def scaled_network() -> tuple[GaussianNetwork, Any]:
    """Three points and scales that all differ."""
    model = GaussianNetwork(3, **SCALES)
    return model, model.summarize(THREE)


def test_network_log_joint_and_factors() -> None:
    model, x = scaled_network()
    z = {name: torch.randn(4, 2, 1) for name in model.latents}
    expected = written_out(torch.stack(list(z.values()), dim=-1))
    torch.testing.assert_close(model.log_joint(z, x), expected)
    torch.testing.assert_close(sum(value for value, _ in model.factors(z, x).values()), expected)


def test_network_expected_bound_is_a_quadrature_and_update_its_optimum() -> None:
    """Two Gauss–Hermite nodes in each direction integrate a quadratic form exactly."""
    model, x = scaled_network()
    params = {name: {"loc": torch.randn(1, 1), "scale": torch.rand(1, 1) + 0.3} for name in model.latents}
    loc, scale = (torch.stack([group[key][0, 0] for group in params.values()]) for key in ("loc", "scale"))
    nodes, weights = oracles.hermite(len(params), 2)
    entropy = torch.distributions.Normal(loc, scale).entropy().sum()
    expected = (weights * written_out(loc + scale * nodes)).sum() + entropy
    torch.testing.assert_close(model.expected_bound(params, x).squeeze(), expected)
    for block in params:
        params[block] = {k: v.detach().requires_grad_() for k, v in model.update(block, params, x).items()}
        slopes = torch.autograd.grad(model.expected_bound(params, x).sum(), list(params[block].values()))
        assert max(float(slope.abs()) for slope in slopes) < 1e-12


def test_network_evidence_and_posterior() -> None:
    """From the joint Normal of latents and data, whose moments come from the Hessian of the density written out."""
    model, x = scaled_network()
    found = model.exact(x)
    zero = torch.zeros(7)
    precision, slope = torch.func.hessian(written_out)(zero).neg(), torch.func.grad(written_out)(zero)
    mean, covariance = torch.linalg.solve(precision, slope), torch.linalg.inv(precision)
    evidence = written_out(mean) + 0.5 * (7 * math.log(2 * math.pi) - torch.logdet(precision))
    assert found["log_evidence"] == pytest.approx(float(evidence), abs=1e-10)
    for i, name in enumerate(model.latents):
        assert found[name] == pytest.approx(float(mean[i]), abs=1e-10)
        assert found[f"{name}.std"] == pytest.approx(float(covariance[i, i]) ** 0.5, abs=1e-10)


# --- gradients ------------------------------------------------------------------------------------------------------


def score(coefficient: Coefficient, scope: Scope, num_samples: int = 5) -> ScoreFunction:
    return ScoreFunction(num_samples=num_samples, coefficient=coefficient, scope=scope)


def network_family(model: GaussianNetwork, loc: float | Tensor, scale: float | Tensor, replicates: int) -> MeanField:
    """Every replicate at the same Normals."""
    family = MeanField(model.latents, replicates, positive=Exponential())
    locs, scales = (torch.as_tensor(value).expand(len(model.latents)) for value in (loc, scale))
    groups = zip(model.latents, locs, scales, strict=True)
    full = (replicates, 1)
    family.assign({name: {"loc": m.expand(full), "scale": s.expand(full)} for name, m, s in groups})
    return family


def draws(estimator: ScoreFunction, model: Model, family: Family, x: Any) -> Tensor:
    """Independent gradients in stored parameters, (R, P)."""
    (raw,) = family.parameters()
    (gradient,) = torch.autograd.grad(estimator(model, family, ELBO(), x).surrogate.sum(), raw)
    return gradient.squeeze(1)


def discrepancy(estimator: ScoreFunction, model: Any, family: Family, x: Any) -> float:
    """Largest standardised error of the mean gradient, against autograd of the closed-form ELBO."""
    (raw,) = family.parameters()
    (exact,) = torch.autograd.grad(model.expected_bound(family.variational(), x).sum(), raw)
    return oracles.max_z(draws(estimator, model, family, x), exact[0, 0])


PROBLEMS: dict[str, Callable[[], tuple[Model, Family, Any]]] = {
    "network": lambda: (*scaled_network()[:1], network_family(scaled_network()[0], 0.4, 0.8, R), scaled_network()[1]),
    "mean field": lambda: (NormalGamma(), fakes.normal_gamma_family(FACTORIZED, R), statistics()),
    "structured": lambda: (NormalGamma(), fakes.normal_gamma_family(STRUCTURED, R), statistics()),
}


def statistics() -> Any:
    return NormalGamma().summarize(NormalDraws(num_points=10).load().train.double())


@pytest.mark.parametrize("coefficient", [NoControl(), LeaveOneOut()])
@pytest.mark.parametrize("problem", PROBLEMS)
def test_unbiased(problem: str, coefficient: Coefficient) -> None:
    model, family, x = PROBLEMS[problem]()
    assert discrepancy(score(coefficient, MarkovBlanket(), 8), model, family, x) < LIMIT


def without_own_term(graph: scopes.Graph, parents: scopes.Graph) -> dict[str, Blanket]:
    return {name: kept._replace(terms=()) for name, kept in markov_blankets(graph, parents).items()}


def without_last_factor(graph: scopes.Graph, parents: scopes.Graph) -> dict[str, Blanket]:
    return {name: Blanket(kept.factors[:-1], kept.terms) for name, kept in markov_blankets(graph, parents).items()}


def without_descendants(graph: scopes.Graph, parents: scopes.Graph) -> dict[str, Blanket]:
    return markov_blankets(graph, dict.fromkeys(parents, frozenset[str]()))


def without_terms_of_descendants(graph: scopes.Graph, parents: scopes.Graph) -> dict[str, Blanket]:
    return {name: kept._replace(terms=(name,)) for name, kept in markov_blankets(graph, parents).items()}


@pytest.mark.parametrize(
    ("problem", "broken"),
    [
        ("network", without_own_term),
        ("network", without_last_factor),
        ("mean field", without_own_term),
        ("structured", without_own_term),
        ("structured", without_last_factor),
        ("structured", without_descendants),
        ("structured", without_terms_of_descendants),
    ],
)
def test_a_blanket_that_forgets_is_caught(
    problem: str, broken: Callable[..., dict[str, Blanket]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scopes, "markov_blankets", broken)
    scopes.membership.cache_clear()
    model, family, x = PROBLEMS[problem]()
    assert discrepancy(score(LeaveOneOut(), MarkovBlanket(), 8), model, family, x) > LIMIT


@pytest.mark.parametrize("bound", [ELBO(), IWELBO()])
@pytest.mark.parametrize("values", [FACTORIZED, STRUCTURED])
def test_everything_is_the_plain_estimator_to_the_last_bit(values: dict[str, float], bound: Bound) -> None:
    """Against the estimator as it is written without scopes: one log w for all scores."""
    model, family, x = NormalGamma(), fakes.normal_gamma_family(values, 7), statistics()
    (raw,) = family.parameters()
    state = torch.get_rng_state()
    found = score(NoControl(), Everything())(model, family, bound, x)
    torch.set_rng_state(state)
    params = family.variational()
    z = family.distribution(detached(params)).sample(5)
    log_q, scores = per_sample_scores(family, params, z)
    log_w = model.log_joint(z, x) - log_q
    signal = 5 * bound.signal(log_w.detach())
    plain = inner_product(params, ((signal - 0.0) * scores).sum(dim=1) * (1 / 5))
    assert torch.equal(found.bound, bound(log_w))
    gradients = (torch.autograd.grad(value.sum(), raw)[0] for value in (found.surrogate, plain))
    assert torch.equal(*gradients)


def test_one_local_latent_keeps_everything() -> None:
    """A variational autoencoder has one node: the same gradient of encoder and decoder, and the same bound."""
    model = VAE(6, latent_dim=2, hidden=[4], activation="tanh")
    family = AmortizedNormal(model.latents, 1, 6, hidden=[4], activation="tanh")
    weights, images = [*family.parameters(), *model.parameters()], torch.rand(3, 6).round()
    found = []
    for scope in (Everything(), MarkovBlanket()):
        torch.manual_seed(1)
        estimate = score(LeaveOneOut(), scope)(model, family, ELBO(), images)
        found.append([estimate.bound, *torch.autograd.grad(estimate.surrogate.sum(), weights)])
    for first, second in zip(*found, strict=True):
        torch.testing.assert_close(first, second)


def test_vectors_are_one_node() -> None:
    """A latent vector and a scalar: the signals follow the scalars of `flatten`."""
    params = {"a": {"loc": torch.zeros(2, 1, 3), "scale": torch.zeros(2, 1, 3)}, "b": {"loc": torch.zeros(2, 1)}}
    by_group = MeanField({"a": Latent(supports.real, (3,)), "b": Latent(supports.real)}, positive=Exponential())
    assert scopes.owners(by_group, params, 2) == ("a",) * 6 + ("b",)
    by_row = FullRankNormal({"a": Latent(supports.real, (2,)), "b": Latent(supports.real)})
    assert scopes.owners(by_row, by_row.variational(), 2) == ("a", "a", "b") * 2 + ("a", "b", "b")
    assert with_descendants("a", {"a": frozenset(), "b": frozenset({"a"}), "c": frozenset({"b"})}) == {"a", "b", "c"}


# --- where it gains -------------------------------------------------------------------------------------------------


def noise(model: Model, family: Family, x: Any, coefficient: Coefficient, scope: Scope) -> float:
    """√tr Cov of the gradient at K = 50."""
    return float(draws(score(coefficient, scope, 50), model, family, x).var(dim=0).sum().sqrt())


def test_noise_on_the_network() -> None:
    """Against NumPy code of its own with 3,000 repetitions: at the start it gains with and without control variates; at
    the optimum, where log w is nearly constant, control variates alone are better. The tolerance is over four
    standard errors.
    """
    model, data = GaussianNetwork(20), GaussianNetworkDraws().load().train.double()
    x = model.summarize(data)
    mean, factor = model.posterior(x)
    places = {"start": (0.0, 1.0), "optimum": (mean, factor.norm(dim=0).reciprocal())}
    measured = {
        "start": {(NoControl, Everything): 120.5, (NoControl, MarkovBlanket): 39.0,
                  (LeaveOneOut, Everything): 34.9, (LeaveOneOut, MarkovBlanket): 16.9},
        "optimum": {(NoControl, Everything): 69.4, (NoControl, MarkovBlanket): 32.9,
                    (LeaveOneOut, Everything): 2.50, (LeaveOneOut, MarkovBlanket): 3.49},
    }  # fmt: skip
    for where, (loc, scale) in places.items():
        family = network_family(model, loc, scale, 300)
        for (coefficient, scope), expected in measured[where].items():
            assert noise(model, family, x, coefficient(), scope()) == pytest.approx(expected, rel=0.1), (where, scope)


def test_normal_gamma_gains_nothing() -> None:
    """Only the prior and the q of one latent leave; the likelihood, which makes the noise, mentions both."""
    model, x = NormalGamma(), NormalGamma().summarize(NormalDraws().load().train.double())
    start = {"loc": 0.0, "scale": 1.0, "concentration": 1.0, "rate": 1.0}
    for coefficient in (NoControl(), LeaveOneOut()):
        found = []
        for scope in (Everything(), MarkovBlanket()):
            torch.manual_seed(2)
            found.append(noise(model, fakes.normal_gamma_family(start, 1000), x, coefficient, scope))
        assert found[1] == pytest.approx(found[0], rel=2e-3)
