"""Regressions against densities written by hand in scipy, exact answers by other routes, and checked long runs.

References: the logistic one is a stored run of NUTS; the Poisson one importance sampling from a Student t at the mode
(10⁶ draws, seed 0, effective sample size 949,000). Fits must agree with them to 0.1 posterior deviations in each mean.
"""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import integrate, stats

import vi_core
from tests.references import cancer, counts, reference
from vi_core.errors import ConfigError, DataError
from vi_core.models.bayesian.base import BayesianModel
from vi_core.models.bayesian.regression import LinearRegression, LogisticRegression, PoissonRegression

POISSON = ([0.34245, 0.39154, -0.41489], [0.06537, 0.05477, 0.07429])
POISSON_EVIDENCE = -244.95328


def observed(model: BayesianModel, data: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Show the data to a model in float64, and return them as tensors."""
    columns = {name: torch.as_tensor(value) for name, value in data.items()}
    model.observe(columns, len(columns["y"]))
    return columns


def log_joint(model: BayesianModel, data: dict[str, torch.Tensor], **z: Any) -> float:
    """Return the model's log p(y, z) at one value of each latent."""
    values = {name: torch.as_tensor(value, dtype=torch.float64)[None, None, None] for name, value in z.items()}
    return model.log_joint(values, data).item()


def line(size: int, **more: Any) -> dict[str, Any]:
    """Points around a plane."""
    g = np.random.default_rng(0)
    x = g.standard_normal((size, 2))
    return {"x": x, "y": 1 + x @ [0.5, -1.0] + 0.7 * g.standard_normal(size), **more}


@pytest.fixture(autouse=True)
def float64() -> None:
    torch.set_default_dtype(torch.float64)


def test_linear_regression_has_the_density_written_by_hand() -> None:
    weights, offset = np.array([1.0, 2.0, 0.5, 3.0, 1.0]), np.array([0.1, -0.2, 0.0, 0.3, 1.0])
    model = LinearRegression(intercept_scale=3.0, slope_scale=2.0, concentration=2.5, rate=1.5)
    data = observed(model, line(5, weights=weights, offset=offset))
    alpha, beta, sigma2 = 0.3, np.array([0.7, -0.4]), 0.6
    deviation = np.sqrt(sigma2)
    eta = alpha + data["x"].numpy() @ beta + offset
    by_hand = (weights * stats.norm.logpdf(data["y"].numpy(), eta, deviation)).sum()
    by_hand += stats.invgamma.logpdf(sigma2, 2.5, scale=1.5) + stats.norm.logpdf(alpha, 0, 3 * deviation)
    by_hand += stats.norm.logpdf(beta, 0, 2 * deviation).sum()
    assert log_joint(model, data, alpha=alpha, beta=beta, sigma2=sigma2) == pytest.approx(by_hand, abs=1e-10)


def test_evidence_is_the_density_of_a_student_t() -> None:
    """Without weights, y ~ t of 2a degrees around the offset, with the shape (b/a) (I + A S² Aᵀ)."""
    offset = np.linspace(-1, 1, 12)
    model = LinearRegression(intercept_scale=3.0, slope_scale=2.0, concentration=2.5, rate=1.5)
    data = observed(model, line(12, offset=offset))
    design = np.c_[np.ones(12), data["x"].numpy()] * [3.0, 2.0, 2.0]
    law = stats.multivariate_t(offset, 1.5 / 2.5 * (np.eye(12) + design @ design.T), df=5)
    assert model.exact(data)["log_evidence"] == pytest.approx(law.logpdf(data["y"].numpy()), abs=1e-8)


def test_evidence_with_known_noise_is_the_density_of_a_normal() -> None:
    model = LinearRegression(intercept_scale=3.0, slope_scale=2.0, sigma=0.7)
    data = observed(model, line(12))
    design = np.c_[np.ones(12), data["x"].numpy()] * [3.0, 2.0, 2.0]
    law = stats.multivariate_normal(np.zeros(12), 0.49 * (np.eye(12) + design @ design.T))
    assert model.exact(data)["log_evidence"] == pytest.approx(law.logpdf(data["y"].numpy()), abs=1e-8)


def test_exact_moments_are_those_of_the_density() -> None:
    """The density integrated over sigma2 by quadrature, with weights and an offset, given the Normal equations."""
    weights, offset = np.array([1.0, 2.0, 0.5, 3.0, 1.0, 0.0, 1.5, 2.0]), np.linspace(0, 1, 8)
    model = LinearRegression(intercept_scale=3.0, slope_scale=2.0, concentration=3.5, rate=1.5)
    data = observed(model, line(8, weights=weights, offset=offset))
    answers = model.exact(data)
    design, y = np.c_[np.ones(8), data["x"].numpy()], data["y"].numpy() - offset
    precision = design.T @ (design * weights[:, None]) + np.diag([1 / 9, 1 / 4, 1 / 4])
    covariance = np.linalg.inv(precision)
    mean = covariance @ (design.T @ (weights * y))
    log_det = np.linalg.slogdet(2 * np.pi * covariance)[1]

    def density(sigma2: float, power: int = 0) -> float:
        """The integral of p(y, z) over the coefficients by Laplace's method, which is exact here."""
        peak = log_joint(model, data, alpha=mean[0], beta=mean[1:], sigma2=sigma2)
        return sigma2**power * np.exp(peak + 0.5 * log_det + 1.5 * np.log(sigma2) - answers["log_evidence"])

    moments = [integrate.quad(density, 1e-3, np.inf, args=(k,), epsabs=1e-12, limit=200)[0] for k in range(3)]
    assert moments[0] == pytest.approx(1, abs=1e-8)
    assert answers["sigma2"] == pytest.approx(moments[1], abs=1e-7)
    assert answers["sigma2.std"] == pytest.approx(np.sqrt(moments[2] - moments[1] ** 2), rel=1e-5)
    names = ("alpha", "beta[0]", "beta[1]")
    assert [answers[name] for name in names] == pytest.approx(mean.tolist(), abs=1e-10)
    deviations = np.sqrt(moments[1] * covariance.diagonal())
    assert [answers[f"{name}.std"] for name in names] == pytest.approx(deviations.tolist(), abs=1e-7)


def test_a_weight_of_two_is_the_point_twice() -> None:
    once = line(6)
    twice = {name: np.r_[value, value[2:3]] for name, value in once.items()}
    model = LinearRegression()
    weighted = model.exact(observed(model, {**once, "weights": np.array([1, 1, 2, 1, 1, 1])}))
    assert weighted == pytest.approx(model.exact(observed(model, twice)), abs=1e-10)
    assert weighted["log_evidence"] != pytest.approx(model.exact(observed(model, once))["log_evidence"], abs=1e-2)


def test_the_posterior_with_known_noise_is_found() -> None:
    model = LinearRegression(sigma=0.7)
    fit = vi_core.fit(model, line(200), steps=100, replicates=2)
    exact = model.exact(fit.data)
    assert exact["log_evidence"] - fit.elbo == pytest.approx(0, abs=1e-3)
    for latent, moments in fit.q.moments().items():
        names = [latent] if latent == "alpha" else [f"{latent}[{i}]" for i in range(2)]
        for mean, deviation in zip(*(moment[:, 0].reshape(2, -1) for moment in moments), strict=True):
            assert mean.tolist() == pytest.approx([exact[name] for name in names], abs=1e-3)
            assert deviation.tolist() == pytest.approx([exact[f"{name}.std"] for name in names], abs=1e-3)


def test_the_posterior_with_latent_noise_is_nearly_normal() -> None:
    """It is not Normal: KL(q ‖ posterior) falls as 1/N, and is below 0.05 nats for 200 points."""
    model = LinearRegression()
    fit = vi_core.fit(model, line(200), steps=200, replicates=1)
    exact, summary = model.exact(fit.data), fit.summary()
    assert -0.01 < exact["log_evidence"] - fit.elbo[0] < 0.05
    for name in summary.rows:
        assert summary[name]["mean"] == pytest.approx(exact[name], abs=0.1 * exact[f"{name}.std"])


def test_logistic_regression_has_the_density_written_by_hand() -> None:
    model = LogisticRegression(intercept_scale=4.0, slope_scale=1.5)
    y, offset, weights = np.array([0, 1, 1, 0, 1]), np.linspace(-1, 1, 5), np.array([1.0, 2.0, 1.0, 0.5, 1.0])
    data = observed(model, line(5, offset=offset, weights=weights) | {"y": y})
    p = 1 / (1 + np.exp(-(0.2 + data["x"].numpy() @ [0.5, -1.1] + offset)))
    by_hand = (weights * stats.bernoulli.logpmf(y, p)).sum() + stats.norm.logpdf(0.2, 0, 4)
    by_hand += stats.norm.logpdf([0.5, -1.1], 0, 1.5).sum()
    assert log_joint(model, data, alpha=0.2, beta=[0.5, -1.1]) == pytest.approx(by_hand, abs=1e-10)


def test_poisson_regression_has_the_density_written_by_hand() -> None:
    model = PoissonRegression(intercept_scale=4.0, slope_scale=1.5)
    data = observed(model, counts())
    rate = np.exp(0.2 + data["x"].numpy() @ [0.5, -0.1] + data["offset"].numpy())
    by_hand = (data["weights"].numpy() * stats.poisson.logpmf(data["y"].numpy(), rate)).sum()
    by_hand += stats.norm.logpdf(0.2, 0, 4) + stats.norm.logpdf([0.5, -0.1], 0, 1.5).sum()
    assert log_joint(model, data, alpha=0.2, beta=[0.5, -0.1]) == pytest.approx(by_hand, abs=1e-9)


def coefficients(fit: Any) -> np.ndarray:
    """Draws of alpha and beta side by side, (S, 1 + P)."""
    torch.manual_seed(0)
    draws = fit.draws(20_000)
    return torch.cat([draws["alpha"][:, None], draws["beta"]], dim=1).numpy()


def test_poisson_fit_agrees_with_importance_sampling() -> None:
    fit = vi_core.fit(PoissonRegression(), counts(), steps=200, replicates=2)
    draws = coefficients(fit)
    assert np.abs((draws.mean(0) - POISSON[0]) / POISSON[1]).max() < 0.1
    assert np.abs(draws.std(0) / POISSON[1] - 1).max() < 0.1
    assert fit.elbo == pytest.approx(POISSON_EVIDENCE, abs=0.02)


def test_logistic_fit_agrees_with_a_long_run() -> None:
    fit = vi_core.fit(LogisticRegression(), cancer(), steps=500, replicates=1)
    known = reference("logistic_regression")
    mean, sd = (np.r_[known[moment]["alpha"], known[moment]["beta"]] for moment in ("mean", "sd"))
    draws = coefficients(fit)
    assert np.abs((draws.mean(0) - mean) / sd).max() < 0.1
    assert np.abs(draws.std(0) / sd - 1).max() < 0.2


@pytest.mark.parametrize("change", [{"y": [0, 1, 2, 0, 1]}, {"weights": np.array([1.0, 1.0, -1.0, 1.0, 1.0])}])
def test_wrong_data_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"\[2\] = (2|-1) "):
        observed(LogisticRegression(), line(5) | {"y": [0, 1, 1, 0, 1]} | change)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.sigma"):
        LinearRegression(sigma=0.0)
    with pytest.raises(ConfigError, match=r"model\.slope_scale"):
        PoissonRegression(slope_scale=-1.0)
