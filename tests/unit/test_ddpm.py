"""Diffusion models against brute-force Gaussian conditioning, quadrature, and sampled trajectories.

On data N(m, S) the states x_0, ..., x_T are jointly Gaussian. The oracle builds their covariance from the definition of
q(x_t | x_{t−1}) and conditions by Schur complements; it shares no formula with the library. Statistical assertions use
`oracles.limit`, and each has a broken variant that the same assertion rejects.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from scipy import stats
from torch import Tensor, nn

from tests import oracles
from tests.conftest import CommandLine, configuration, summary_of
from vi_core.bounds.elbo import ELBO
from vi_core.datasets.digits import Digits
from vi_core.datasets.synthetic import Gaussian2D, TwoMoons
from vi_core.distributions.normal import Normal, kl_normal
from vi_core.estimators.base import Estimator
from vi_core.estimators.diffusion import DiffusionSimple, DiffusionVariational
from vi_core.families.forward_process import ForwardProcess
from vi_core.models.base import denoising_terms
from vi_core.models.diffusion.ddpm import DDPM
from vi_core.models.diffusion.process import (
    Beta,
    BetaTilde,
    Cosine,
    Diffusion,
    Linear,
    LogSNR,
    ReverseVariance,
    Schedule,
)
from vi_core.models.diffusion.reverse import (
    Decoder,
    Denoiser,
    DiscretizedDecoder,
    GaussianDecoder,
    GreyLevelDenoiser,
    NetworkDenoiser,
)
from vi_core.plots.images import reverse_figure, terms_figure

T, N = 25, 20_000
LIMIT = oracles.limit(N)
MEAN = torch.tensor([0.5, -0.5], dtype=torch.float64)
CORRELATED = torch.tensor([[1.44, 0.576], [0.576, 0.64]], dtype=torch.float64)
IDENTITY = torch.eye(2, dtype=torch.float64)
SCHEDULES = {"linear": Linear(), "cosine": Cosine(), "log_snr": LogSNR()}
VARIANCES = {"beta": Beta(), "beta_tilde": BetaTilde()}


@pytest.fixture(autouse=True)
def _double() -> None:
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(5)


# --- the oracle -----------------------------------------------------------------------------------------------------


class Chain:
    """The joint law of x_0, ..., x_T for x_0 ~ N(m, S), as one mean and one covariance of D (T + 1) numbers."""

    def __init__(self, mean: Tensor, covariance: Tensor, betas: Tensor):
        self.size, self.betas = len(mean), betas.numpy()
        blocks: list[np.ndarray] = [np.eye(self.size)]  # x_t = A_t x_0 + noise: rows of a lower triangular map
        root = np.linalg.cholesky(covariance.numpy() + 0.0)
        count = len(betas) + 1
        weights = np.zeros((count, count))  # x_t = Σ_j weights[t, j] e_j, with e_0 = x_0 − m and e_j ~ N(0, I)
        weights[0, 0] = 1
        for t, beta in enumerate(self.betas, start=1):
            weights[t] = math.sqrt(1 - beta) * weights[t - 1]
            weights[t, t] = math.sqrt(beta)
        loading = np.kron(weights, blocks[0])
        loading[:, : self.size] = loading[:, : self.size] @ root
        self.covariance = loading @ loading.T
        self.mean = np.kron(weights[:, 0], mean.numpy())

    def rows(self, *steps: int) -> np.ndarray:
        """Places of the states at `steps`."""
        return np.concatenate([np.arange(self.size) + self.size * step for step in steps])

    def conditional(self, of: int, *given: int) -> tuple[np.ndarray, np.ndarray]:
        """Regression matrix on the given states, and covariance of what is left."""
        a, b = self.rows(of), self.rows(*given)
        gain = np.linalg.solve(self.covariance[np.ix_(b, b)], self.covariance[np.ix_(b, a)]).T
        return gain, self.covariance[np.ix_(a, a)] - gain @ self.covariance[np.ix_(b, a)]

    def terms(self, variances: Tensor) -> Tensor:
        """L_0, L_1, ..., L_T with the best means, by the cross-entropies and entropies of Normals."""
        found = []
        for t, variance in enumerate(variances.tolist(), start=1):
            _, left = self.conditional(t - 1, t)
            cross = 0.5 * (self.size * math.log(2 * math.pi * variance) + np.trace(left) / variance)
            found.append(cross - (self.entropy(self.conditional(t - 1, 0, t)[1]) if t > 1 else 0.0))
        last = self.conditional(len(variances), 0)[1]
        rows = self.rows(len(variances))
        power = np.trace(self.covariance[np.ix_(rows, rows)]) + self.mean[rows] @ self.mean[rows]
        found.append(0.5 * (self.size * math.log(2 * math.pi) + power) - self.entropy(last))
        return torch.tensor(found)

    def gap(self, variances: Tensor) -> float:
        """Σ_t E KL(q(x_{t−1} | x_t) ‖ N(its mean, σ_t² I)): what inexact reverse kernels cost."""
        total = 0.0
        for t, variance in enumerate(variances.tolist(), start=1):
            left = self.conditional(t - 1, t)[1]
            total += 0.5 * (self.size * math.log(2 * math.pi * variance) + np.trace(left) / variance)
            total -= self.entropy(left)
        return total

    def best(self) -> float:
        """H(q(x_0)) + KL(q(x_T) ‖ N(0, I))."""
        rows = self.rows(len(self.betas))
        end = self.covariance[np.ix_(rows, rows)]
        power = np.trace(end) + self.mean[rows] @ self.mean[rows]
        kl = 0.5 * (power - self.size - np.linalg.slogdet(end)[1])
        return self.entropy(self.covariance[np.ix_(self.rows(0), self.rows(0))]) + kl

    @staticmethod
    def entropy(covariance: np.ndarray) -> float:
        """Of a Normal, in nats."""
        return 0.5 * float(np.linalg.slogdet(2 * math.pi * math.e * covariance)[1])


class Optimal(Denoiser):
    """E[ε | x_t] on N(m, S), times θ."""

    def __init__(self, betas: Tensor, mean: Tensor = MEAN, covariance: Tensor = CORRELATED):
        super().__init__()
        self.signal, self.theta = (1 - betas).cumprod(0), nn.Parameter(torch.ones(()))
        self.mean, self.spread, self.basis = mean, *torch.linalg.eigh(covariance)

    def forward(self, state: Tensor, time: Tensor, signal: Tensor) -> Tensor:
        kept = self.signal[(time * len(self.signal)).round().long() - 1].unsqueeze(-1)
        centred = (state - kept.sqrt() * self.mean) @ self.basis
        return self.theta * ((1 - kept).sqrt() * centred / (kept * self.spread + 1 - kept)) @ self.basis.T


def optimal_model(
    covariance: Tensor = CORRELATED,
    schedule: Schedule | None = None,
    reverse_variance: ReverseVariance | None = None,
    steps: int = T,
) -> DDPM:
    schedule = schedule or Linear()
    return DDPM(
        2,
        num_steps=steps,
        schedule=schedule,
        reverse_variance=reverse_variance or Beta(),
        decoder=GaussianDecoder(),
        denoiser=Optimal(schedule.betas(steps), covariance=covariance),
    )


def network_model(decoder: Decoder, size: int = 2) -> DDPM:
    """A network as it is initialised: far from the optimum, which no identity of the bound may need."""
    return DDPM(
        size,
        num_steps=T,
        schedule=Linear(),
        reverse_variance=BetaTilde(),
        decoder=decoder,
        denoiser=NetworkDenoiser(size, hidden=[8]),
    )


def data(count: int, covariance: Tensor = CORRELATED) -> Tensor:
    return MEAN + torch.randn(count, 2) @ torch.linalg.cholesky(covariance).T


def family_of(model: DDPM) -> ForwardProcess:
    return ForwardProcess(model.latents, 1, model.process)


# --- schedules and the forward process ------------------------------------------------------------------------------


def test_linear_schedule_is_that_of_ho_et_al_at_a_thousand_steps() -> None:
    betas = Linear().betas(1000)
    torch.testing.assert_close(betas, torch.linspace(1e-4, 0.02, 1000))
    assert 4e-5 < (1 - betas).prod() < 4.1e-5
    assert 2e-5 < (1 - Linear().betas(100)).prod() < 2.5e-5  # rescaled; the same numbers at T = 100 would leave
    assert (1 - torch.linspace(1e-4, 0.02, 100)).prod() > 0.36


def test_cosine_schedule() -> None:
    betas = Cosine().betas(50)
    signal = (1 - betas).cumprod(0)
    expected = [math.cos(math.pi / 2 * (t / 50 + 0.008) / 1.008) ** 2 for t in range(51)]
    assert signal[:-1].tolist() == pytest.approx([value / expected[0] for value in expected[1:-1]])
    assert betas[-1] == 0.999


def test_log_snr_schedule_loses_the_same_factor_at_every_step() -> None:
    signal = (1 - LogSNR(first=0.01, last=0.02).betas(50)).cumprod(0)
    ratio = (signal[1:] / (1 - signal[1:])) / (signal[:-1] / (1 - signal[:-1]))
    assert (1 - signal[0].item(), signal[-1].item()) == pytest.approx((0.01, 0.02))
    assert ratio.tolist() == pytest.approx([(0.02 / 0.98 / 99) ** (1 / 49)] * 49)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_kernels_are_those_of_the_chain(schedule: Schedule) -> None:
    """q(x_t | x_0) and q(x_{t−1} | x_t, x_0) against conditioning of the joint law."""
    betas = schedule.betas(T)
    process, chain = Diffusion(betas, lambda x: x), Chain(MEAN, CORRELATED, betas)
    start, state = torch.randn(2), torch.randn(2)
    for t in range(1, T + 1):
        gain, left = chain.conditional(t, 0)
        marginal = process.marginal(start, torch.tensor(t))
        torch.testing.assert_close(marginal.loc, torch.from_numpy(gain) @ start)
        torch.testing.assert_close(marginal.scale.square() * IDENTITY, torch.from_numpy(left))
    for t in range(2, T + 1):
        gain, left = chain.conditional(t - 1, 0, t)
        posterior = process.posterior(start, state, torch.tensor(t))
        torch.testing.assert_close(posterior.loc, torch.from_numpy(gain) @ torch.cat([start, state]))
        torch.testing.assert_close(posterior.scale.square() * IDENTITY, torch.from_numpy(left))


def test_family_is_the_chain() -> None:
    """Draws and log q of whole paths, against the joint law of x_1, ..., x_T for a given x_0."""
    model = optimal_model()
    q = family_of(model).distribution(family_of(model).variational(MEAN.unsqueeze(0)))
    path = q.sample(N)["path"]
    assert path.shape == (N, 1, 1, T, 2)
    chain = Chain(MEAN, 1e-30 * IDENTITY, Linear().betas(T))
    rows = chain.rows(*range(1, T + 1))
    mean, covariance = torch.from_numpy(chain.mean[rows]), torch.from_numpy(chain.covariance[np.ix_(rows, rows)])
    law = torch.distributions.MultivariateNormal(mean, covariance)
    torch.testing.assert_close(q.log_prob({"path": path[:5]}).squeeze(), law.log_prob(path[:5].reshape(5, -1)))
    centred = path.reshape(N, -1) - mean
    assert oracles.max_z(centred, torch.zeros(2 * T)) < LIMIT
    assert oracles.max_z(centred * centred[:, :1], covariance[:, 0]) < LIMIT
    loc, scale = q.moments()["path"]
    torch.testing.assert_close(loc.flatten(), mean)
    torch.testing.assert_close(scale.flatten(), covariance.diagonal().sqrt())


# --- the closed form ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("covariance", [IDENTITY, CORRELATED], ids=["identity", "correlated"])
@pytest.mark.parametrize("variance", VARIANCES.values(), ids=VARIANCES)
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_closed_form(schedule: Schedule, variance: ReverseVariance, covariance: Tensor) -> None:
    """Every term, and L = H(q(x_0)) + KL(q(x_T) ‖ p(x_T)) + the cost of the reverse kernels."""
    model = optimal_model(covariance, schedule, variance)
    chain = Chain(MEAN, covariance, schedule.betas(T))
    terms = model.affine_optimum(MEAN, covariance)
    torch.testing.assert_close(terms, chain.terms(model.variance))
    gap = chain.gap(model.variance)
    assert terms.sum().item() == pytest.approx(chain.best() + gap, abs=1e-9)
    exact = isinstance(variance, Beta) and covariance is IDENTITY
    assert (abs(gap) < 1e-9) == exact


def test_errors_of_the_reports_break_the_closed_form() -> None:
    """Exact reverse kernels: L is H + KL, and neither a sum over t > 2 nor L_0 without its minus is."""
    terms = optimal_model(IDENTITY).affine_optimum(MEAN, IDENTITY)
    best = Chain(MEAN, IDENTITY, Linear().betas(T)).best()
    assert terms.sum().item() == pytest.approx(best, abs=1e-9)
    assert abs(terms.sum() - terms[1] - best) > 0.5
    assert abs(terms.sum() - 2 * terms[0] - best) > 0.5


def discrepancy(model: DDPM, exact: Tensor) -> float:
    """Largest standardised error of the terms, and of their sum, on fresh Gaussian data."""
    with torch.no_grad():
        terms = denoising_terms(model, data(N), 1)
    seen = torch.cat([terms, terms.sum(dim=0, keepdim=True)]).T
    return oracles.max_z(seen, torch.cat([exact, exact.sum().reshape(1)]))


@pytest.mark.parametrize("variance", VARIANCES.values(), ids=VARIANCES)
def test_monte_carlo_terms_have_their_closed_form(variance: ReverseVariance) -> None:
    model = optimal_model(reverse_variance=variance)
    assert discrepancy(model, Chain(MEAN, CORRELATED, Linear().betas(T)).terms(model.variance)) < LIMIT


def broken(name: str) -> DDPM:
    """The optimal model with one thing wrong."""
    model = optimal_model()
    process = model.process
    if name == "posterior variance":
        process.beta_tilde = process.beta.clone()
    elif name == "marginal noise":
        process.noise = process.noise.square()
    elif name == "shifted t":
        process.signal = process.signal.roll(1)
    else:
        model.variance = model.variance.sqrt()
    return model


@pytest.mark.parametrize("name", ["posterior variance", "marginal noise", "shifted t", "scale for variance"])
def test_a_broken_model_is_caught(name: str) -> None:
    assert discrepancy(broken(name), Chain(MEAN, CORRELATED, Linear().betas(T)).terms(optimal_model().variance)) > LIMIT


def test_a_network_is_above_the_closed_form() -> None:
    model = network_model(GaussianDecoder())
    with torch.no_grad():
        terms = denoising_terms(model, data(2000), 1).mean(dim=1)
    assert terms.sum() > model.affine_optimum(MEAN, CORRELATED).sum() + 1


# --- the bound from its definition ----------------------------------------------------------------------------------


def definition(model: DDPM, x: Tensor, num_samples: int) -> Tensor:
    """log p(x_0, ..., x_T) − log q(x_1, ..., x_T | x_0) along sampled paths, (K,)."""
    q = family_of(model).distribution(family_of(model).variational(x))
    z = q.sample(num_samples)
    return (model.log_joint(z, x) - q.log_prob(z)).squeeze(-1).squeeze(-1)


CASES = {
    "gaussian": (GaussianDecoder(), torch.tensor([[0.3, -1.2]])),
    "discretized": (DiscretizedDecoder(levels=17), torch.tensor([[0.25, 1.0, 0.0]])),
}


@pytest.mark.parametrize("case", CASES)
def test_terms_sum_to_the_elbo(case: str) -> None:
    """The sum of terms and E_q[log p(x_0, ..., x_T) − log q] of one data point; each drops or turns a term in turn."""
    decoder, x = CASES[case]
    model = network_model(decoder, x.shape[1])
    with torch.no_grad():
        paths = definition(model, x, N)
        terms = denoising_terms(model, x.expand(N, -1), 1).T

    def z(sums: Tensor) -> float:
        error = paths.mean() + sums.mean()
        return float((error / (paths.var() / N + sums.var() / len(sums)).sqrt()).abs())

    limit = oracles.limit(len(terms))
    assert z(terms.sum(dim=1)) < limit
    assert z(terms.sum(dim=1) - terms[:, 1]) > limit  # the sum begins at t > 2
    assert z(terms.sum(dim=1) - 2 * terms[:, 0]) > limit  # L_0 without its minus


@pytest.mark.parametrize("case", CASES)
def test_what_is_decoded_at_later_steps_has_no_part_in_the_terms(case: str) -> None:
    """Every step is decoded; value and gradient are those of the first and of the later steps apart, and finite."""
    decoder, x = CASES[case]
    model, points = network_model(decoder, x.shape[1]), x.expand(40, -1)
    noise, t = torch.randn(1, 40, x.shape[1]), torch.arange(40).remainder(4).add(1).unsqueeze(0)
    weights = [*model.parameters()]

    def by_hand(rows: Tensor, decoded: bool) -> Tensor:
        start, steps = model.process.lift(points[rows]), t[:, rows]
        marginal = model.process.marginal(start, steps)
        state = marginal.loc + marginal.scale * noise[:, rows]
        back = model.backward(state, model.predict(state, steps), steps)
        if decoded:
            return -model.decoder.log_prob(start, back).sum()
        return kl_normal(model.process.posterior(start, state, steps), back).sum()

    first = t.squeeze(0) == 1
    totals = (model.denoising(points, t, noise).term.sum(), by_hand(first, True) + by_hand(~first, False))
    found, expected = ([v.detach(), *torch.autograd.grad(v, weights, materialize_grads=True)] for v in totals)
    torch.testing.assert_close(found, expected)
    assert bool(torch.cat([value.flatten() for value in found]).isfinite().all())


# --- estimators -----------------------------------------------------------------------------------------------------


def estimates(estimator: Estimator, theta: float) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Bound, gradient in a θ of its own for each data point, and terms, on optimal noise times θ; each (N,)."""
    model = optimal_model()
    assert isinstance(model.denoiser, Optimal)
    copies = nn.Parameter(torch.full((N, 1), theta))
    model.denoiser.theta = copies
    estimate = estimator(model, family_of(model), ELBO(), data(N))
    (gradient,) = torch.autograd.grad(estimate.surrogate.sum(), copies)
    return estimate.bound[0], gradient[:, 0], {name: term[0] for name, term in estimate.terms.items()}


