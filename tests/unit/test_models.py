"""Models against quadrature, torch.distributions and the numbers of the reports.

Normal–Gamma runs on its four data sets; the oracles of `tests/oracles.py` are themselves checked here by quadrature.
"""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor
from torch import distributions as reference

from tests import fakes, oracles
from vi_core.algorithms.coordinate_ascent import CoordinateAscentStep
from vi_core.bounds.elbo import ELBO, IWELBO
from vi_core.datasets.synthetic import NormalDraws, NormalNumpyDraws
from vi_core.errors import LabError
from vi_core.estimators.exact import Exact
from vi_core.families.amortized.normal import AmortizedNormal
from vi_core.models.autoencoders.vae import VAE
from vi_core.models.base import HasClosedFormKL, HasExactPosterior, HasExpectedBound, HasUpdates
from vi_core.models.conjugate.normal_gamma import NormalGamma
from vi_core.types import Params, flatten

DATA = {
    "001": NormalDraws().load().train.double(),
    "000, n=10": NormalNumpyDraws(num_points=10).load().train,
    "000, n=100": NormalNumpyDraws(num_points=100).load().train,
    "000, n=1000": NormalNumpyDraws(num_points=1000).load().train,
}
PUBLISHED = {
    "001": (0.890227, 0.463315, -185.937142),
    "000, n=10": (2.033388, 0.526023, -20.621328),
    "000, n=100": (1.026105, 0.468763, -185.340944),
    "000, n=1000": (0.924436, 0.530873, -1743.289125),
}
OPTIMUM_001 = {"loc": 0.890227, "scale": 46.377864**-0.5, "concentration": 51.5, "rate": 111.155400}
TEN = DATA["000, n=10"]

MEAN_FIELD = [
    {"loc": 0.0, "scale": 1.0, "concentration": 1.0, "rate": 1.0},
    {"loc": 2.5, "scale": 0.3, "concentration": 6.0, "rate": 9.0},
    {"loc": -1.0, "scale": 2.0, "concentration": 0.7, "rate": 3.0},
]
STRUCTURED = [
    {"loc": 0.0, "precision_ratio": 1.0, "concentration": 1.0, "rate": 1.0},
    {"loc": 2.5, "precision_ratio": 8.0, "concentration": 6.0, "rate": 9.0},
    {"loc": -1.0, "precision_ratio": 0.2, "concentration": 1.7, "rate": 3.0},
]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(11)


def ours(q: dict[str, float], x: Tensor) -> float:
    """The library's closed-form ELBO."""
    model = NormalGamma()
    value = model.expected_bound(fakes.normal_gamma_params(q, 1), model.summarize(x))
    assert value.shape == (1, 1)
    return value.item()


def oracle(q: dict[str, float], x: Tensor) -> float:
    return oracles.elbo({name: torch.tensor(value, dtype=torch.float64) for name, value in q.items()}, x).item()


# --- Normal–Gamma: truth --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DATA)
def test_exact_posterior(name: str) -> None:
    """Against the published numbers, to their last digit, and against quadrature."""
    model = NormalGamma()
    exact = model.exact(model.summarize(DATA[name]))
    found = [exact["mu"], exact["tau"], exact["log_evidence"]]
    assert found == pytest.approx(PUBLISHED[name], abs=6e-7)
    numeric = oracles.posterior_by_quadrature(DATA[name].numpy())
    assert found == pytest.approx([numeric["mu"], numeric["tau"], numeric["log_evidence"]], rel=1e-9)


def test_posterior_deviations() -> None:
    """From draws of the exact posterior: mu is Student's t, tau is Gamma."""
    model = NormalGamma()
    exact = model.exact(model.summarize(TEN))
    loc, ratio, a, b = model.posterior(model.summarize(TEN))
    tau = reference.Gamma(a, b).sample((100_000,))
    mu = reference.Normal(loc, (ratio * tau).rsqrt()).sample()
    squares = torch.stack([(mu - exact["mu"]) ** 2, (tau - exact["tau"]) ** 2], dim=1)
    variances = torch.tensor([exact["mu.std"] ** 2, exact["tau.std"] ** 2], dtype=torch.float64)
    assert oracles.max_z(squares, variances) < oracles.limit(100_000)


