"""Structured Normals, mixtures, flows and Laplace on unconstrained space, natural gradients and closed-form entropies.

Densities are compared with those of `torch.distributions` or integrated; gradients of a bound, and the importance-
weighted bound, with quadrature; Fisher informations with the Hessian of a KL that torch knows. False alarms of
comparisons of means: `oracles.limit`, one in a million runs of the suite.
"""

import math
import sys
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal, kl_divergence

import vi_core
from tests import oracles
from tests.unit.test_unconstrained import LATENTS, SIZES, Target, family_of, funnel, gaussian
from vi_core.algorithms import fixed
from vi_core.algorithms.fixed import FixedStep
from vi_core.algorithms.gradient import GradientStep
from vi_core.algorithms.whitening import whiten
from vi_core.bounds.base import Bound
from vi_core.bounds.elbo import ELBO, IWELBO
from vi_core.distributions import supports
from vi_core.distributions.transforms import Exponential
from vi_core.errors import ConfigError, Unsupported
from vi_core.estimators.closed_form_entropy import ClosedFormEntropy
from vi_core.estimators.pathwise import Pathwise, StickingTheLanding
from vi_core.families.amortized.normal import AmortizedNormal
from vi_core.families.flow import RATE, Flow
from vi_core.families.laplace import Laplace
from vi_core.families.mean_field import MeanField
from vi_core.families.mixture import MixtureOfNormals, NormalMixture
from vi_core.families.normal_gamma import NormalGammaFamily
from vi_core.families.normals import FullRankNormal, LowRank, MeanFieldNormal, NormalFamily
from vi_core.families.point_mass import PointMass
from vi_core.families.structured import Structured
from vi_core.families.unconstrained import Point
from vi_core.models.bayesian.regression import LinearRegression
from vi_core.optimizers.natural_gradient import NaturalGradient
from vi_core.types import Latent, Latents

GROUPS = [["a", "c"], ["f", "b"]]
SMALL_FLOW = {"transforms": 2, "bins": 4, "hidden": [6]}
PLANE = {"a": Latent(supports.real, (2,))}
LINE = {"a": Latent(supports.real)}


class Grouped(Structured):
    """With the groups of these tests."""

    def __init__(self, *arguments: Any, **settings: Any):
        super().__init__(*arguments, **{"groups": GROUPS, **settings})


class SmallFlow(Flow):
    """With a network that is quick."""

    def __init__(self, *arguments: Any, **settings: Any):
        super().__init__(*arguments, **{**SMALL_FLOW, **settings})


def drawn(kind: type, *arguments: Any, **settings: Any) -> Any:
    """A family with random parameters, origin and preconditioner; the map of a flow is far from the identity."""
    family = family_of(kind, *arguments, **settings)
    if isinstance(family, Flow):
        with torch.no_grad():
            for weight in family.weights.values():
                weight.div_(RATE)
    return family


@pytest.fixture(autouse=True)
def _double() -> None:
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)


# --- densities ------------------------------------------------------------------------------------------------------

OTHERS = [(kind, how) for kind in (Grouped, MixtureOfNormals, SmallFlow) for how in ("none", "full")]


@pytest.mark.parametrize(("kind", "how"), OTHERS)
def test_coordinates_found_again_from_z_give_the_same(kind: type, how: str) -> None:
    """A draw remembers u and v, a flow the density; a plain mapping does not. Derivatives agree, too."""
    family = drawn(kind, how)
    for draw in ("sample", "rsample"):
        q = family.distribution(family.variational())
        z: Latents = getattr(q, draw)(5)
        found = [q.log_prob(values) for values in (z, dict(z))]
        torch.testing.assert_close(found[0], found[1], rtol=1e-8, atol=1e-8)
        slopes = [
            torch.cat([s.flatten() for s in torch.autograd.grad(f.sum(), list(family.parameters()), retain_graph=True)])
            for f in found
        ]
        torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-6, atol=1e-6)
        assert bool(slopes[0].abs().max() > 0.1)