def expected(theta: float) -> tuple[Tensor, float, float]:
    """Terms at θ, and the derivatives of the ELBO and of −E‖ε − θ ε*‖²/T: E‖ε*‖² = E ε·ε* = D − E‖ε − ε*‖²."""
    model = optimal_model()
    terms = model.affine_optimum(MEAN, CORRELATED)
    beta, signal = model.process.beta, model.process.signal
    weight = beta.square() / (2 * model.variance * (1 - beta) * (1 - signal))
    kept = signal.unsqueeze(1) * torch.linalg.eigvalsh(CORRELATED)
    power = 2 - (kept / (kept + 1 - signal.unsqueeze(1))).sum(dim=1)
    terms[:-1] += weight * (theta - 1) ** 2 * power
    return terms, float(-2 * (theta - 1) * (weight * power).sum()), float(-2 * (theta - 1) * power.mean())


@pytest.mark.parametrize("num_samples", [1, 3])
def test_random_steps_are_unbiased(num_samples: int) -> None:
    """Bound, terms and gradient of both estimators; and neither gradient is the other's."""
    theta = 0.7
    terms, slope, simple_slope = expected(theta)
    exact = torch.stack([-terms.sum(), terms[-1], terms[1:-1].sum(), terms[0]])
    for estimator in (DiffusionVariational(num_samples=num_samples), DiffusionSimple(num_samples=num_samples)):
        simple = isinstance(estimator, DiffusionSimple)
        bound, gradient, found = estimates(estimator, theta)
        seen = torch.stack([bound, found["L_T"], found["L_t"], found["L_0"]], dim=1)
        assert oracles.max_z(seen, exact) < LIMIT
        own, other = (simple_slope, slope) if simple else (slope, simple_slope)
        assert oracles.max_z(gradient.unsqueeze(1), torch.tensor([own])) < LIMIT
        assert oracles.max_z(gradient.unsqueeze(1), torch.tensor([other])) > LIMIT


