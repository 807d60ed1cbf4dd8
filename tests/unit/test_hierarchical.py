"""Layers of latents against an independent implementation: networks by hand, torch.distributions, quadrature.

`log_weights` below shares no line with the library: it takes noise and weights, and returns log w.
"""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch import distributions as reference

from tests import fakes, oracles
from vi_core.bounds.base import Bound
from vi_core.bounds.elbo import ELBO, IWELBO
from vi_core.datasets.base import Data, identity
from vi_core.diagnostics import importance
from vi_core.distributions.transforms import Exponential
from vi_core.errors import LabError
from vi_core.estimators.base import Estimator
from vi_core.estimators.closed_form_kl import ClosedFormKL
from vi_core.estimators.pathwise import Pathwise, StickingTheLanding
from vi_core.estimators.score_function.coefficients import NoControl
from vi_core.estimators.score_function.estimator import ScoreFunction
from vi_core.estimators.score_function.scopes import Everything, MarkovBlanket
from vi_core.families.amortized.normal import AmortizedNormal, AmortizedNormalChain
from vi_core.families.base import Family, VariationalDistribution
from vi_core.families.mean_field import MeanField
from vi_core.models.autoencoders.vae import VAE, HierarchicalVAE
from vi_core.types import Graph, Latents

IMAGES = torch.tensor([[1.0, 0.0, 1.0, 0.25, 0.0], [0.0, 1.0, 1.0, 1.0, 0.0]], dtype=torch.float64)
DRAWS = 120


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(5)


def pair(*dims: int) -> tuple[HierarchicalVAE, AmortizedNormalChain]:
    """A small model and family in float64."""
    widths = [[4], [3, 4], [3]][: len(dims)]
    model = HierarchicalVAE(5, latent_dims=dims, widths=widths).double()
    return model, AmortizedNormalChain(model.latents, 1, 5, widths=widths).double()


def network(module: nn.Module, h: Tensor, detach: bool = False) -> Tensor:
    """A tanh network by hand, from its weights, or from copies without gradient."""
    tensors = [p.detach() if detach else p for p in module.parameters()]
    for i, (weight, bias) in enumerate(zip(tensors[::2], tensors[1::2], strict=True)):
        h = (torch.tanh(h) if i else h) @ weight.mT + bias
    return h


def normal(module: nn.Module, h: Tensor, detach: bool = False) -> reference.Independent:
    loc, log_scale = network(module, h, detach).tensor_split(2, dim=-1)
    return reference.Independent(reference.Normal(loc, log_scale.exp()), 1)


def log_likelihood(model: HierarchicalVAE, z1: Tensor, x: Tensor) -> Tensor:
    logits = network(model.decoder, z1)
    return reference.Independent(reference.Bernoulli(logits=logits, validate_args=False), 1).log_prob(x)


def log_weights(
    model: HierarchicalVAE, family: AmortizedNormalChain, x: Tensor, noise: list[Tensor], landing: bool = False
) -> Tensor:
    """log p(x, z) − log q(z | x) of two layers, (K, B), at noise (K, B, D1) and (K, B, D2).

    With `landing` the weights in log q, and only there, have no gradient.
    """
    up, down = family.upper[0], model.conditionals["z1"]
    q1 = normal(family.encoder, x)
    z1 = q1.mean + q1.stddev * noise[0]
    q2 = normal(up, z1)
    z2 = q2.mean + q2.stddev * noise[1]
    standard = reference.Independent(reference.Normal(torch.zeros_like(z2), 1.0), 1)
    log_p = log_likelihood(model, z1, x) + normal(down, z2).log_prob(z1) + standard.log_prob(z2)
    log_q = normal(family.encoder, x, landing).log_prob(z1) + normal(up, z1, landing).log_prob(z2)
    return log_p - log_q


def draw_noise(seed: int, num_samples: int, x: Tensor, *dims: int) -> list[Tensor]:
    """What the library draws after `seed`, first for z1 and then for z2."""
    torch.manual_seed(seed)
    return [torch.randn(num_samples, len(x), dim, dtype=torch.float64) for dim in dims]


def gradients(value: Tensor, *parts: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(value, [p for part in parts for p in part.parameters()]))


# --- densities ------------------------------------------------------------------------------------------------------