@pytest.mark.parametrize(("kind", "how"), OTHERS)
def test_moments_are_those_of_draws(kind: type, how: str) -> None:
    """Of 40,000 draws: within their error, and 6 % of the deviation where points stand for the law."""
    family, draws = drawn(kind, how, replicates=1), 40_000
    with torch.no_grad():
        q = family.distribution(family.variational())
        moments, (mean, covariance) = q.moments(), q.coordinate_moments()
        z = q.sample(draws)
    for name, value in z.items():
        flat = value[:, 0, 0].reshape(draws, -1)
        moving = flat.std(0) > 0
        tolerance = 0.06 if kind is SmallFlow or LATENTS[name].support.event_dims else 0.0
        far = (flat.mean(0) - moments[name][0].flatten()).abs()[moving] / flat.std(0)[moving]
        assert bool((far < tolerance + oracles.limit(draws) / draws**0.5).all()), name
        ratio = flat.std(0)[moving] / moments[name][1].flatten()[moving]
        assert name == "b" or bool(((ratio - 1).abs() < tolerance + 0.02).all()), name  # exp(u) has heavy tails
    assert isinstance(z, Point)
    u = z.u[:, 0, 0]
    spread = 0.06 if kind is SmallFlow else 0.0
    assert bool(((u.mean(0) - mean[0, 0]).abs() < (spread + 0.02) * u.std(0)).all())
    size = u.std(0).outer(u.std(0))
    assert bool(((u.T.cov() - covariance[0, 0]).abs() < (spread + 0.03) * size).all())


def test_structured_is_a_normal_for_each_group() -> None:
    """log q(u) = Σ_g log N(u_g; m_g, Σ_g), with blocks of a covariance matrix that is zero between groups."""
    family = drawn(Grouped, "full", replicates=2)
    blocks = {"ac": [0, 1, 3], "bf": [2, 7, 8, 9], "d": [4], "e": [5, 6]}
    with torch.no_grad():
        q = family.distribution(family.variational())
        z = q.sample(3)
        assert isinstance(z, Point)
        mean, covariance = q.coordinate_moments()
        log_det = torch.stack(list(family.space.log_dets(z.u, z).values())).sum(0)
        for r in range(2):
            wanted = sum(
                MultivariateNormal(mean[r, 0, own], covariance[r, 0][own][:, own]).log_prob(z.u[:, r, 0, own])
                for own in blocks.values()
            )
            torch.testing.assert_close(q.log_prob(z)[:, r, 0], wanted - log_det[:, r, 0], rtol=1e-9, atol=1e-9)
            outside = covariance[r, 0].clone()
            for own in blocks.values():
                assert len(own) == 1 or outside[own[-1], own[0]] != 0
                outside[torch.tensor(own)[:, None], torch.tensor(own)] = 0
            assert outside.abs().max() < 1e-12


def test_structured_has_the_graph_of_its_density() -> None:
    """A term changes where its own latent or a parent does, and where no other does."""
    family = drawn(Grouped, "full")
    assert family.parents == {
        "a": frozenset(), "b": frozenset(), "c": {"a"}, "d": frozenset(), "e": frozenset(), "f": {"b"},
    }  # fmt: skip
    with torch.no_grad():
        q = family.distribution(family.variational())
        z, other = dict(q.sample(4)), q.sample(4)
        terms = q.log_prob_terms(z)
        for moved in LATENTS:
            for name, term in q.log_prob_terms(z | {moved: other[moved]}).items():
                depends = moved == name or moved in family.parents[name]
                assert depends != torch.allclose(term, terms[name], rtol=1e-9, atol=1e-9), (name, moved)