@pytest.mark.parametrize("estimator", [DiffusionVariational(num_samples=2), DiffusionSimple(num_samples=2)])
def test_evaluation_takes_every_step(estimator: Estimator) -> None:
    model = optimal_model()
    value = estimator.value(model, family_of(model), ELBO(), data(N))
    assert value.shape == (1, N)
    assert oracles.max_z(value.T, -expected(1.0)[0].sum().reshape(1)) < LIMIT


# --- the decoder of grey levels -------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_grey_levels_have_probabilities(levels: int) -> None:
    """They sum to 1, are the Normal's mass by scipy, and keep their gradient where that mass is far in a tail."""
    decoder = DiscretizedDecoder(levels=levels)
    grid = decoder.lift(torch.linspace(0, 1, levels)).unsqueeze(1)
    loc = torch.tensor([-30.0, -1.3, -0.2, 0.0, 0.51, 1.0, 7.0], requires_grad=True)
    scale = torch.tensor([0.02, 0.3, 0.01, 2.0, 0.05, 0.02, 1.0])
    log_prob = decoder.log_prob(grid, Normal(loc, scale))
    assert log_prob.exp().sum(dim=0).tolist() == pytest.approx([1.0] * 7)
    half = 1 / (levels - 1)
    low = np.where(grid.numpy() < -1 + half, -np.inf, grid.numpy() - half)
    high = np.where(grid.numpy() > 1 - half, np.inf, grid.numpy() + half)
    law = stats.norm(loc.detach().numpy(), scale.numpy())
    np.testing.assert_allclose(log_prob.detach().exp().numpy(), law.cdf(high) - law.cdf(low), atol=1e-12)
    (gradient,) = torch.autograd.grad(log_prob.sum(), loc)
    assert bool(log_prob.isfinite().all()) and bool(gradient.isfinite().all())