def test_densities() -> None:
    """log p(x, z) and log q(z | x) for shapes (K, R, B), term by term."""
    model, family = pair(3, 2)
    law = family.distribution(family.variational(IMAGES))
    z = law.sample(7)
    assert {name: tuple(value.shape) for name, value in z.items()} == {"z1": (7, 1, 2, 3), "z2": (7, 1, 2, 2)}
    factors, terms = model.factors(z, IMAGES), law.log_prob_terms(z)
    standard = reference.Independent(reference.Normal(torch.zeros(2).double(), 1.0), 1)
    torch.testing.assert_close(factors["likelihood"][0], log_likelihood(model, z["z1"], IMAGES))
    torch.testing.assert_close(factors["z1"][0], normal(model.conditionals["z1"], z["z2"]).log_prob(z["z1"]))
    torch.testing.assert_close(factors["z2"][0], standard.log_prob(z["z2"]))
    torch.testing.assert_close(terms["z1"], normal(family.encoder, IMAGES).log_prob(z["z1"]))
    torch.testing.assert_close(terms["z2"], normal(family.upper[0], z["z1"]).log_prob(z["z2"]))
    assert {name: mentioned for name, (_, mentioned) in factors.items()} == {
        "likelihood": frozenset({"z1"}),
        "z1": frozenset({"z1", "z2"}),
        "z2": frozenset({"z2"}),
    }
    assert family.parents == {"z1": frozenset(), "z2": frozenset({"z1"})}


@pytest.mark.parametrize("dims", [(3,), (3, 2), (3, 2, 1)])
def test_any_number_of_layers(dims: tuple[int, ...]) -> None:
    """Each conditional is that of its own two latents, in p downwards and in q upwards."""
    model, family = pair(*dims)
    law = family.distribution(family.variational(IMAGES))
    z = law.sample(6)
    names = [f"z{i + 1}" for i in range(len(dims))]
    factors, terms = model.factors(z, IMAGES), law.log_prob_terms(z)
    assert (list(terms), set(factors)) == (names, {"likelihood", *names})
    for i, (below, above) in enumerate(pairwise(names)):
        torch.testing.assert_close(factors[below][0], normal(model.conditionals[below], z[above]).log_prob(z[below]))
        torch.testing.assert_close(terms[above], normal(family.upper[i], z[below]).log_prob(z[above]))
        assert (factors[below][1], family.parents[above]) == ({below, above}, {below})
    drawn = {name: tuple(value.shape) for name, value in model.sample_prior(6).items()}
    assert drawn == {name: (6, 1, 1, dim) for name, dim in zip(names, dims, strict=True)}
    assert model.pixel_means(z).shape == (6, 1, 2, 5)


def test_one_layer_is_the_vae() -> None:
    """With the same decoder and the same q, the same log w."""
    model, family = pair(3)
    plain = VAE(5, latent_dim=3, hidden=[4], activation="tanh").double()
    plain.decoder.load_state_dict(model.decoder.state_dict())
    law = family.distribution(family.variational(IMAGES))
    z = law.sample(4)
    torch.testing.assert_close(model.log_joint(z, IMAGES), plain.log_joint({"z": z["z1"]}, IMAGES))
    chain = AmortizedNormalChain(plain.latents, 1, 5, widths=[[4]]).double()
    assert plain.knows(chain.layout)
    assert ClosedFormKL()(plain, chain, ELBO(), IMAGES).bound.shape == (1, 2)


def test_prior_draws_and_moments() -> None:
    """Draws of the prior have the law whose density the factors are: E_p[q/p] = 1. Moments against draws of q."""
    model, family = pair(2, 1)
    with torch.no_grad():
        law = family.distribution(family.variational(IMAGES[:1]))
        z = model.sample_prior(20_000)
        prior = sum(value for name, (value, _) in model.factors(z, IMAGES[:1]).items() if name != "likelihood")
        ratio = (0.5 * (law.log_prob(z) - prior)).squeeze(1).exp()
        swapped = law.sample(20_000)
        back = sum(value for name, (value, _) in model.factors(swapped, IMAGES[:1]).items() if name != "likelihood")
        other = (0.5 * (back - law.log_prob(swapped))).squeeze(1).exp()
        moments = law.moments()
    spread = (ratio.var() / len(ratio) + other.var() / len(other)).sqrt()  # both are ∫ √(p q)
    assert abs(ratio.mean() - other.mean()) < oracles.limit(len(ratio)) * spread
    for name, (mean, deviation) in moments.items():
        draws = swapped[name].squeeze(1)
        torch.testing.assert_close(draws.mean(dim=0), mean.squeeze(0), atol=0.1, rtol=0.1)
        torch.testing.assert_close(draws.std(dim=0), deviation.squeeze(0), atol=0.1, rtol=0.1)


# --- gradients ------------------------------------------------------------------------------------------------------

BOUNDS: list[Bound] = [ELBO(), IWELBO()]


