"""Densities, entropies, moments and divergences against torch.distributions, draws against laws, transforms against
their inverses. Limits of Monte Carlo comparisons are those of `tests/oracles.py`.
"""

from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch import distributions as reference

from tests import oracles
from vi_core.distributions.bernoulli import sum_of_log_densities
from vi_core.distributions.gamma import Exponential as ExponentialLaw
from vi_core.distributions.gamma import Gamma, kl_gamma
from vi_core.distributions.normal import Normal, kl_normal
from vi_core.distributions.transforms import Exponential, Positive, Precision, Softplus

Law = Normal | Gamma
N = 100_000
LIMIT = oracles.limit(N)
LEAST_P = oracles.FALSE_ALARM / oracles.COMPARISONS

LOC = torch.tensor([0.0, -3.0, 2.5, 100.0], dtype=torch.float64)
SCALE = torch.tensor([1.0, 0.2, 4.0, 1e-3], dtype=torch.float64)
CONCENTRATION = torch.tensor([0.4, 1.0, 6.5, 300.0], dtype=torch.float64)
RATE = torch.tensor([1.0, 0.3, 12.0, 500.0], dtype=torch.float64)
PAIRS = [
    (Normal(LOC, SCALE), reference.Normal(LOC, SCALE)),
    (Gamma(CONCENTRATION, RATE), reference.Gamma(CONCENTRATION, RATE)),
]
LAWS = [*PAIRS, (ExponentialLaw(RATE), reference.Exponential(RATE))]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(7)