def test_log_joint_is_the_sum_over_data() -> None:
    """From sufficient statistics, for shapes (K, R, B), against a product of densities that sees every datum."""
    x, model = DATA["001"], NormalGamma()
    mu, tau = torch.randn(6, 3, 1, dtype=torch.float64), 2 * torch.rand(6, 3, 1, dtype=torch.float64) + 0.01
    value = reference.Normal(mu.unsqueeze(-1), tau.rsqrt().unsqueeze(-1)).log_prob(x).sum(-1)
    value = value + reference.Normal(1.0, (0.1 * tau).rsqrt()).log_prob(mu)
    value = value + reference.Gamma(tau.new_tensor(1.0), tau.new_tensor(2.0)).log_prob(tau)
    torch.testing.assert_close(model.log_joint({"mu": mu, "tau": tau}, model.summarize(x)), value)


def test_prior_settings_reach_the_density() -> None:
    model = NormalGamma(loc=-0.5, precision_ratio=3.0, concentration=2.5, rate=0.7)
    mu, tau = torch.randn(4, dtype=torch.float64), torch.rand(4, dtype=torch.float64) + 0.1
    value = reference.Normal(mu.unsqueeze(-1), tau.rsqrt().unsqueeze(-1)).log_prob(TEN).sum(-1)
    value = value + reference.Normal(-0.5, (3.0 * tau).rsqrt()).log_prob(mu)
    value = value + reference.Gamma(tau.new_tensor(2.5), tau.new_tensor(0.7)).log_prob(tau)
    torch.testing.assert_close(model.log_joint({"mu": mu, "tau": tau}, model.summarize(TEN)), value)


def test_predictive_density() -> None:
    """log p(point | z) for every point and draw, (G, K, R, 1)."""
    points, z = torch.linspace(-2, 3, 4), {"mu": torch.randn(5, 2, 1), "tau": torch.rand(5, 2, 1) + 0.1}
    found = NormalGamma().log_density(points, z)
    expected = torch.stack([reference.Normal(z["mu"], z["tau"].rsqrt()).log_prob(point) for point in points])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("q", [MEAN_FIELD[1], {"loc": 2.5, "precision_ratio": 8.0, "concentration": 9.0, "rate": 6.0}])
def test_moments_of_the_families(q: dict[str, float]) -> None:
    """Marginal means and deviations against draws; that of mu is infinite where E[1/tau] is."""
    law = fakes.normal_gamma_family(q, 1).distribution(fakes.normal_gamma_params(q, 1))
    z = law.sample(100_000)
    for name, (mean, deviation) in law.moments().items():
        draws = z[name].squeeze(-1)
        assert oracles.max_z(draws, mean[0]) < oracles.limit(100_000)
        assert oracles.max_z((draws - mean[0]) ** 2, deviation[0] ** 2) < oracles.limit(100_000)
    heavy = {"loc": 0.0, "precision_ratio": 1.0, "concentration": 1.0, "rate": 1.0}
    law = fakes.normal_gamma_family(heavy, 1).distribution(fakes.normal_gamma_params(heavy, 1))
    assert law.moments()["mu"][1].item() == math.inf


def test_factors_name_the_latents_that_they_depend_on() -> None:
    """A factor's derivative is zero exactly in the latents that it does not mention."""
    model = NormalGamma()
    z = {name: (torch.rand(3, 1, 1, dtype=torch.float64) + 0.5).requires_grad_() for name in model.latents}
    for name, (value, mentioned) in model.factors(z, model.summarize(TEN)).items():
        slopes = torch.autograd.grad(value.sum(), list(z.values()), retain_graph=True, allow_unused=True)
        touched = {latent for latent, slope in zip(z, slopes, strict=True) if slope is not None}
        assert touched == mentioned, name


def test_summaries_stay_accurate_far_from_zero() -> None:
    """Centred sums do not cancel: data 10⁶ deviations from zero have the spread of the data at zero."""
    model = NormalGamma()
    near, far = model.summarize(DATA["001"]), model.summarize(DATA["001"] + 1e6)
    assert far.sum_squares.item() == pytest.approx(near.sum_squares.item(), rel=1e-8)


# --- Normal–Gamma: the closed-form ELBO -----------------------------------------------------------------------------


@pytest.mark.parametrize("q", MEAN_FIELD + STRUCTURED)
@pytest.mark.parametrize("name", ["001", "000, n=10"])
def test_expected_bound(q: dict[str, float], name: str) -> None:
    """Against the oracle, and the oracle against quadrature."""
    assert ours(q, DATA[name]) == pytest.approx(oracle(q, DATA[name]), rel=1e-11)
    assert oracle(q, DATA[name]) == pytest.approx(oracles.elbo_by_quadrature(q, DATA[name].numpy()), rel=1e-7)


