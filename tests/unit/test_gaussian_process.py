"""The Gaussian process against scipy's and scikit-learn's: density, evidence, prediction, and the fit by quadrature."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from torch.distributions import Normal

import vi_core
from tests.unit.test_regression import log_joint, observed
from vi_core.errors import LabError, Unsupported
from vi_core.models.bayesian.gaussian_process import GaussianProcess

Z = {"lengthscale": 0.7, "amplitude": 1.3, "noise": 0.2}
NEW = np.array([0.1, 2.5, 7.0])


@pytest.fixture(autouse=True)
def float64() -> None:
    torch.set_default_dtype(torch.float64)


def waves() -> dict[str, Any]:
    """25 points of a sine."""
    x = np.linspace(0, 5, 25)
    return {"x": x, "y": np.sin(1.5 * x) + 0.2 * np.random.default_rng(0).standard_normal(25)}


def scikit_learn() -> GaussianProcessRegressor:
    """The same process with the same hyperparameters."""
    kernel = ConstantKernel(1.3**2) * RBF(0.7) + WhiteKernel(0.2**2)
    data = waves()
    return GaussianProcessRegressor(kernel, alpha=1e-12, optimizer=None).fit(  # type: ignore[arg-type]
        data["x"][:, None], data["y"]
    )


def test_density_and_evidence_agree_with_scikit_learn() -> None:
    model = GaussianProcess(lengthscale=0.5, lengthscale_spread=0.8, amplitude_scale=1.5, noise_scale=0.6)
    data, regressor = observed(model, waves()), scikit_learn()
    evidence = regressor.log_marginal_likelihood(np.log([1.3**2, 0.7, 0.2**2]))
    assert model.log_evidence(Z, data) == pytest.approx(evidence, abs=1e-5)  # a jitter of 1e-8
    by_hand = stats.lognorm.logpdf(0.7, 0.8, scale=0.5) + stats.halfnorm.logpdf(1.3, scale=1.5)
    by_hand += stats.halfnorm.logpdf(0.2, scale=0.6) + evidence
    assert log_joint(model, data, **Z) == pytest.approx(by_hand, abs=1e-5)


def test_evidence_and_moments_are_exact() -> None:
    """Against the same Normal law in numpy, with its jitter; moments by the other form of the inverse."""
    model, kernel = GaussianProcess(), covariance()
    data, noise = observed(model, waves()), Z["noise"] ** 2 * np.eye(25)
    y = data["y"].numpy()
    evidence = stats.multivariate_normal(np.zeros(25), kernel + noise).logpdf(y)  # type: ignore[arg-type]
    assert model.log_evidence(Z, data) == pytest.approx(evidence, abs=1e-8)
    law = model.conditional({name: torch.tensor(value) for name, value in Z.items()}, {"x": data["x"]})
    gain = np.linalg.solve(kernel + noise, kernel - 1e-8 * 1.3**2 * np.eye(25)).T  # the jitter belongs to the noise
    assert law.mean.numpy() == pytest.approx(gain @ y, abs=1e-8)
    wanted = kernel + noise - gain @ (kernel - 1e-8 * 1.3**2 * np.eye(25))
    assert law.variance.numpy() == pytest.approx(wanted.diagonal(), abs=1e-8)


def covariance() -> np.ndarray:
    """Of the function at the points of `waves`, with the jitter of the shipped model."""
    x = waves()["x"]
    return 1.3**2 * (np.exp(-0.5 * ((x[:, None] - x) / 0.7) ** 2) + 1e-8 * np.eye(25))


class Function(vi_core.BayesianModel):
    """The function itself as latent, with known hyperparameters: f = L·raw, raw ~ N(0, I), with L Lᵀ = K."""

    def prior(self, data: Any) -> Any:
        yield "raw", Normal(torch.zeros(25), 1.0)

    def likelihood(self, z: Any, data: Any) -> Any:
        return Normal(self.quantities(z, data)["f"], Z["noise"])

    def quantities(self, z: Any, data: Any) -> Any:
        return {"f": torch.linalg.cholesky(torch.from_numpy(covariance())) @ z["raw"]}


def test_the_exact_evidence_and_moments_are_found() -> None:
    """Given the hyperparameters the posterior of the function is Normal, so that the bound is the evidence."""
    model = GaussianProcess()
    data = observed(model, waves())
    fit = vi_core.fit(Function(), waves(), steps=300, replicates=2)
    assert fit.elbo == pytest.approx(model.log_evidence(Z, data), abs=1e-3)
    law = model.conditional({name: torch.tensor(value) for name, value in Z.items()}, {"x": data["x"]})
    mean, deviation = fit.q.moments()["raw"]
    factor = np.linalg.cholesky(covariance())
    assert mean.shape == deviation.shape == (2, 1, 25)
    for each in mean[:, 0].numpy():
        assert factor @ each == pytest.approx(law.mean.numpy(), abs=1e-3)
    draws = fit.draws(20_000)["f"].numpy()
    assert draws.std(0) == pytest.approx(np.sqrt(law.variance.numpy() - Z["noise"] ** 2), rel=0.03)


def test_prediction_agrees_with_scikit_learn() -> None:
    model = GaussianProcess()
    observed(model, waves())
    law = model.conditional({name: torch.tensor(value) for name, value in Z.items()}, {"x": torch.tensor(NEW)})
    mean, deviation = scikit_learn().predict(NEW[:, None], return_std=True)
    assert law.mean.numpy() == pytest.approx(mean, abs=1e-5)
    assert law.stddev.numpy() == pytest.approx(deviation, abs=1e-5)


@pytest.mark.slow
def test_predictions_of_a_fit_average_over_the_hyperparameters() -> None:
    """Mean and deviation by a sum over a grid of the log hyperparameters, and by the draws of the fit."""
    data, model = waves(), GaussianProcess()
    fit = vi_core.fit(model, data, steps=300, replicates=2)
    axes = [np.linspace(*ends, 20) for ends in ((-1.4, 0.8), (-1.2, 1.6), (-2.3, -0.9))]
    logs = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    grid = {name: torch.tensor(np.exp(logs[:, i])) for i, name in enumerate(Z)}
    points = {name: value[:, None, None] for name, value in grid.items()}
    log_p = model.log_joint(points, fit.data).flatten().numpy() + logs.sum(-1)
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    summary = fit.summary()
    for name, value in grid.items():
        mean = p @ value.numpy()
        deviation = np.sqrt(p @ value.numpy() ** 2 - mean**2)
        assert summary[name]["mean"] == pytest.approx(mean, abs=0.15 * deviation)
    cell = np.prod([axis[1] - axis[0] for axis in axes])
    evidence = np.log(np.exp(log_p - log_p.max()).sum() * cell) + log_p.max()
    assert evidence - 0.3 < fit.elbo[fit.best] < evidence + 0.02
    torch.manual_seed(0)
    drawn = fit.predict({"x": NEW}, 2000)
    assert isinstance(drawn, torch.Tensor)
    kept = np.flatnonzero(p > 1e-6)
    laws = [model.conditional({n: v[i] for n, v in grid.items()}, {"x": torch.tensor(NEW)}) for i in kept]
    wanted = p[kept] @ np.stack([law.mean.numpy() for law in laws])
    spread = np.sqrt(p[kept] @ np.stack([(law.variance + law.mean**2).numpy() for law in laws]) - wanted**2)
    assert np.abs((drawn.mean(0).numpy() - wanted) / spread).max() < 0.1
    assert np.abs(drawn.std(0).numpy() / spread - 1).max() < 0.1


def test_points_have_no_density_of_their_own() -> None:
    fit = vi_core.fit(GaussianProcess(), waves(), steps=2, replicates=1)
    with pytest.raises(LabError, match="one density for each data point"):
        fit.log_predictive(waves())
    with pytest.raises(Unsupported, match="batch_size"):
        vi_core.fit(GaussianProcess(), waves(), batch_size=5)
