"""Normals on unconstrained space against torch's, with Jacobians by automatic differentiation; whitening at a mode.

log q(z) is `torch.distributions` at u = T⁻¹(z), whose T is written here, minus log|det ∂T/∂u| from a Jacobian matrix.
False alarms of the comparisons of means: `oracles.limit`, one in a million runs of the suite.
"""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import LowRankMultivariateNormal, MultivariateNormal

from tests import oracles
from vi_core.algorithms import whitening
from vi_core.algorithms.whitening import scaled, whiten
from vi_core.bounds.elbo import ELBO
from vi_core.distributions import supports
from vi_core.errors import ConfigError, Unsupported
from vi_core.estimators.pathwise import Pathwise, StickingTheLanding
from vi_core.families.normals import FullRankNormal, LowRank, MeanFieldNormal
from vi_core.families.unconstrained import Point, UnconstrainedFamily, solve, times
from vi_core.models.base import Factors, Model
from vi_core.types import Latent, Latents

LATENTS = {
    "a": Latent(supports.real, (2,)),
    "b": Latent(supports.positive),
    "c": Latent(supports.unit_interval),
    "d": Latent(supports.bounded(-1.0, 3.0)),
    "e": Latent(supports.simplex, (3,)),
    "f": Latent(supports.correlation_cholesky, (3, 3)),
}
SIZES = {"a": 2, "b": 1, "c": 1, "d": 1, "e": 2, "f": 3}
SIZE = sum(SIZES.values())
FAMILIES = [MeanFieldNormal, FullRankNormal, LowRank]
EVERY = [(kind, how) for kind in FAMILIES for how in ("none", "diagonal", "full")]


@pytest.fixture(autouse=True)
def _double() -> None:
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)


def family_of(kind: type, how: Any, replicates: int = 3, latents: dict[str, Latent] = LATENTS) -> UnconstrainedFamily:
    """A family with random parameters, origin and preconditioner, different in each replicate."""
    family = kind(latents, replicates, preconditioner=how)
    with torch.no_grad():
        for value in family.parameters():
            value.copy_(0.3 * torch.randn_like(value))
        size = family.space.size
        factor = torch.tril(0.2 * torch.randn(replicates, 1, size, size), -1) + torch.diag_embed(
            0.4 + torch.rand(replicates, 1, size)
        )
        given = {"none": None, "diagonal": factor.diagonal(dim1=-2, dim2=-1), "full": factor}[how]
        family.place(0.3 * torch.randn(replicates, 1, size), given)
    return family


def matrix(family: UnconstrainedFamily, replicate: int) -> Tensor:
    """A of one replicate, (D, D)."""
    own = family.factor[replicate, 0]
    return own if own.dim() == 2 else own.diag()


def law_of(family: UnconstrainedFamily, replicate: int) -> Any:
    """The law of u of one replicate by `torch.distributions`."""
    params = {name: value[replicate, 0] for name, value in family.variational()["u"].items()}
    change, size = matrix(family, replicate), family.space.size
    loc = family.origin[replicate, 0] + change @ params["loc"]
    if "loadings" in params:
        own = LowRankMultivariateNormal(
            params["loc"], params["scale"][:, None] * params["loadings"].reshape(size, -1), params["scale"] ** 2
        ).covariance_matrix
    elif "lower" in params:
        root, below = params["scale"].diag(), iter(params["lower"])
        for i in range(size):
            for j in range(i):
                root[i, j] = next(below)
        own = root @ root.T
    else:
        own = params["scale"].square().diag()
    return MultivariateNormal(loc, change @ own @ change.T)