def test_structured_is_whitened_inside_groups() -> None:
    """A Aᵀ = (Λ_gg)⁻¹ for a Gaussian target of precision Λ, and this is the q of least KL: any change raises it."""
    latents = {name: Latent(supports.real, (2,)) for name in ("a", "b", "c")}
    _, mean, covariance = gaussian(6, spread=10.0)
    law = MultivariateNormal(mean, covariance)
    model = Target(latents, lambda z: law.log_prob(torch.cat([z["a"], z["b"], z["c"]], -1)))
    family = Structured(latents, 1, groups=[["a", "c"]])
    whiten(family, model, None)
    found, precision = family.factor[0, 0] @ family.factor[0, 0].T, covariance.inverse()
    own = torch.tensor([0, 1, 4, 5])
    torch.testing.assert_close(found[own][:, own], precision[own][:, own].inverse(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found[2:4, 2:4], precision[2:4, 2:4].inverse(), rtol=1e-5, atol=1e-6)
    assert found[own][:, 2:4].abs().max() == 0
    raw: Any = family.packed.raw

    def divergence(step: Tensor) -> float:
        with torch.no_grad():
            raw.add_(step)
            m, c = family.distribution(family.variational()).coordinate_moments()
            raw.sub_(step)
            return float(kl_divergence(MultivariateNormal(m[0, 0], c[0, 0]), law))

    least = divergence(torch.zeros_like(raw))
    assert all(divergence(0.05 * torch.randn_like(raw)) > least for _ in range(20))


@pytest.mark.parametrize(
    ("groups", "wrong"),
    [([["a", "x"]], r"names 'x'.* The latents are a, b, c"), ([["a"], ["a", "b"]], "names 'a' twice")],
)
def test_groups_that_are_none_are_refused(groups: list[list[str]], wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong):
        Structured(LATENTS, 1, groups=groups)


def test_a_mixture_is_torch_s() -> None:
    family = drawn(MixtureOfNormals, "none", replicates=2)
    with torch.no_grad():
        params = family.variational()["u"]
        v = torch.randn(5, 2, 1, sum(SIZES.values()))
        found = family.law(**params).log_terms(v).squeeze(-1)
        for r in range(2):
            loc, root = params["loc"][r, 0], torch.diag_embed(params["scale"][r, 0])
            rows, columns = torch.tril_indices(10, 10, offset=-1)
            root[:, rows, columns] = params["lower"][r, 0]
            law = MixtureSameFamily(Categorical(torch.ones(4)), MultivariateNormal(loc, scale_tril=root))
            torch.testing.assert_close(found[:, r, 0], law.log_prob(v[:, r, 0]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", [MixtureOfNormals, SmallFlow])
@pytest.mark.parametrize("latent", [Latent(supports.real, (2,)), Latent(supports.positive, (2,))])
def test_a_density_integrates_to_one(kind: type, latent: Latent) -> None:
    """On a grid in u, with the Jacobian of z; a density that is off by half a per cent is caught."""
    family = drawn(kind, "full", latents={"a": latent})
    axis = torch.linspace(-9, 9, 180)
    u = torch.cartesian_prod(axis, axis)[:, None, None].expand(-1, 3, 1, 2)
    with torch.no_grad():
        z, log_det = family.point(u)
        mass = (family.distribution(family.variational()).log_prob(z) + log_det).exp().sum(0) * (axis[1] - axis[0]) ** 2
    assert bool(((mass - 1).abs() < 4e-3).all()), mass


def test_a_flow_has_the_density_of_its_map() -> None:
    """log q(v) = log N(ε) − log|det ∂v/∂ε|, with the determinant of a matrix of derivatives."""
    family = drawn(SmallFlow, "none", replicates=2, latents={"a": Latent(supports.real, (3,))})
    law: Any = family.law(**family.variational()["u"])
    standard = torch.randn(4, 2, 1, 3)

    def moved(own: Tensor, r: int) -> Tensor:
        value = standard.clone()
        value[0, r, 0] = own
        return (law.loc + law.scale * law._map(value)[0])[0, r, 0]

    for r in range(2):
        own = standard[0, r, 0]
        jacobian: Any = torch.autograd.functional.jacobian(lambda e, r=r: moved(e, r), own)
        wanted = -0.5 * (own.square() + math.log(2 * math.pi)).sum() - torch.linalg.slogdet(jacobian).logabsdet
        v = (law.loc + law.scale * law._map(standard)[0]).detach()
        torch.testing.assert_close(law.log_terms(v)[0, r, 0, 0], wanted, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", [MixtureOfNormals, SmallFlow, Grouped])
def test_replicates_are_independent(kind: type) -> None:
    family = drawn(kind, "full", replicates=2)
    with torch.no_grad():
        z = dict(family.distribution(family.variational()).sample(20))
        before = family.distribution(family.variational()).log_prob(z)
        for value in family.parameters():
            value[1] += 0.5
        change = (family.distribution(family.variational()).log_prob(z) - before).abs().amax(dim=0).squeeze(-1)
    assert change[0] == 0 and change[1] > 0.1


def test_a_flow_of_one_number_and_of_passes() -> None:
    for settings, latents in (({}, LINE), ({"passes": 3}, {"a": Latent(supports.real, (3,))})):
        family = SmallFlow(latents, 2, **settings)
        q = family.distribution(family.variational())
        z = q.rsample(3)
        torch.testing.assert_close(q.log_prob(z), q.log_prob(dict(z)), rtol=1e-8, atol=1e-8)


def test_a_flow_without_zuko_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zuko.flows", None)
    with pytest.raises(Unsupported, match=r"family=flow needs zuko 1\.6, which is not installed; "):
        Flow(LINE, 1)


# --- what is printed of q -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (MeanFieldNormal, "mean_field_normal"),
        (FullRankNormal, "full_rank_normal"),
        (LowRank, "low_rank_normal"),
        (Structured, "structured"),
        (MixtureOfNormals, "mixture_of_normals"),
        (SmallFlow, "flow"),
        (Laplace, "laplace"),
    ],
)
def test_q_is_printed_in_a_line(kind: type, name: str) -> None:
    """Kind, latents with their shapes and replicates; no random numbers are drawn."""
    latents, before = {"mu": Latent(supports.real), "p": Latent(supports.simplex, (2, 3))}, torch.get_rng_state()
    family = kind(latents, 3)
    torch.set_rng_state(before)
    assert repr(family.distribution(family.variational())) == f"{name} of mu, p (2, 3); 3 replicates"
    assert torch.equal(torch.get_rng_state(), before)


def test_q_of_other_families_is_printed_in_a_line() -> None:
    latents = {"mu": Latent(supports.real), "tau": Latent(supports.positive)}
    images = {"z": Latent(supports.real, (4,), local=True)}
    families: dict[str, Any] = {
        "independent factors of mu, tau; 1 replicate": MeanField(latents, 1, positive=Exponential()),
        "point mass of mu, tau; 2 replicates": PointMass(latents, 2, positive=Exponential(), values=[1.0, 2.0]),
        "Normal–Gamma of mu, tau; 2 replicates": NormalGammaFamily(latents, 2, positive=Exponential()),
        "independent factors of z (4,); 1 replicate, 7 data points": AmortizedNormal(images, 1, 5, hidden=[3]),
    }
    x = torch.rand(7, 5)
    for line, family in families.items():
        assert repr(family.distribution(family.variational(x))) == line


# --- balanced draws of a mixture ------------------------------------------------------------------------------------

COMPONENTS, REPETITIONS = 3, 8000


def two_bumps() -> Target:
    """log of 0.3 N(−2, 0.5²) + 0.7 N(1.5, 1), times a number."""

    def density(z: Latents) -> Tensor:
        left = -0.5 * ((z["a"] + 2) / 0.5).square() + math.log(0.3 / 0.5)
        right = -0.5 * (z["a"] - 1.5).square() + math.log(0.7)
        return torch.logaddexp(left, right) + 0.4

    return Target(LINE, density)


def one_mixture(replicates: int, apart: float = 1.0) -> MixtureOfNormals:
    """Components of different places and widths, the same in each replicate."""
    family = MixtureOfNormals(LINE, replicates, components=COMPONENTS, preconditioner="none")
    loc, scale = apart * torch.tensor([-1.5, 0.3, 2.0]), torch.tensor([0.6, 1.1, 0.8])
    shape = (replicates, 1, COMPONENTS, 1)
    family.assign(
        {"u": {"loc": loc.view(1, 1, -1, 1).expand(shape), "scale": scale.view(1, 1, -1, 1).expand(shape),
               "lower": torch.zeros(replicates, 1, COMPONENTS, 0)}}
    )  # fmt: skip
    return family


def exact_bound(family: MixtureOfNormals, bound: Bound, num_samples: int) -> Tensor:
    """E[L] of independent draws by the trapezoid rule on (−9, 9)^K, K ≤ 2."""
    axis = torch.linspace(-9, 9, 1200 if num_samples == 1 else 400)
    log_q = family.law(**family.variational()["u"]).log_terms(axis.view(-1, 1, 1, 1)).flatten()
    log_w = two_bumps().density({"a": axis}) - log_q
    weight = log_q.exp() * (axis[1] - axis[0])
    if num_samples == 1:
        return (weight * bound(log_w[None])).sum()
    pairs = torch.stack([log_w[:, None].expand(-1, len(axis)), log_w[None].expand(len(axis), -1)])
    return (weight[:, None] * weight * bound(pairs)).sum()


def gradients(estimator: Any, family: MixtureOfNormals, bound: Bound) -> Tensor:
    """Gradients of the replicates and, last, their bounds, (R, P + 1)."""
    estimate = estimator(two_bumps(), family, bound, None)
    (slope,) = torch.autograd.grad(estimate.surrogate.sum(), list(family.parameters()))
    return torch.cat([slope.flatten(1), estimate.bound], dim=1).detach()


def exact_gradient(bound: Bound, num_samples: int, apart: float = 1.0) -> Tensor:
    family = one_mixture(1, apart)
    value = exact_bound(family, bound, num_samples)
    (slope,) = torch.autograd.grad(value, list(family.parameters()))
    return torch.cat([slope.flatten(), value.detach()[None]])


@pytest.mark.parametrize("num_samples", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("kind", [Pathwise, StickingTheLanding])
def test_balanced_draws_give_the_exact_gradient(kind: type, num_samples: int) -> None:
    """Of the ELBO, whether C = 3 divides K or not. Power: an error of 7 % of a parameter's noise is found."""
    found = gradients(kind(num_samples=num_samples), one_mixture(REPETITIONS), ELBO())
    assert oracles.max_z(found, exact_gradient(ELBO(), 1)) < oracles.limit(REPETITIONS)


def test_a_remainder_that_always_goes_to_one_component_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def unfair(self: NormalMixture, num_samples: int) -> Tensor:
        numbers = (torch.arange(num_samples) % self.count).view(-1, 1, 1)
        return self._draw(numbers.expand(-1, *self.batch))

    monkeypatch.setattr(NormalMixture, "balanced", unfair)
    wanted, bound = exact_gradient(ELBO(), 1), ELBO()
    for num_samples, right in ((3, True), (4, False), (1, False)):
        found = gradients(Pathwise(num_samples=num_samples), one_mixture(REPETITIONS), bound)
        assert (oracles.max_z(found, wanted) < oracles.limit(REPETITIONS)) == right, num_samples


def test_balanced_draws_vary_less() -> None:
    """The variance over components goes: of the bound, and of the gradient's sum."""
    q = one_mixture(REPETITIONS)
    balanced = gradients(Pathwise(num_samples=6), q, ELBO()).var(dim=0)
    q.law = lambda **p: Independent(**p, places=q.places)  # type: ignore[method-assign]
    independent = gradients(Pathwise(num_samples=6), q, ELBO()).var(dim=0)
    assert bool((balanced < independent).all()) and balanced[:-1].sum() < 0.9 * independent[:-1].sum()


class Independent(NormalMixture):
    """Independent draws where balanced ones are asked for."""

    balanced = NormalMixture.rsample


class Stratified(NormalMixture):
    """Balanced draws where independent ones are asked for."""

    rsample = NormalMixture.balanced


@pytest.mark.parametrize("kind", [NormalMixture, Stratified])
def test_the_iwelbo_is_that_of_independent_draws(kind: type) -> None:
    """Pathwise at K = 2, value and gradient, against quadrature in two dimensions; balanced draws give another."""
    q = one_mixture(REPETITIONS, apart=2.2)
    q.law = lambda **p: kind(**p, places=q.places)  # type: ignore[method-assign]
    found = gradients(Pathwise(num_samples=2), q, IWELBO())
    right = oracles.max_z(found, exact_gradient(IWELBO(), 2, apart=2.2)) < oracles.limit(REPETITIONS)
    assert right == (kind is NormalMixture)


# --- natural gradients and entropies --------------------------------------------------------------------------------


class TwoRanks(LowRank):
    """With two columns of loadings."""

    def __init__(self, *arguments: Any, **settings: Any):
        super().__init__(*arguments, **{"rank": 2, **settings})


def as_torch(family: Any, raw: Tensor) -> MultivariateNormal:
    """q(v) of one replicate for stored numbers (P,)."""
    params = {name: value.squeeze(0) for name, value in family.packed.constrain(raw[None])["u"].items()}
    root = params["scale"].diag()
    if "loadings" in params:
        shared = root @ params["loadings"].reshape(len(root), -1)
        return MultivariateNormal(params["loc"], root @ root + shared @ shared.T)
    if "lower" in params:
        rows, columns = family.places
        root = root.index_put((rows, columns), params["lower"])
    return MultivariateNormal(params["loc"], scale_tril=root)


@pytest.mark.parametrize("kind", [MeanFieldNormal, FullRankNormal, Structured, TwoRanks])
def test_the_fisher_information_is_the_curvature_of_the_divergence(kind: type) -> None:
    """F = ∂²KL(q_λ ‖ q_λ')/∂λ'² at λ' = λ, in the stored parameters, to rounding."""
    latents = {"a": Latent(supports.real, (2,)), "b": Latent(supports.positive), "c": Latent(supports.real, (2,))}
    family = drawn(kind, "full", 2, latents)
    found = family.fisher()
    for r in range(2):
        raw = family.packed.raw[r, 0].detach()
        here = as_torch(family, raw)
        wanted: Any = torch.autograd.functional.hessian(
            lambda other, here=here: kl_divergence(here, as_torch(family, other)), raw
        )
        torch.testing.assert_close(found[r], wanted, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", [MeanFieldNormal, FullRankNormal, Structured, TwoRanks])
def test_the_fisher_information_is_the_mean_square_of_scores(kind: type) -> None:
    """E[h hᵀ] over 40,000 draws of q."""
    draws = 40_000
    family = drawn(kind, "none", 1, PLANE)
    raw = family.packed.raw.detach()

    def log_prob(own: Tensor, v: Tensor) -> Tensor:
        return family.law(**family.packed.constrain(own)["u"]).log_terms(v[None, None, None]).sum()

    with torch.no_grad():
        v = family.law(**family.variational()["u"]).rsample(draws)[:, 0, 0]
    scores = torch.func.vmap(torch.func.grad(log_prob), (None, 0))(raw, v)[:, 0, 0]
    products = (scores[:, :, None] * scores[:, None, :]).flatten(1)
    moving = products.std(0) > 0
    assert oracles.max_z(products[:, moving], family.fisher()[0].flatten()[moving]) < oracles.limit(draws)
    assert oracles.max_z(products[:, moving], 1.1 * family.fisher()[0].flatten()[moving]) > oracles.limit(draws)


@pytest.mark.parametrize(("kind", "damping"), [(MeanFieldNormal, 0.0), (FullRankNormal, 0.0), (TwoRanks, 0.1)])
def test_natural_gradients_reach_the_posterior(kind: type, damping: float) -> None:
    """Of a Gaussian target without whitening, from a random point."""
    model, mean, covariance = gaussian(3, spread=10.0)
    family = kind(model.latents, 1, preconditioner="none", start="random")
    optimizer = NaturalGradient(lr=0.1, damping=damping)
    step = GradientStep(model, family, ELBO(), ClosedFormEntropy(num_samples=64), optimizer)
    for _ in range(150):
        step(None)
    with torch.no_grad():
        found, spread = family.distribution(family.variational()).coordinate_moments()
    alone = covariance.inverse().diagonal().reciprocal().diag()
    wanted = alone if kind is MeanFieldNormal else covariance
    away = (found[0, 0] - mean) / covariance.diagonal().sqrt()
    assert away.abs().max() < 0.2
    assert (spread[0, 0].diagonal() / wanted.diagonal() - 1).abs().max() < 0.3


def test_the_information_of_a_low_rank_is_singular_along_turned_loadings() -> None:
    """And nowhere else with two columns in six coordinates; undamped steps are refused."""
    model, *_ = gaussian(6)
    family = drawn(TwoRanks, "none", 2, model.latents)
    information = family.fisher()
    loadings = family.variational()["u"]["loadings"].reshape(2, 6, 2)
    turn = torch.stack([loadings[..., 1], -loadings[..., 0]], dim=-1).flatten(1)
    tangent = torch.zeros(2, information.shape[-1])
    tangent[:, [i for i, name in enumerate(family.stored_names()) if "loadings" in name]] = turn
    assert (information @ tangent.unsqueeze(-1)).abs().max() < 1e-12
    assert bool((torch.linalg.eigvalsh(information)[:, 1] > 1e-4).all())
    with pytest.raises(Unsupported, match=r"optimizer.damping=0 leaves no inverse .*; use optimizer.damping=0.1"):
        GradientStep(model, family, ELBO(), ClosedFormEntropy(), NaturalGradient(damping=[0.1, 0.0]))


@pytest.mark.parametrize("kind", [MeanFieldNormal, FullRankNormal, LowRank, Grouped])
@pytest.mark.parametrize("how", ["diagonal", "full"])
def test_entropy_is_minus_the_mean_log_density(kind: type, how: str) -> None:
    """On all supports, by 20,000 draws: the same draws of −log q(z) have the same mean, with more noise."""
    family, draws = drawn(kind, how, 2), 20_000
    assert isinstance(family, NormalFamily)
    with torch.no_grad():
        params = family.variational()
        q = family.distribution(params)
        z = q.sample(draws)
        difference = (family.entropy(params, z) + q.log_prob(z)).squeeze(-1)
    assert oracles.max_z(difference, torch.zeros(2)) < oracles.limit(draws)
    assert oracles.max_z(difference + 0.1, torch.zeros(2)) > oracles.limit(draws)


def test_entropy_of_mean_field() -> None:
    family, draws = (
        MeanField({"a": Latent(supports.real, (2,)), "b": Latent(supports.positive)}, 2, positive=Exponential()),
        20_000,
    )
    with torch.no_grad():
        params = family.variational()
        q = family.distribution(params)
        difference = family.entropy(params, {}) + q.log_prob(q.sample(draws))
    assert oracles.max_z(difference.squeeze(-1), torch.zeros(2)) < oracles.limit(draws)


def test_closed_form_entropy_is_refused_where_it_has_no_meaning() -> None:
    model = two_bumps()
    with pytest.raises(Unsupported, match="MixtureOfNormals has no entropy in closed form; use estimator="):
        ClosedFormEntropy().check(model, MixtureOfNormals(LINE, 1), ELBO())
    with pytest.raises(Unsupported, match="for the ELBO, not for bound=iwelbo"):
        ClosedFormEntropy().check(model, FullRankNormal(LINE, 1), IWELBO())


# --- Laplace --------------------------------------------------------------------------------------------------------


def step_of(model: Target, replicates: int) -> FixedStep:
    return FixedStep(model, Laplace(model.latents, replicates), ELBO(), Pathwise(num_samples=8))


def test_laplace_is_the_posterior_of_a_gaussian() -> None:
    model, mean, covariance = gaussian(5, spread=30.0)
    step = step_of(model, 3)
    step.begin(None)
    q: Any = step.family.distribution(step.family.variational())
    found, spread = q.coordinate_moments()
    for r in range(3):
        torch.testing.assert_close(found[r, 0], mean, rtol=0, atol=1e-6)
        torch.testing.assert_close(spread[r, 0], covariance, rtol=1e-5, atol=1e-5)
    assert step(None)["elbo"].abs().max() < 1e-6
    assert bool(step.alive.all())


def test_a_search_that_ends_at_no_mode_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first search misses in replicate 1, the second in replicate 0: both keep what they found."""
    model, mean, _ = gaussian(3, spread=3.0)
    missed = [1, 0]

    def search(family: Any, model: Any, x: Any, **settings: Any) -> int:
        count = whiten(family, model, x, **settings)
        if missed:
            family.origin[missed.pop(0)] += 1.0
        return count

    monkeypatch.setattr(fixed, "whiten", search)
    step = step_of(model, 2)
    step.begin(None)
    family: Any = step.family
    assert missed == [] and bool(step.alive.all())
    torch.testing.assert_close(family.origin[:, 0], mean.expand(2, -1), rtol=0, atol=1e-6)


def test_a_replicate_without_a_mode_takes_that_of_another(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model, mean, covariance = gaussian(3, spread=3.0)

    def search(family: Any, model: Any, x: Any, **settings: Any) -> int:
        count = whiten(family, model, x, **settings)
        family.factor[1] *= 2.0
        return count

    monkeypatch.setattr(fixed, "whiten", search)
    step = step_of(model, 2)
    step.begin(None)
    q: Any = step.family.distribution(step.family.variational())
    found, spread = q.coordinate_moments()
    torch.testing.assert_close(found[1, 0], mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(spread[1, 0], covariance, rtol=1e-5, atol=1e-5)
    assert "1 of 2 replicates found no mode" in caplog.text


def test_a_density_without_a_mode_is_refused() -> None:
    with pytest.raises(Unsupported, match="family=laplace found no mode of log p in 5 searches"):
        step_of(funnel(), 1).begin(None)


# --- evidence of a conjugate regression -----------------------------------------------------------------------------

EVIDENCE = {
    "full_rank_normal": ({}, 200, 1e-6),
    "laplace": ({}, 1, 1e-6),
    "structured": ({"groups": [["alpha", "beta"]]}, 200, 1e-6),
    "mixture_of_normals": ({"components": 2}, 300, 2e-3),
    "flow": ({**SMALL_FLOW, "preconditioner": "diagonal"}, 200, 0.05),
}
"""Family -> settings, steps, and nats below the evidence."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "flow" else ()) for name in EVIDENCE]
)
def test_the_evidence_is_reached(name: str) -> None:
    settings, steps, tolerance = EVIDENCE[name]
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(40, 1, generator=generator) + 1
    y = x[:, 0] + 0.5 * torch.randn(40, generator=generator)
    model = LinearRegression(sigma=0.5)
    found = vi_core.fit(model, {"x": x, "y": y}, family=name, steps=steps, replicates=2, **settings)
    gap = model.exact(found.data)["log_evidence"] - found.elbo.max()
    noise = 0.02 if name in ("flow", "mixture_of_normals") else 1e-6  # of an ELBO from 2,000 draws
    assert gap > -noise and gap < tolerance
    assert found.run.loop.done == (1 if name == "laplace" else steps)
    assert found.run.loop.status == "completed"