@pytest.mark.parametrize("q", [MEAN_FIELD[1], STRUCTURED[1]])
def test_expected_bound_by_monte_carlo(q: dict[str, float]) -> None:
    """And the KL alone, E_q[log q − log prior], by the family's own draws."""
    model, draws = NormalGamma(), 100_000
    x, family, params = model.summarize(TEN), fakes.normal_gamma_family(q, 1), fakes.normal_gamma_params(q, 1)
    law = family.distribution(params)
    z = law.sample(draws)
    log_q, log_joint = law.log_prob(z), model.log_joint(z, x)
    samples = torch.cat([log_joint - log_q, log_q - log_joint + model.log_likelihood(z, x)], dim=-1).squeeze(1)
    closed = torch.cat([model.expected_bound(params, x), model.kl(params)]).squeeze(1)
    assert oracles.max_z(samples, closed) < oracles.limit(draws)
    assert oracles.max_z(samples, closed + torch.tensor([0.1, 0.0])) > oracles.limit(draws)
    assert oracles.max_z(samples, closed + torch.tensor([0.0, 0.1])) > oracles.limit(draws)


@pytest.mark.parametrize("name", DATA)
def test_bound_never_exceeds_the_evidence(name: str) -> None:
    """With equality at the exact posterior, in the structured family alone."""
    model = NormalGamma()
    statistics = model.summarize(DATA[name])
    evidence = model.exact(statistics)["log_evidence"]
    loc, ratio, a, b = (value.item() for value in model.posterior(statistics))
    posterior = {"loc": loc, "precision_ratio": ratio, "concentration": a, "rate": b}
    assert ours(posterior, DATA[name]) == pytest.approx(evidence, rel=1e-12)
    scale = (b / (ratio * a)) ** 0.5
    assert ours({"loc": loc, "scale": scale, "concentration": a, "rate": b}, DATA[name]) < evidence - 1e-5
    for factor in (0.5, 0.9, 1.1, 2.0):
        for key in posterior:
            assert ours(posterior | {key: posterior[key] * factor}, DATA[name]) < evidence - 1e-5


def test_gap_is_the_divergence_from_the_posterior() -> None:
    """log p(x) − ELBO = KL(q ‖ posterior), here by quadrature of the normalised posterior."""
    x = TEN.numpy()
    for q in (MEAN_FIELD[1], STRUCTURED[1]):
        gap = oracles.posterior_by_quadrature(x)["log_evidence"] - ours(q, TEN)
        draws = fakes.normal_gamma_family(q, 1).distribution(fakes.normal_gamma_params(q, 1))
        z = draws.sample(100_000)
        log_posterior = oracles.log_joint(z["mu"].numpy(), z["tau"].numpy(), x) - PUBLISHED["000, n=10"][2]
        divergence = (draws.log_prob(z) - torch.from_numpy(log_posterior)).squeeze(-1)
        assert oracles.max_z(divergence, torch.tensor([gap])) < oracles.limit(100_000)


# --- Normal–Gamma: coordinate ascent --------------------------------------------------------------------------------


def ascend(model: NormalGamma, x: Tensor, q: dict[str, float], sweeps: int) -> tuple[dict[str, float], list[float]]:
    """The last parameters of coordinate ascent and its ELBOs, by the library's step."""
    family = fakes.normal_gamma_family(q, 1)
    step = CoordinateAscentStep(model, family, ELBO(), Exact())
    statistics = model.summarize(x)
    bounds = [step(statistics)["elbo"].item() for _ in range(sweeps)]
    step.check()
    return values(family.variational()), bounds


def values(params: Params) -> dict[str, float]:
    return {name: value.item() for group in params.values() for name, value in group.items()}


@pytest.mark.parametrize("q", MEAN_FIELD)
def test_coordinate_ascent_reaches_the_mean_field_optimum(q: dict[str, float]) -> None:
    """Of the data of 001, to the published digits, and the ELBO never falls on the way."""
    found, bounds = ascend(NormalGamma(), DATA["001"], q, 12)
    assert found["loc"] == pytest.approx(0.890227, abs=6e-7)
    assert found["scale"] ** -2 == pytest.approx(46.377864, abs=6e-7)
    assert found["concentration"] == pytest.approx(51.5, abs=1e-12)
    assert found["rate"] == pytest.approx(111.155400, abs=6e-7)
    assert bounds[-1] == pytest.approx(-185.942036, abs=6e-7)
    assert all(after >= before - 1e-11 for before, after in pairwise(bounds))


@pytest.mark.parametrize("q", STRUCTURED)
def test_coordinate_ascent_of_the_structured_family_is_exact_after_one_sweep(q: dict[str, float]) -> None:
    found, bounds = ascend(NormalGamma(), DATA["001"], q, 2)
    model = NormalGamma()
    posterior = [value.item() for value in model.posterior(model.summarize(DATA["001"]))]
    assert list(found.values()) == pytest.approx(posterior, rel=1e-12)
    assert bounds[-1] == pytest.approx(PUBLISHED["001"][2], abs=6e-7)