def by_hand(u: Tensor) -> dict[str, Tensor]:
    """z = T(u) of one point (D,), from the definitions."""
    a, b, c, d, e, f = u.split(list(SIZES.values()))
    first = torch.sigmoid(e[0] - math.log(2))
    second = torch.sigmoid(e[1])
    r = torch.tanh(f)
    one, zero = torch.ones(()), torch.zeros(())
    rows = [
        torch.stack([one, zero, zero]),
        torch.stack([r[0], (1 - r[0] ** 2).sqrt(), zero]),
        torch.stack([r[1], r[2] * (1 - r[1] ** 2).sqrt(), ((1 - r[1] ** 2) * (1 - r[2] ** 2)).sqrt()]),
    ]
    return {
        "a": a,
        "b": b.exp().squeeze(),
        "c": c.sigmoid().squeeze(),
        "d": (-1 + 4 * d.sigmoid()).squeeze(),
        "e": torch.stack([first, second * (1 - first), (1 - second) * (1 - first)]),
        "f": torch.stack(rows),
    }


def free(u: Tensor) -> Tensor:
    """The numbers of T(u) that are free: all but the last of a simplex, below the diagonal of a Cholesky factor."""
    z = by_hand(u)
    below = torch.stack([z["f"][1, 0], z["f"][2, 0], z["f"][2, 1]])
    return torch.cat([z["a"], torch.stack([z["b"], z["c"], z["d"]]), z["e"][:2], below])


def log_volume(u: Tensor) -> Tensor:
    """log|det ∂T/∂u| at one point, from the matrix of derivatives."""
    jacobian: Any = torch.autograd.functional.jacobian(free, u)
    return torch.linalg.slogdet(jacobian).logabsdet


# --- densities ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "how"), EVERY)
def test_log_prob_is_torch_s_with_the_jacobian(kind: type, how: str) -> None:
    family = family_of(kind, how)
    with torch.no_grad():
        q = family.distribution(family.variational())
        z = q.rsample(4)
        assert isinstance(z, Point)
        found = q.log_prob(z)
        for k in range(4):
            for r in range(3):
                u = z.u[k, r, 0]
                for name, value in by_hand(u).items():
                    torch.testing.assert_close(z[name][k, r, 0], value, msg=name)
                wanted = law_of(family, r).log_prob(u) - log_volume(u)
                torch.testing.assert_close(found[k, r, 0], wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("kind", "how"), EVERY)
def test_coordinates_found_again_from_z_give_the_same(kind: type, how: str) -> None:
    """A draw remembers u and v; a plain mapping does not. The derivatives in the parameters agree too."""
    family = family_of(kind, how)
    params = family.variational()
    q = family.distribution(params)
    z = q.sample(5)
    found = [q.log_prob(values) for values in (z, dict(z))]
    torch.testing.assert_close(found[0], found[1], rtol=1e-8, atol=1e-8)
    slopes = [torch.autograd.grad(f.sum(), list(family.parameters()), retain_graph=True)[0] for f in found]
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-7, atol=1e-7)
    assert bool(slopes[0].abs().max() > 0.1)


@pytest.mark.parametrize(("kind", "how"), EVERY)
def test_terms_sum_to_the_density_and_respect_the_graph(kind: type, how: str) -> None:
    """A factor q(z_i | parents) stays the same where a latent outside changes, and changes with z_i and its parents."""
    family = family_of(kind, how)
    with torch.no_grad():
        q = family.distribution(family.variational())
        z, other = dict(q.sample(4)), q.sample(4)
        terms = q.log_prob_terms(z)
        torch.testing.assert_close(torch.stack(list(terms.values())).sum(0), q.log_prob(z))
        if kind is LowRank:
            assert family.parents == {} and len(terms) == 1
            return
        assert list(terms) == list(LATENTS)
        for moved in LATENTS:
            new = q.log_prob_terms(z | {moved: other[moved]})
            for name, term in new.items():
                depends = moved == name or moved in family.parents[name]
                assert depends != torch.allclose(term, terms[name], rtol=1e-9, atol=1e-9), (name, moved)