def test_closed_outer_bins_would_lose_probability() -> None:
    law = stats.norm(1.0, 0.1)
    grid = np.linspace(-1, 1, 17)
    assert (law.cdf(grid + 1 / 16) - law.cdf(grid - 1 / 16)).sum() < 0.8


def test_grey_levels_are_drawn_as_they_are_scored() -> None:
    decoder = DiscretizedDecoder(levels=5)
    p = Normal(torch.full((N, 1), 0.8), torch.full((N, 1), 0.4))
    grid = decoder.lift(torch.linspace(0, 1, 5))
    shares = (decoder.sample(p) == grid).double()
    assert bool((shares.sum(dim=1) == 1).all())
    exact = decoder.log_prob(grid, Normal(p.loc[0], p.scale[0])).exp()
    assert oracles.max_z(shares, exact) < LIMIT
    assert oracles.max_z(shares, torch.full((5,), 0.2)) > LIMIT


# --- the denoiser of grey levels ------------------------------------------------------------------------------------

SHARES = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)


def grey_denoiser(levels: int, table: Tensor, linear: float = 0.0, square: float = 0.0) -> GreyLevelDenoiser:
    """One pixel with prior weights exp(table + linear g + square g²) at every state and time."""
    denoiser = GreyLevelDenoiser(1, levels=levels, hidden=[4])
    last = denoiser.network.layers[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        denoiser.table.copy_(table.expand(1, levels))
        last.weight.zero_()
        last.bias.copy_(torch.tensor([linear, square]))
    return denoiser


def grey_model(num_steps: int, schedule: Schedule) -> DDPM:
    """The best denoiser of one pixel with three levels, of the given `SHARES`."""
    return DDPM(
        1,
        num_steps=num_steps,
        schedule=schedule,
        reverse_variance=BetaTilde(),
        decoder=DiscretizedDecoder(levels=3),
        denoiser=grey_denoiser(3, SHARES.log()),
    )


@pytest.mark.parametrize("signal", [0.05, 0.5, 0.9])
def test_grey_levels_follow_bayes_rule(signal: float) -> None:
    """Few levels by enumeration with scipy's densities; so many that the prior is a Normal, in closed form."""
    state, kept = torch.tensor([[-1.1], [0.3], [0.9]]), torch.tensor(signal)
    noise = {"few": grey_denoiser(3, SHARES.log()), "many": grey_denoiser(2001, torch.zeros(1), 5.0, -50.0)}
    start = {
        name: ((state - (1 - signal) ** 0.5 * denoiser(state, kept, kept)) / signal**0.5).detach()
        for name, denoiser in noise.items()
    }
    grid = np.array([-1.0, 0.0, 1.0])
    weights = SHARES.numpy() * stats.norm.pdf(state.numpy(), signal**0.5 * grid, (1 - signal) ** 0.5)
    np.testing.assert_allclose(start["few"][:, 0], weights @ grid / weights.sum(axis=1), atol=1e-10)
    mean, precision, seen = 0.05, 100.0, signal / (1 - signal)
    exact = (precision * mean + signal**0.5 / (1 - signal) * state) / (precision + seen)
    torch.testing.assert_close(start["many"], exact, atol=1e-5, rtol=0)
    assert float((start["many"] - (exact - mean)).abs().max()) > 1e-3  # a prior around 0


def test_bound_of_the_best_denoiser_falls_to_the_entropy() -> None:
    """Of one pixel with known shares, as T grows; the linear schedule of the same T is further from it."""
    entropy = -float((SHARES * SHARES.log()).sum())
    x = torch.multinomial(SHARES, 2000, replacement=True).unsqueeze(1) / 2.0
    cross = -float((SHARES.log()[(2 * x).long()]).mean())
    assert cross == pytest.approx(entropy, abs=0.05)
    with torch.no_grad():
        excess = [
            float(denoising_terms(grey_model(steps, schedule), x, 4).sum(dim=0).mean()) - cross
            for steps, schedule in ((50, LogSNR()), (200, LogSNR()), (50, Linear()))
        ]
    assert 0 < excess[1] < 0.5 * excess[0] < 0.5 * excess[2]


def test_histograms_of_pixels_are_what_digits_have_to_beat() -> None:
    """Independent pixels, shares of the levels in the training images with one added: 2.437 bits per dimension."""
    data = Digits(binarization="none").load()
    train, test = (16 * data.decode(part) for part in (data.train, data.test) if part is not None)
    counts = torch.nn.functional.one_hot(train.flatten(1).round().long(), 17).sum(dim=0) + 1.0
    shares = counts / counts.sum(dim=1, keepdim=True)
    seen = shares[torch.arange(64), test.flatten(1).round().long()]
    bits = -float(seen.log2().mean())
    assert bits == pytest.approx(2.437, abs=1e-3)
    config: Any = OmegaConf.to_container(configuration("experiment=ddpm_digits"))
    (item,) = config["expected"]
    assert item["value"] + item["tolerance"] < bits - 0.1


# --- generation -----------------------------------------------------------------------------------------------------


def test_generated_points_have_the_law_of_the_data() -> None:
    """Exact kernels, data N(m, I): mean and second moments of x_0, and of x_T = noise. ᾱ_T m is below the error."""
    model = optimal_model(IDENTITY, steps=50)
    with torch.no_grad():
        states = model.generate(N)
    assert states.shape == (51, N, 2)
    for state, mean in ((states[-1], MEAN), (states[0], torch.zeros(2))):
        centred = state - mean
        seen = torch.cat([centred, centred.square(), centred.prod(dim=1, keepdim=True)], dim=1)
        assert oracles.max_z(seen, torch.tensor([0.0, 0.0, 1.0, 1.0, 0.0])) < LIMIT
    assert oracles.max_z(states[25], MEAN) > LIMIT  # half-way it is not there yet


# --- refusals, data and the command line ----------------------------------------------------------------------------

PATHWISE = ["model=ddpm", "family=forward_process", "estimator=pathwise"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([*PATHWISE, "dataset=digits"], "model/decoder=gaussian is a density"),
        ([*PATHWISE, "dataset=normal"], "model=ddpm describes vectors"),
        ([*PATHWISE, "model/decoder=discretized", "dataset=two_moons"], "model.decoder.levels=17 describes pixels"),
        (["family=forward_process"], "use it with model=ddpm"),
        (["model=ddpm", "dataset=two_moons"], "family=mean_field describes real and positive latents"),
        ([*PATHWISE[:2], "dataset=two_moons", "estimator=exact"], "use estimator=pathwise"),
        (
            ["experiment=ddpm_bound", "bound=iwelbo"],
            "estimator=diffusion_variational is for the ELBO, not for bound=iwelbo",
        ),
        (["experiment=bbvi", "estimator=diffusion_simple"], "have no denoising terms"),
        (["experiment=ddpm_bound", "replicates=2"], "replicates=2 needs a model without weights"),
        (["experiment=ddpm_bound", "model.num_steps=20"], "model.num_steps=20 must exceed 20.0"),
        (["experiment=ddpm_bound", "model.num_steps=1"], "model.num_steps=1 must be at least 2"),
        (["experiment=ddpm_bound", "model.schedule.first=0"], "model.schedule.first=0 must be positive"),
        (["experiment=ddpm_bound", "model/schedule=log_snr", "model.schedule.first=1"], "first=1 must lie between"),
        (["experiment=ddpm_bound", "model/schedule=log_snr", "model.schedule.last=1"], "last=1 must lie between"),
        (["experiment=ddpm_bound", "model/denoiser=grey_levels"], "model.denoiser.levels=17 needs data on 17 grey"),
        (["experiment=ddpm_digits", "model.denoiser.levels=16"], "model.denoiser.levels=16 needs data on 16 grey"),
        (["experiment=ddpm_digits", "model.denoiser.levels=1"], "model.denoiser.levels=1 must be at least 2"),
        (["experiment=ddpm_bound", "model.denoiser.frequencies=0"], "model.denoiser.frequencies=0 must be at least 1"),
        (["experiment=ddpm_bound", "dataset.correlation=1"], "dataset.correlation=1 must lie between -1 and 1"),
    ],
)
def test_refusals(cli: CommandLine, arguments: list[str], expected: str) -> None:
    chosen = [*arguments, "replicates=1"] if "replicates=2" not in arguments else arguments
    result = cli("--run", "trainer=smoke", "plot.enabled=false", *chosen)
    assert result.code == 1
    assert expected in result.err
    assert len(result.err.strip().splitlines()) == 1