def block_gradient(model: NormalGamma, q: dict[str, float], block: str) -> list[float]:
    """The oracle's gradient in one block's parameters after one update of it by `model`."""
    params = fakes.normal_gamma_params(q, 1)
    params[block] = model.update(block, params, model.summarize(TEN))
    free = {n: torch.tensor(v, dtype=torch.float64, requires_grad=True) for n, v in values(params).items()}
    slopes = torch.autograd.grad(oracles.elbo(free, TEN), [free[name] for name in params[block]])
    return [slope.item() for slope in slopes]


@pytest.mark.parametrize("block", ["mu", "tau"])
@pytest.mark.parametrize("q", MEAN_FIELD + STRUCTURED)
def test_one_update_makes_the_gradient_of_its_block_zero(q: dict[str, float], block: str) -> None:
    assert block_gradient(NormalGamma(), q, block) == pytest.approx([0, 0], abs=1e-9)


def test_a_wrong_update_is_caught() -> None:
    """By its gradient, and by the step itself, since its fixed point lies below the best ELBO on the way there."""
    assert max(map(abs, block_gradient(fakes.WrongUpdate(), MEAN_FIELD[1], "tau"))) > 1e-3
    for model in (fakes.WrongUpdate(), fakes.FallingUpdate()):
        with pytest.raises(LabError, match="ELBO fell"):
            ascend(model, DATA["001"], MEAN_FIELD[0], 12)


def test_a_diverged_replicate_does_not_hide_a_falling_bound() -> None:
    """The check of coordinate ascent looks at every replicate that lives."""
    model, family = fakes.FallingUpdate(), fakes.normal_gamma_family(MEAN_FIELD[0], 2)
    start = fakes.normal_gamma_params(MEAN_FIELD[0], 2)
    start["tau"]["rate"][1] = math.nan
    family.assign(start)
    step = CoordinateAscentStep(model, family, ELBO(), Exact())
    for _ in range(6):
        step(model.summarize(DATA["001"]))
    assert step.alive.tolist() == [True, False]
    with pytest.raises(LabError, match="ELBO fell"):
        step.check()


def test_replicates_of_coordinate_ascent_are_independent() -> None:
    """Each of three starts reaches what it reaches alone."""
    model, x = NormalGamma(), NormalGamma().summarize(TEN)
    together = fakes.normal_gamma_family(MEAN_FIELD[0], 3)
    starts = [fakes.normal_gamma_params(q, 1) for q in MEAN_FIELD]
    together.assign(
        {z: {n: torch.cat([start[z][n] for start in starts]) for n in group} for z, group in starts[0].items()}
    )
    step = CoordinateAscentStep(model, together, ELBO(), Exact())
    for _ in range(2):
        step(x)
    alone = [ascend(model, TEN, q, 2)[0] for q in MEAN_FIELD]
    for i, value in enumerate(flatten(together.variational())):
        assert value.flatten().tolist() == pytest.approx([list(a.values())[i] for a in alone], rel=1e-12)


def test_capabilities() -> None:
    assert all(isinstance(NormalGamma(), kind) for kind in (HasClosedFormKL, HasExactPosterior, HasUpdates))
    assert isinstance(VAE(6), HasClosedFormKL)
    assert not isinstance(VAE(6), HasExpectedBound)


# --- the variational autoencoder ------------------------------------------------------------------------------------

IMAGES = torch.tensor([[1.0, 0.0, 1.0, 0.25, 0.0, 1.0], [0.0, 1.0, 1.0, 1.0, 1.0, 0.0]], dtype=torch.float64)


def vae() -> tuple[VAE, AmortizedNormal, Params]:
    model = VAE(6, latent_dim=2, hidden=[8]).double()
    family = AmortizedNormal(model.latents, 1, 6, hidden=[8]).double()
    return model, family, family.variational(IMAGES)