def test_replicates_are_independent() -> None:
    """Parameters of one replicate change nothing in another, and draws of two have no correlation."""
    family = family_of(FullRankNormal, "full", 2)
    with torch.no_grad():
        q = family.distribution(family.variational())
        z = dict(q.sample(50_000))
        before, moments = q.log_prob(z), q.moments()
        for value in family.parameters():
            value[1] += 0.5
        after = family.distribution(family.variational())
        change = (after.log_prob(z) - before).abs().amax(dim=0).squeeze(-1)
    assert change[0] == 0 and change[1] > 0.1
    for name, pair in after.moments().items():
        for now, earlier in zip(pair, moments[name], strict=True):
            assert torch.equal(now[0], earlier[0])
            assert name in ("e", "f") or not torch.equal(now[1], earlier[1])
    a = z["a"][:, :, 0]
    standard = (a - a.mean(0)) / a.std(0)
    products = (standard[:, 0, :, None] * standard[:, 1, None, :]).flatten(1)
    assert oracles.max_z(products, torch.zeros(4)) < oracles.limit(len(products))


@pytest.mark.parametrize(("kind", "how"), [(MeanFieldNormal, "full"), (FullRankNormal, "diagonal"), (LowRank, "full")])
def test_moments_are_those_of_draws(kind: type, how: str) -> None:
    """Of 200,000 draws: closed forms and Gauss–Hermite within their error, vectors within 3 % of the deviation."""
    family = family_of(kind, how, replicates=1)
    with torch.no_grad():
        q = family.distribution(family.variational())
        moments, draws = q.moments(), 200_000
        z = q.sample(draws)
    for name, value in z.items():
        flat = value[:, 0, 0].reshape(draws, -1)
        mean, std = (moment[0, 0].flatten() for moment in moments[name])
        moving = flat.std(0) > 0
        flat, mean, std = flat[:, moving], mean[moving], std[moving]
        tolerance = 0.03 if LATENTS[name].support.event_dims else 0.0
        far = (flat.mean(0) - mean).abs() / flat.std(0)
        assert bool((far < tolerance + oracles.limit(draws) / draws**0.5).all()), name
        kurtosis = ((flat - flat.mean(0)) / flat.std(0)).pow(4).mean(0)
        error = oracles.limit(draws) * 0.5 * ((kurtosis - 1) / draws).sqrt()
        assert bool(((flat.std(0) / std - 1).abs() < tolerance + error).all()), name


def test_moments_under_trace_axes_are_those_of_each_row() -> None:
    family = family_of(FullRankNormal, "full", 2)
    with torch.no_grad():
        params = {"u": {n: torch.stack([v, v + 0.1]) for n, v in family.variational()["u"].items()}}
        whole = family.distribution(params).moments()
        for t in range(2):
            own = family.distribution({"u": {n: v[t] for n, v in params["u"].items()}}).moments()
            for name in LATENTS:
                torch.testing.assert_close(whole[name][0][t], own[name][0])
                torch.testing.assert_close(whole[name][1][t], own[name][1])


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("latent", [Latent(supports.one_hot, (3,)), Latent(supports.real, (2,), local=True)])
def test_discrete_and_local_latents_are_refused(kind: type, latent: Latent) -> None:
    with pytest.raises(Unsupported, match=r"family=\w+_normal describes continuous latents"):
        kind({"a": Latent(supports.real), "k": latent})


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"family\.rank=0"):
        LowRank(LATENTS, rank=0)
    with pytest.raises(ConfigError, match=r"family\.scale=-1"):
        MeanFieldNormal(LATENTS, scale=-1.0)
    with pytest.raises(ConfigError, match=r"family\.preconditioner=full needs a matrix of 2001 x 2001"):
        MeanFieldNormal({"a": Latent(supports.real, (2001,))}, preconditioner="full")


# --- whitening ------------------------------------------------------------------------------------------------------


class Target(Model):
    """A density of latents, written as a function."""

    def __init__(self, latents: dict[str, Latent], density: Any):
        super().__init__()
        self.latents, self.density = latents, density

    def factors(self, z: Latents, x: Any) -> Factors:
        return {"all": (self.density(z), frozenset(self.latents))}