def test_two_dimensional_data() -> None:
    """The Normal has the law it names; the moons lie on their half circles."""
    points = Gaussian2D().load().train.double()
    centred = points - MEAN
    seen = torch.cat([centred, centred.square(), centred.prod(dim=1, keepdim=True)], dim=1)
    exact = torch.tensor([0.0, 0.0, 1.44, 0.64, 0.576])
    assert oracles.max_z(seen, exact) < oracles.limit(len(points))
    assert oracles.max_z(seen, torch.tensor([0.0, 0.0, 1.44, 0.64, -0.576])) > oracles.limit(len(points))
    moons = TwoMoons(noise=0.0).load().train + torch.tensor([0.5, 0.25])
    upper = moons.square().sum(dim=1)
    lower = (moons - torch.tensor([1.0, 0.5])).square().sum(dim=1)
    assert float(torch.minimum((upper - 1).abs(), (lower - 1).abs()).max()) < 1e-5


@pytest.mark.parametrize("name", ["ddpm_bound", pytest.param("ddpm_digits", marks=pytest.mark.slow)])
def test_a_run_reports_its_terms_and_draws_them_again(name: str, cli: CommandLine, tmp_path: Path) -> None:
    small = ["model.denoiser.hidden=[8]", "model.num_steps=25"]
    small += [] if name == "ddpm_digits" else ["dataset.num_points=200", "dataset.num_test=100"]
    result = cli(f"experiment={name}", "--run", "trainer=smoke", *small, "hydra.run.dir=run")
    assert (result.code, result.err) == (0, "")
    found = summary_of(tmp_path / "run")["diagnostics"]["denoising"]
    steps = found["by_step"]
    assert all(len(steps[key]) == 26 for key in ("nats", "se", "bits_per_dim", "affine"))
    parts = [found[key]["nats"] for key in ("L_0", "L_t", "L_T")]
    assert found["total"]["nats"] == pytest.approx(sum(parts)) == pytest.approx(sum(steps["nats"]))
    size = 64 if name == "ddpm_digits" else 2
    assert found["total"]["bits_per_dim"] == pytest.approx(sum(parts) / (size * math.log(2)))
    assert found["units"].startswith("differential") == (name != "ddpm_digits")
    paths = [tmp_path / "run" / "plots" / f"{kind}.png" for kind in ("terms", "reverse")]
    drawn = [path.read_bytes() for path in paths]
    for path in paths:
        path.unlink()
    assert cli("--run", "task=plot", "run=run").code == 0
    assert [path.read_bytes() for path in paths] == drawn