@pytest.mark.parametrize("bound", BOUNDS, ids=lambda bound: bound.name)
@pytest.mark.parametrize("landing", [False, True], ids=["pathwise", "sticking_the_landing"])
def test_differentiated_draws(bound: Bound, landing: bool) -> None:
    """Value and gradient in every weight, at the same noise; the other estimator's gradient is another one."""
    model, family = pair(3, 2)
    noise = draw_noise(1, 6, IMAGES, 3, 2)
    estimator = StickingTheLanding(num_samples=6) if landing else Pathwise(num_samples=6)
    torch.manual_seed(1)
    estimate = estimator(model, family, bound, IMAGES)
    found = gradients(estimate.surrogate.sum(), family, model)
    right, wrong = (bound(log_weights(model, family, IMAGES, noise, way)) for way in (landing, not landing))
    torch.testing.assert_close(estimate.bound.squeeze(0), right.detach())
    torch.testing.assert_close(found, gradients(right.sum(), family, model))
    others = gradients(wrong.sum(), family, model)
    count = len(list(family.parameters()))
    assert all(not torch.allclose(a, b) for a, b in zip(found[:count], others[:count], strict=True))
    torch.testing.assert_close(found[count:], others[count:])


def test_a_density_at_draws_without_gradient_has_one() -> None:
    """What a draw has left behind serves a density only where both have gradients, or neither."""
    _, family = pair(3, 2)
    fresh, drawn = (family.distribution(family.variational(IMAGES)) for _ in range(2))
    z = drawn.sample(6)
    found, right = (gradients(q.log_prob(z).sum(), family) for q in (drawn, fresh))
    assert all(bool(g.any()) for g in right[-6:])
    torch.testing.assert_close(found, right)


@pytest.mark.parametrize("kind", [Pathwise, StickingTheLanding])
def test_one_sample_makes_the_bounds_equal(kind: type[Pathwise] | type[StickingTheLanding]) -> None:
    model, family = pair(3, 2)
    found = []
    for bound in BOUNDS:
        torch.manual_seed(2)
        estimate = kind(num_samples=1)(model, family, bound, IMAGES)
        found.append([estimate.bound, *gradients(estimate.surrogate.sum(), family, model)])
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-12)


def exact_elbo(model: HierarchicalVAE, family: AmortizedNormalChain, points: int = 24) -> Tensor:
    """The ELBO of one-dimensional latents, (B,), by quadrature over the noise; differentiable."""
    nodes, weights = oracles.hermite(2, points)
    noise = [nodes[:, None, i : i + 1].expand(-1, len(IMAGES), -1) for i in range(2)]
    return (weights.unsqueeze(1) * log_weights(model, family, IMAGES, noise)).sum(dim=0)


def estimator(name: str, num_samples: int = 100) -> Estimator:
    """An estimator of the ELBO's gradient."""
    kinds: dict[str, Callable[[], Estimator]] = {
        "pathwise": lambda: Pathwise(num_samples=num_samples),
        "sticking_the_landing": lambda: StickingTheLanding(num_samples=num_samples),
        "score_function": lambda: ScoreFunction(num_samples=num_samples, coefficient=NoControl(), scope=Everything()),
        "rao_blackwell": lambda: ScoreFunction(num_samples=num_samples, coefficient=NoControl(), scope=MarkovBlanket()),
        "without log q": lambda: fakes.MissingLogQ(num_samples),
    }
    return kinds[name]()


def largest_error(name: str, family: AmortizedNormalChain, model: HierarchicalVAE) -> float:
    """The largest standardised error of the mean of many gradients, in every weight."""
    exact = torch.cat([g.flatten() for g in gradients(exact_elbo(model, family).sum(), family, model)])
    draws = []
    for _ in range(DRAWS):
        surrogate = estimator(name)(model, family, ELBO(), IMAGES).surrogate.sum()
        draws.append(torch.cat([g.flatten() for g in gradients(surrogate, family, model)]))
    drawn, moving = torch.stack(draws), exact != 0
    assert not drawn[:, ~moving].any()  # weights of a pixel that no image has
    return oracles.max_z(drawn[:, moving], exact[moving])


@pytest.mark.parametrize("name", ["pathwise", "sticking_the_landing", "score_function", "rao_blackwell"])
def test_gradients_are_unbiased(name: str) -> None:
    model, family = pair(1, 1)
    assert largest_error(name, family, model) < oracles.limit(DRAWS)


class Forgetful(AmortizedNormalChain):
    """A family whose graph has no edge: the blanket of z1 then lacks the term of z2."""

    @property
    def parents(self) -> Graph:
        return {name: frozenset() for name in self.layout}