def gaussian(size: int, spread: float = 1e3) -> tuple[Target, Tensor, Tensor]:
    """A Normal with a mean, and a covariance of eigenvalues from 1/spread to spread."""
    turn = torch.linalg.qr(torch.randn(size, size)).Q
    covariance = turn @ torch.logspace(-math.log10(spread), math.log10(spread), size).diag() @ turn.T
    covariance = 0.5 * (covariance + covariance.T)
    mean = torch.randn(size)
    law = MultivariateNormal(mean, covariance, validate_args=False)
    return Target({"a": Latent(supports.real, (size,))}, lambda z: law.log_prob(z["a"])), mean, covariance


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_gaussian_target_is_whitened_exactly(kind: type) -> None:
    """Origin = mean, A Aᵀ = covariance, A lower triangular with a positive diagonal."""
    model, mean, covariance = gaussian(6, spread=30.0)
    family = kind(model.latents, 2, preconditioner="full")
    whiten(family, model, None)
    for r in range(2):
        a = family.factor[r, 0]
        assert torch.equal(a, a.tril()) and bool((a.diagonal() > 0).all())
        torch.testing.assert_close(family.origin[r, 0], mean, rtol=0, atol=1e-6)
        torch.testing.assert_close(a @ a.T, covariance, rtol=1e-6, atol=1e-6)


def test_diagonal_whitening_is_the_deviation_given_all_others() -> None:
    model, mean, covariance = gaussian(5, spread=30.0)
    family = MeanFieldNormal(model.latents, 1, preconditioner="diagonal")
    whiten(family, model, None)
    torch.testing.assert_close(family.origin[0, 0], mean, rtol=0, atol=1e-6)
    wanted = covariance.inverse().diagonal().rsqrt()
    torch.testing.assert_close(family.factor[0, 0], wanted, rtol=1e-6, atol=1e-6)


def test_thousands_of_coordinates_are_whitened_without_their_whole_hessian(monkeypatch: pytest.MonkeyPatch) -> None:
    """The origin within 1e-3 deviations, scales to 1e-6, two gradients a coordinate and those of one search."""
    monkeypatch.setattr(whitening, "MOST_WHOLE", 8)
    monkeypatch.setattr(whitening, "ROWS_AT_ONCE", 5)
    model, mean, covariance = gaussian(12, spread=5.0)
    family = MeanFieldNormal(model.latents, 1, preconditioner="diagonal")
    evaluations = whiten(family, model, None)
    away = torch.linalg.solve(torch.linalg.cholesky(covariance), family.origin[0, 0] - mean)
    assert away.abs().max() < 1e-3
    torch.testing.assert_close(family.factor[0, 0], covariance.inverse().diagonal().rsqrt(), rtol=1e-6, atol=1e-6)
    assert evaluations < 2 * 12 + whitening.DRAWS + 100


def test_an_ill_conditioned_mode_is_found() -> None:
    """Eigenvalues from 1e-3 to 1e3: the origin lies within 1e-4 deviations of the mode in every direction."""
    model, mean, covariance = gaussian(10)
    family = FullRankNormal(model.latents, 1)
    whiten(family, model, None)
    away = torch.linalg.solve(torch.linalg.cholesky(covariance), family.origin[0, 0] - mean)
    assert away.abs().max() < 1e-4


def test_sticking_the_landing_has_no_gradient_at_the_optimum() -> None:
    """Where q is the posterior each sample's gradient is zero; the pathwise one is noise there."""
    model, _, _ = gaussian(4, spread=10.0)
    family = FullRankNormal(model.latents, 2)
    whiten(family, model, None)

    def slope(estimator: Any) -> float:
        estimate = estimator(model, family, ELBO(), None)
        return float(torch.autograd.grad(estimate.surrogate.sum(), list(family.parameters()))[0].abs().max())

    assert slope(StickingTheLanding(num_samples=8)) < 1e-4
    assert slope(Pathwise(num_samples=8)) > 0.1


