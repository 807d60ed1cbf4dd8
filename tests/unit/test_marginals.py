"""Marginals of q against scipy's quantiles, and the Monte Carlo error of a mean against iterates of known spread.

Draws are compared at five standard errors: a false alarm is one in 1.7 million for each number.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from vi_core.diagnostics.marginals import LEVELS, Marginal, marginals, mc_error, reports
from vi_core.distributions import supports
from vi_core.distributions.transforms import Exponential
from vi_core.families.mean_field import MeanField
from vi_core.families.mixture import MixtureOfNormals
from vi_core.families.normal_gamma import NormalGammaFamily
from vi_core.families.normals import FullRankNormal
from vi_core.models.bayesian.hierarchical import EightSchools
from vi_core.models.conjugate.normal_gamma import NormalGamma
from vi_core.training.history import History
from vi_core.types import Latent

LATENTS = {"mu": Latent(supports.real), "tau": Latent(supports.positive)}
MODEL = NormalGamma(loc=0.0, precision_ratio=1.0, concentration=1.0, rate=1.0)
N = 4000


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def near_quantile(found: np.ndarray, law: Any, level: float) -> bool:
    """Whether an estimate of a quantile from N draws is within five standard errors of it."""
    exact = law.ppf(level)
    return bool(np.all(np.abs(found - exact) < 5 * np.sqrt(level * (1 - level) / N) / law.pdf(exact)))


def test_normal_and_gamma_factors_have_quantiles_in_closed_form() -> None:
    family = MeanField(
        LATENTS, 2, positive=Exponential(), loc=[1.0, -3.0], loc_std=0.0, scale=2.0, concentration=[0.3, 40.0], rate=5.0
    )
    before = torch.get_rng_state()
    found = marginals(MODEL, family, None)
    assert torch.equal(before, torch.get_rng_state())  # nothing was drawn
    laws = {"mu": stats.norm([1.0, -3.0], 2.0), "tau": stats.gamma([0.3, 40.0], scale=0.2)}
    for name, law in laws.items():
        np.testing.assert_allclose(found[name].q05, law.ppf(LEVELS[0]), rtol=1e-10)
        np.testing.assert_allclose(found[name].q95, law.ppf(LEVELS[1]), rtol=1e-10)
        np.testing.assert_allclose(found[name].sd, law.std(), rtol=1e-10)


def test_transformed_normals_and_a_normal_gamma_have_theirs_too() -> None:
    """Student's t of a Normal-Gamma, and the Normal and log-Normal of a family on unconstrained space."""
    family = NormalGammaFamily(
        LATENTS, 2, positive=Exponential(), loc=1.0, loc_std=0.0, precision_ratio=4.0, concentration=3.0, rate=6.0
    )
    student = stats.t(6, loc=1.0, scale=np.sqrt(6.0 / (3.0 * 4.0)))
    known = {"mu": student, "tau": stats.gamma(3.0, scale=1 / 6)}
    normal = {"mu": stats.norm(0, 0.5), "tau": stats.lognorm(0.5)}
    for chosen, laws in ((family, known), (FullRankNormal(LATENTS, 2, scale=0.5), normal)):
        found = marginals(MODEL, chosen, None, N)
        for name, law in laws.items():
            np.testing.assert_allclose(found[name].q05, law.ppf(0.05), rtol=1e-10)
            np.testing.assert_allclose(found[name].q95, law.ppf(0.95), rtol=1e-10)


def test_other_quantiles_are_those_of_draws() -> None:
    """Of a mixture whose two components are the same Normal."""
    found = marginals(MODEL, MixtureOfNormals(LATENTS, 2, components=2, loc_std=0.0, scale=0.5), None, N)
    assert near_quantile(found["mu"].q95, stats.norm(0, 0.5), 0.95)
    assert near_quantile(found["tau"].q05, stats.lognorm(0.5), 0.05)


def test_quantities_are_reported_like_latents() -> None:
    """theta = mu + tau·raw of eight schools, at a q with known moments of its parts."""
    data = {"y": torch.zeros(8), "sigma": torch.ones(8)}
    model = EightSchools()
    model.observe(data, 8)
    assert reports(model) and not reports(MODEL)
    found = marginals(model, FullRankNormal(model.latents, 3, scale=1.0), data, N)
    assert {f"theta[{i}]" for i in range(8)} < found.keys()
    for row in (found[f"theta[{i}]"] for i in range(8)):  # E[theta] = 0, Var[theta] = 1 + E[tau²] = 1 + e²
        assert np.abs(row.mean).max() < 5 * np.sqrt((1 + np.exp(2)) / N)
        assert row.draws == N


def test_the_error_of_one_replicate_is_that_of_its_iterates() -> None:
    """Iterates of an AR(1) process with deviation 1: the same as 1,000 replicates tell, within 15 %."""
    generator = np.random.default_rng(0)
    noise, iterates = generator.standard_normal((4000, 1000)), np.zeros((4000, 1000))
    for t in range(1, 4000):
        iterates[t] = 0.9 * iterates[t - 1] + np.sqrt(1 - 0.81) * noise[t]
    step, last = np.arange(1, 4001), iterates[-1]
    rows = Marginal(*(last,) * 4)
    everyone, alone = np.ones(1000, bool), np.arange(1000) == 7
    assert mc_error(rows, everyone, step, iterates) == pytest.approx(1 / np.sqrt(1000), rel=0.15)
    assert mc_error(rows, alone, step, iterates) == pytest.approx(1.0, rel=0.15)
    assert mc_error(rows, alone, step, None) is None
    assert mc_error(rows._replace(draws=400), alone, step, None) == pytest.approx(rows.sd[7] / 20)
    assert mc_error(rows, ~everyone, step, iterates) is None


def test_expectations_have_the_names_of_estimates() -> None:
    values = np.zeros((1, 1))
    history = History("elbo", np.ones(1), np.ones(1), {"elbo": values, "E[mu]": values, "E[beta][0]": values})
    assert history.expectations().keys() == {"mu", "beta[0]"}