def test_figures() -> None:
    """The points of the terms are the numbers given, and L_0 and L_T are beside them."""
    mean = np.array([-4.0, 1.0, 0.5, 0.25, 1e-5])
    figure = terms_figure(mean, 0.01 * np.ones(5), mean * 0.9, size=2, units="bits per dimension")
    axes = figure.axes[0]
    assert axes.get_yscale() == "log"
    curves = [line.get_ydata() for line in axes.get_lines()]
    assert any(np.array_equal(np.asarray(curve), mean[1:-1]) for curve in curves)
    assert "−4" in axes.texts[0].get_text()
    panels = reverse_figure(np.zeros((3, 5, 2)), [10, 5, 0], np.ones((5, 2))).axes
    assert [axes.get_title() for axes in panels] == ["t = 10", "t = 5", "t = 0: generated", "data"]


def test_expected_number_of_the_experiment() -> None:
    """What ddpm_bound is checked against is the closed form of its own settings, by the oracle."""
    config: Any = OmegaConf.to_container(configuration("experiment=ddpm_bound"))
    (item,) = [item for item in config["expected"] if item["quantity"] == "diagnostics.denoising.affine.total"]
    betas = Linear(first=config["model"]["schedule"]["first"], last=config["model"]["schedule"]["last"])
    steps = betas.betas(config["model"]["num_steps"])
    terms = Chain(MEAN, CORRELATED, steps).terms(steps)
    assert item["value"] == pytest.approx(terms.sum().item(), abs=1e-4)
    assert config["dataset"]["std"] == [1.2, 0.8] and config["dataset"]["correlation"] == 0.6