def agrees(found: Tensor, expected: Tensor) -> bool:
    return torch.allclose(found, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_closed_forms(ours: Law, theirs: reference.Distribution) -> None:
    z = theirs.sample((5,))
    assert agrees(ours.log_prob(z), theirs.log_prob(z))
    assert agrees(ours.entropy(), theirs.entropy())
    assert agrees(ours.mean, theirs.mean)
    assert agrees(ours.variance, theirs.variance)


def test_a_gamma_with_scales_for_rates_is_caught() -> None:
    wrong, right = Gamma(CONCENTRATION, 1 / RATE), reference.Gamma(CONCENTRATION, RATE)
    z = right.sample((5,))
    found = [wrong.log_prob(z) - right.log_prob(z), wrong.entropy() - right.entropy(), wrong.mean - right.mean]
    assert all(float(difference.abs().max()) > 0.1 for difference in found)
    assert moment_discrepancy(wrong, right.mean, right.variance) > LIMIT


@pytest.mark.parametrize("expanded", [(0, 0), (0, None), (None, 0), (1, 0), (2, 2), (None, None)])
def test_gamma_density_and_gradient_in_shared_parameters(expanded: tuple[int | None, int | None]) -> None:
    """Parameters that hold one row many times, as those of per-sample scores do, give every copy its own gradient."""
    a, b = torch.rand(2, 5, 4, 3, dtype=torch.float64) + 0.5
    a, b = (
        p if axis is None else p.narrow(axis, 0, 1).expand(5, 4, 3) for p, axis in zip((a, b), expanded, strict=True)
    )
    z, weights = torch.rand(2, 5, 4, 3, dtype=torch.float64) + 0.1
    found, expected = (
        (value := law(p, q).log_prob(z), *torch.autograd.grad((weights * value).sum(), (p, q)))
        for law in (Gamma, reference.Gamma)
        for p, q in [(a.detach().requires_grad_(), b.detach().requires_grad_())]
    )
    assert all(agrees(one, other) for one, other in zip(found, expected, strict=True))


# --- draws ----------------------------------------------------------------------------------------------------------


def moment_discrepancy(ours: Law | ExponentialLaw, mean: Tensor, variance: Tensor) -> float:
    """Largest standardised error of the draws' first two moments."""
    z = ours.rsample(N)
    return max(oracles.max_z(z, mean), oracles.max_z((z - mean) ** 2, variance))


@pytest.mark.parametrize(("ours", "theirs"), LAWS)
def test_draws_have_the_right_moments(ours: Law | ExponentialLaw, theirs: reference.Distribution) -> None:
    assert moment_discrepancy(ours, theirs.mean, theirs.variance) < LIMIT


def test_draws_follow_their_laws() -> None:
    """Kolmogorov–Smirnov, of the whole law; one with a deviation 5 % too large is caught."""
    normal, gamma = Normal(LOC, SCALE).rsample(N), Gamma(CONCENTRATION, RATE).rsample(N)
    for i in range(len(LOC)):
        a, b, m, s = (float(p[i]) for p in (CONCENTRATION, RATE, LOC, SCALE))
        assert oracles.law_p_value(normal[:, i], stats.norm(m, s).cdf) > LEAST_P
        assert oracles.law_p_value(gamma[:, i], stats.gamma(a, scale=1 / b).cdf) > LEAST_P
        assert oracles.law_p_value(normal[:, i], stats.norm(m, 1.05 * s).cdf) < LEAST_P
        assert oracles.law_p_value(gamma[:, i], stats.gamma(a / 1.05**2, scale=1.05**2 / b).cdf) < LEAST_P


@pytest.mark.parametrize("num_samples", [1, 3])
def test_shapes_and_independence(num_samples: int) -> None:
    """Draws are (K, *batch, *event), different for each sample and element."""
    shape = (2, 1, 3)
    for law in (Normal(torch.zeros(shape), torch.ones(shape)), Gamma(torch.ones(shape), torch.ones(shape))):
        z = law.rsample(num_samples)
        assert z.shape == (num_samples, *shape)
        assert len(z.unique()) == z.numel()


def derivatives(of: Tensor, parameter: Tensor) -> Tensor:
    """∂z/∂λ of every draw, for a parameter with one copy for each draw."""
    return torch.autograd.grad(of.sum(), parameter, retain_graph=True)[0]


def test_implicit_derivative_of_a_gamma_draw() -> None:
    """d E[z]/da = 1/b, d E[log z]/da = ψ'(a), d E[z]/db = −a/b², and z log-derivative in b is −1/b draw by draw."""
    a = CONCENTRATION[1:].expand(N, -1).clone().requires_grad_()
    b = RATE[1:].expand(N, -1).clone().requires_grad_()
    z = Gamma(a, b).rsample(1)[0]
    assert oracles.max_z(derivatives(z, a), 1 / RATE[1:]) < LIMIT
    assert oracles.max_z(derivatives(z.log(), a), torch.polygamma(1, CONCENTRATION[1:])) < LIMIT
    assert oracles.max_z(derivatives(z, b), -CONCENTRATION[1:] / RATE[1:] ** 2) < LIMIT
    torch.testing.assert_close(derivatives(z.log(), b), (-1 / b).detach())
    assert oracles.max_z(derivatives(z, a).detach(), RATE[1:]) > LIMIT


def test_derivatives_of_a_normal_draw() -> None:
    """∂z/∂loc = 1 and ∂z/∂scale = (z − loc)/scale, draw by draw."""
    m, s = LOC.expand(10, -1).clone().requires_grad_(), SCALE.expand(10, -1).clone().requires_grad_()
    z = Normal(m, s).rsample(1)[0]
    torch.testing.assert_close(derivatives(z, m), torch.ones_like(z))
    torch.testing.assert_close(derivatives(z, s), ((z - m) / s).detach())


# --- divergences ----------------------------------------------------------------------------------------------------

NORMALS = (Normal(LOC, SCALE), Normal(LOC + SCALE, 1.7 * SCALE))
GAMMAS = (Gamma(CONCENTRATION, RATE), Gamma(1.3 * CONCENTRATION, 1.2 * RATE))


@pytest.mark.parametrize(
    ("kl", "q", "p", "theirs"),
    [(kl_normal, *NORMALS, reference.Normal), (kl_gamma, *GAMMAS, reference.Gamma)],
)
def test_kl(kl: Callable, q: Law, p: Law, theirs: type[reference.Distribution]) -> None:
    """In closed form against torch's, by Monte Carlo, and zero of a law from itself; the reverse KL is caught."""
    value = kl(q, p)
    assert agrees(value, reference.kl_divergence(theirs(*vars(q).values()), theirs(*vars(p).values())))
    assert agrees(kl(q, q), torch.zeros_like(value))
    z = q.rsample(N)
    log_ratio = q.log_prob(z) - p.log_prob(z)
    assert oracles.max_z(log_ratio, value) < LIMIT
    assert oracles.max_z(log_ratio, kl(p, q)) > LIMIT


def test_mean_log_and_entropy_of_a_gamma() -> None:
    """E[log z] and E[−log q(z)] by Monte Carlo."""
    q = GAMMAS[0]
    z = q.rsample(N)
    assert oracles.max_z(z.log(), q.mean_log) < LIMIT
    assert oracles.max_z(-q.log_prob(z), q.entropy()) < LIMIT


# --- transforms -----------------------------------------------------------------------------------------------------

TRANSFORMS: list[tuple[Positive, Callable[[Tensor], Tensor]]] = [
    (Exponential(), torch.exp),
    (Softplus(), lambda raw: torch.logaddexp(raw, torch.zeros_like(raw))),
    (Precision(), lambda raw: raw.exp().rsqrt()),
]
RAW = torch.linspace(-25, 25, 1001, dtype=torch.float64)


@pytest.mark.parametrize(("transform", "definition"), TRANSFORMS)
def test_transforms(transform: Positive, definition: Callable[[Tensor], Tensor]) -> None:
    """Values, inverse, and the derivative that an optimizer feels; 1e-8 since torch's softplus is linear above 20."""
    raw = RAW.clone().requires_grad_()
    value = transform(raw)
    assert bool((value > 0).all()) and len(value.diff().sign().unique()) == 1
    torch.testing.assert_close(value, definition(RAW), rtol=1e-9, atol=0)
    torch.testing.assert_close(transform.inverse(value), RAW, rtol=1e-8, atol=1e-8)
    (slope,) = torch.autograd.grad(value.sum(), raw)
    numeric = (definition(RAW + 1e-5) - definition(RAW - 1e-5)) / 2e-5
    torch.testing.assert_close(slope, numeric, rtol=1e-7, atol=1e-12)


def test_report_000_starts_softplus_at_one() -> None:
    """Its raw values of one are the 1.3132616875182228 of conf/experiment/bbvi_naive.yaml."""
    assert float(Softplus().inverse(torch.tensor(1.3132616875182228, dtype=torch.float64))) == pytest.approx(
        1, abs=1e-12
    )


@pytest.mark.parametrize("count", [1, 15, 16, 100])
def test_a_sum_of_bernoulli_log_densities(count: int) -> None:
    logits, y = 5 * torch.randn(3, count, dtype=torch.float64), (torch.rand(count) < 0.5).double()
    logits[0] *= 200
    exact = reference.Bernoulli(logits=logits).log_prob(y.expand_as(logits)).sum(dim=-1)
    torch.testing.assert_close(sum_of_log_densities(logits, y), exact, rtol=1e-13, atol=count * 1e-16)
    rounded = sum_of_log_densities(logits.float(), y.float()).double()
    torch.testing.assert_close(rounded, exact, rtol=1e-6, atol=count * 1e-7)
    free = logits[1:].requires_grad_()
    assert torch.autograd.gradcheck(sum_of_log_densities, (free, y))
    assert torch.autograd.gradgradcheck(sum_of_log_densities, (free, y))