def test_vae_densities() -> None:
    """log p(x, z) and log q(z | x) for shapes (K, R, B), against torch's distributions and the networks themselves."""
    model, family, params = vae()
    law = family.distribution(params)
    z = law.sample(7)
    assert z["z"].shape == (7, 1, 2, 2)
    pixels = reference.Independent(reference.Bernoulli(logits=model.decoder(z["z"]), validate_args=False), 1)
    prior = reference.Independent(reference.Normal(torch.zeros(2).double(), 1.0), 1)
    torch.testing.assert_close(model.log_joint(z, IMAGES), pixels.log_prob(IMAGES) + prior.log_prob(z["z"]))
    torch.testing.assert_close(model.log_likelihood(z, IMAGES), pixels.log_prob(IMAGES))
    torch.testing.assert_close(model.pixel_means(z), pixels.mean)
    loc, log_variance = family.encoder(IMAGES).split(2, dim=-1)
    q = reference.Independent(reference.Normal(loc, log_variance.exp().sqrt()), 1)
    torch.testing.assert_close(law.log_prob(z), q.log_prob(z["z"]))
    assert [tuple(moment.shape) for moment in law.moments()["z"]] == [(1, 2, 2)] * 2


def test_vae_bounds() -> None:
    """ELBO by Monte Carlo against quadrature; IWELBO above it and below a far larger one."""
    model, family, params = vae()
    law = family.distribution(params)
    with torch.no_grad():
        z = law.sample(40_000)
        log_w = (model.log_joint(z, IMAGES) - law.log_prob(z)).squeeze(1)
        exact = oracles.vae_elbo(family.encoder, model.decoder, IMAGES)
    assert oracles.max_z(log_w, exact) < oracles.limit(len(log_w))
    assert oracles.max_z(log_w, exact + 0.1) > oracles.limit(len(log_w))
    tight = IWELBO()(log_w.reshape(2, -1, 2)).mean(0)
    assert bool((exact < IWELBO()(log_w.reshape(5, -1, 2)).mean(0)).all())
    assert bool((IWELBO()(log_w.reshape(5, -1, 2)).mean(0) < IWELBO()(log_w)).all()), tight


def test_vae_kl() -> None:
    """In closed form against torch's and against Monte Carlo; the reverse KL is caught."""
    model, _, params = vae()
    loc, scale = params["z"]["loc"], params["z"]["scale"]
    q, prior = reference.Normal(loc, scale), reference.Normal(torch.zeros_like(loc), 1.0)
    value = model.kl(params).detach()
    assert value.shape == (1, 2)
    torch.testing.assert_close(value, reference.kl_divergence(q, prior).sum(-1).detach())
    with torch.no_grad():
        z = q.sample((50_000,))
        log_ratio = (q.log_prob(z) - prior.log_prob(z)).sum(-1).squeeze(1)
        reverse = reference.kl_divergence(prior, q).sum(-1).squeeze(0)
    assert oracles.max_z(log_ratio, value.squeeze(0)) < oracles.limit(50_000)
    assert oracles.max_z(log_ratio, reverse) > oracles.limit(50_000)


def test_vae_stays_finite_on_extreme_logits() -> None:
    """Logits, never probabilities: log p of a pixel that the decoder is sure of is exact, not −inf or NaN."""
    model = VAE(1, latent_dim=1, hidden=[]).double()
    with torch.no_grad():
        weight, bias = model.decoder.parameters()
        weight.fill_(1000.0)
        bias.zero_()
    z = {"z": torch.tensor([1.0, -1.0], dtype=torch.float64).reshape(2, 1, 1, 1)}
    ones = torch.ones(1, 1, dtype=torch.float64)
    assert model.log_likelihood(z, ones).flatten().tolist() == [0.0, -1000.0]
    assert model.log_likelihood(z, 0 * ones).flatten().tolist() == [-1000.0, 0.0]


def test_vae_prior_draws() -> None:
    """Standard NormalDraws, with singleton replicates and batch."""
    z = vae()[0].sample_prior(20_000)["z"]
    assert z.shape == (20_000, 1, 1, 2)
    flat = z.reshape(-1, 2)
    moments = torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    assert oracles.max_z(torch.cat([flat, flat**2], dim=1), moments) < oracles.limit(20_000)


@pytest.mark.parametrize(("model", "x"), [(VAE(6), torch.zeros(5)), (VAE(6), 2 * IMAGES), (NormalGamma(), IMAGES)])
def test_data_of_the_wrong_kind_are_refused(model: VAE | NormalGamma, x: Tensor) -> None:
    with pytest.raises(LabError, match="use dataset="):
        model.check_data(x)


def test_numpy_and_torch_data_are_what_the_reports_say() -> None:
    """Means of 000 and mean and precision of 001, to the printed digits."""
    means = [DATA[name].mean().item() for name in ("001", "000, n=10", "000, n=100", "000, n=1000")]
    assert means == pytest.approx([0.8901, 2.0437, 1.0261, 0.9244], abs=5e-5)
    assert 1 / float(np.var(DATA["001"].numpy(), ddof=1)) == pytest.approx(0.4580, abs=5e-5)