def test_a_constrained_mode_lies_in_unconstrained_space() -> None:
    """Gamma(3, 2) in u = log z has the density 3 u − 2 exp u + c: mode log(3/2), curvature 3."""
    latents = {"b": Latent(supports.positive)}
    model = Target(latents, lambda z: torch.distributions.Gamma(3.0, 2.0, validate_args=False).log_prob(z["b"]))
    family = MeanFieldNormal(latents, 1)
    whiten(family, model, None)
    assert family.origin.item() == pytest.approx(math.log(1.5), abs=1e-6)
    assert family.factor.item() == pytest.approx(3**-0.5, abs=1e-6)


Y = torch.tensor([28.0, 8, -3, 7, -1, 1, 18, 12])
SIGMA = torch.tensor([15.0, 10, 16, 11, 9, 11, 10, 18])


def funnel() -> Target:
    """Eight schools, centred: the density has no mode, it grows without bound where tau goes to zero."""
    latents = {"mu": Latent(supports.real), "tau": Latent(supports.positive), "theta": Latent(supports.real, (8,))}

    def density(z: Latents) -> Tensor:
        mu, tau, theta = z["mu"], z["tau"], z["theta"]
        prior = -0.5 * (mu / 5).square() - (tau / 5).square().log1p()
        groups = -0.5 * ((theta - mu.unsqueeze(-1)) / tau.unsqueeze(-1)).square() - tau.unsqueeze(-1).log()
        return prior + groups.sum(-1) - 0.5 * ((Y - theta) / SIGMA).square().sum(-1)

    return Target(latents, density)


@pytest.mark.parametrize("start", ["mode", "random"])
@pytest.mark.parametrize("how", ["none", "diagonal", "full"])
def test_a_funnel_is_placed_where_densities_are_finite(start: Any, how: Any) -> None:
    model = funnel()
    family = FullRankNormal(model.latents, 2, start=start, preconditioner=how)
    whiten(family, model, None)
    assert bool(family.origin.isfinite().all()) and bool(family.factor.isfinite().all())
    with torch.no_grad():
        q = family.distribution(family.variational())
        z = q.sample(200)
        weights = model.log_joint(z, None) - q.log_prob(z)
    assert bool(weights.isfinite().float().mean() > 0.9)


def test_a_random_start_is_drawn_for_each_replicate_and_not_moved() -> None:
    model, _, _ = gaussian(3)
    family = MeanFieldNormal(model.latents, 4, start="random", preconditioner="none")
    whiten(family, model, None)
    assert bool((family.origin.abs() <= 2).all()) and len(family.origin.unique()) == 12
    assert torch.equal(family.factor, torch.ones(4, 1, 3))


def test_no_curvature_leaves_the_coordinates_as_they_are() -> None:
    """The density of a flat function has the Hessian zero; so has that of |u|, away from its kink."""
    assert torch.equal(scaled(torch.zeros(3, 3), "diagonal"), torch.ones(3))
    assert torch.equal(scaled(torch.zeros(3, 3), "full"), torch.eye(3))


def test_a_density_that_is_finite_nowhere_is_refused() -> None:
    latents = {"a": Latent(supports.real, (2,))}
    model = Target(latents, lambda z: z["a"].sum(-1) * math.nan)
    with pytest.raises(Unsupported, match="no point of 5 drawn from"):
        whiten(MeanFieldNormal(latents, 1), model, None)


def test_one_product_for_all_draws_is_that_of_each_draw() -> None:
    """A x by sums over its columns, with and without an axis of draws; `solve` takes it back."""
    factor = torch.randn(3, 1, 4, 4).tril() + 4 * torch.eye(4)
    draws = torch.randn(5, 3, 1, 4)
    expected = torch.einsum("rbij,krbj->krbi", factor, draws)
    torch.testing.assert_close(times(factor, draws), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(times(factor, draws[2]), expected[2], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(solve(factor, times(factor, draws)), draws, rtol=1e-12, atol=1e-12)