def test_wrong_gradients_are_caught() -> None:
    model, family = pair(1, 1)
    assert largest_error("without log q", family, model) > oracles.limit(DRAWS)
    forgetful = Forgetful(model.latents, 1, 5, widths=[[4], [3, 4]]).double()
    for parameter in forgetful.upper.parameters():
        parameter.data.mul_(3)  # so that q(z2 | z1) depends on z1
    assert largest_error("rao_blackwell", forgetful, model) > oracles.limit(DRAWS)


# --- the log-likelihood ---------------------------------------------------------------------------------------------


def exact_log_likelihood(model: HierarchicalVAE, points: int = 60) -> Tensor:
    """log p(x) of one-dimensional latents, (B,), by quadrature over the noise of the prior."""
    nodes, weights = oracles.hermite(2, points)
    given = normal(model.conditionals["z1"], nodes[:, :1])
    z1 = given.mean + given.stddev * nodes[:, 1:]
    log_p = log_likelihood(model, z1.unsqueeze(1), IMAGES)
    return (log_p + weights.log().unsqueeze(1)).logsumexp(dim=0)


def data(decode: Callable[[Tensor], Tensor] = identity) -> Data:
    return Data(IMAGES, "drawn", IMAGES, decode=decode)


def likelihood_error(model: HierarchicalVAE, family: Family, shift: float = 0.0) -> float:
    """The largest error of log p(x) in standard errors, which follow from the weights' effective sample size."""
    draws = 10_000
    found = importance.held_out_likelihood(model, family, data(), draws)
    deviation = ((1 / found.ess - 1) / draws).sqrt()
    with torch.no_grad():
        return float(((found.log_likelihood + shift - exact_log_likelihood(model)) / deviation).abs().max())


def test_likelihood(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against quadrature, in one piece and in many, the last of them shorter."""
    model, family = pair(1, 1)
    assert likelihood_error(model, family) < oracles.limit(10_000)
    assert likelihood_error(model, family, 0.2) > oracles.limit(10_000)
    monkeypatch.setattr(importance, "NUMBERS", 4_001 * IMAGES.numel())
    assert likelihood_error(model, family) < oracles.limit(10_000)


def test_chunks_of_the_likelihood_hold_all_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    model, family = pair(1, 1)
    taken, genuine = [], type(family.distribution(family.variational(IMAGES))).sample

    def sample(self: VariationalDistribution, num_samples: int) -> Latents:
        taken.append(num_samples)
        return genuine(self, num_samples)

    monkeypatch.setattr(VariationalDistribution, "sample", sample)
    monkeypatch.setattr(importance, "NUMBERS", 3 * IMAGES.numel())
    importance.held_out_likelihood(model, family, data(), 7)
    assert taken == [3, 3, 1]


def test_an_image_is_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, family = pair(1, 1)
    decoded: list[int] = []

    def decode(rows: Tensor) -> Tensor:
        decoded.append(len(rows))
        return rows

    monkeypatch.setattr(importance, "POINTS", 1)
    monkeypatch.setattr(importance, "NUMBERS", IMAGES[0].numel())
    found = importance.held_out_likelihood(model, family, data(decode), 4)
    assert decoded == [1, 1]
    assert found.log_likelihood.shape == found.ess.shape == (2,)


# --- refusals -------------------------------------------------------------------------------------------------------


def test_what_has_no_meaning_is_refused() -> None:
    model, family = pair(3, 2)
    with pytest.raises(LabError, match="no KL in closed form; use estimator=pathwise"):
        ClosedFormKL().check(model, family, ELBO())
    with pytest.raises(LabError, match=r"model\.widths=\[\[5\]\] must be one list for each of 2 latents"):
        HierarchicalVAE(5, latent_dims=[3, 2], widths=[[5]])
    with pytest.raises(LabError, match=r"family\.widths=\[\[5\], \[0\]\]"):
        AmortizedNormalChain(model.latents, 1, 5, widths=[[5], [0]])
    with pytest.raises(LabError, match=r"model\.latent_dims=\[\]"):
        HierarchicalVAE(5, latent_dims=[], widths=[])
    with pytest.raises(LabError, match="use family=amortized_normal_chain"):
        AmortizedNormal(model.latents, 1, 5)
    with pytest.raises(LabError, match="use family=amortized_normal_chain"):
        MeanField(model.latents, 1, positive=Exponential())
    with pytest.raises(LabError, match=r"use family=.* or mean_field or"):
        AmortizedNormalChain(fakes.NORMAL_GAMMA_LATENTS, 1, 5)
    with pytest.raises(LabError, match="replicates=2"):
        AmortizedNormalChain(model.latents, 2, 5)
    with pytest.raises(LabError, match="use dataset="):
        model.check_data(2 * IMAGES)
