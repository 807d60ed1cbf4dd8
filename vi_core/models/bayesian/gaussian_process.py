"""Regression with a Gaussian process: y ~ N(0, K + noise² I), K_ij = amplitude² exp(−|x_i − x_j|² / (2 lengthscale²)).

The function values are integrated out, so the latents are three numbers and one density stands for all points; it takes
O(N³) time, for some hundreds of points. At new inputs x*, with k = K(x, x*) and C = K + noise² I = L Lᵀ,

    y* | y ~ N(kᵀC⁻¹y, K(x*, x*) + noise² I − kᵀC⁻¹k).

Source: Rasmussen, Williams 2006, "Gaussian Processes for Machine Learning", sections 2.2 and 2.3.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from torch.distributions import Distribution, HalfNormal, LogNormal, MultivariateNormal

from vi_core.errors import Unsupported
from vi_core.models.bayesian.base import BayesianModel, Prior, Values
from vi_core.models.bayesian.laws import observations
from vi_core.models.bayesian.regression import predictors
from vi_core.per_replicate import require_positive

JITTER = 1e-8  # added variance relative to amplitude², so that rounding leaves the covariance positive


class GaussianProcess(BayesianModel):
    """A Gaussian process with a squared exponential kernel and latent hyperparameters.

    The data have the columns `y` and `x`, (N, P) or (N,).

    Args:
        lengthscale: Prior median of the length scale, whose prior is log-Normal.
        lengthscale_spread: Prior deviation of its logarithm.
        amplitude_scale: Scale of the half-Normal prior of the function's deviation.
        noise_scale: Scale of the half-Normal prior of the noise's deviation.
    """

    def __init__(
        self,
        *,
        lengthscale: float = 1.0,
        lengthscale_spread: float = 1.0,
        amplitude_scale: float = 2.0,
        noise_scale: float = 1.0,
    ):
        super().__init__()
        require_positive("model", lengthscale=lengthscale, lengthscale_spread=lengthscale_spread)
        require_positive("model", amplitude_scale=amplitude_scale, noise_scale=noise_scale)
        self.lengthscale, self.lengthscale_spread = lengthscale, lengthscale_spread
        self.amplitude_scale, self.noise_scale = amplitude_scale, noise_scale

    def prior(self, data: Values) -> Iterable[tuple[str, Prior]]:
        yield "lengthscale", LogNormal(torch.tensor(self.lengthscale).log(), self.lengthscale_spread)
        yield "amplitude", HalfNormal(self.amplitude_scale)
        yield "noise", HalfNormal(self.noise_scale)

    def likelihood(self, z: Values, data: Values) -> Distribution:
        x = predictors(data)
        return MultivariateNormal(x.new_zeros(len(x)), self.covariance(z, x))

    def kernel(self, z: Values, x: Tensor, other: Tensor) -> Tensor:
        """Return K(x, other), (A, B), for inputs (A, P) and (B, P)."""
        squares = (x.unsqueeze(1) - other).square().sum(-1)
        return z["amplitude"].square() * (-0.5 * squares / z["lengthscale"].square()).exp()

    def covariance(self, z: Values, x: Tensor) -> Tensor:
        """Return K + noise² I of observations at inputs x, (B, B)."""
        variance = z["noise"].square() + JITTER * z["amplitude"].square()
        return self.kernel(z, x, x) + variance * torch.eye(len(x), dtype=x.dtype, device=x.device)

    def observe(self, data: Mapping[str, Tensor], num_points: int) -> None:
        super().observe(data, num_points)
        self.data = dict(data)

    def conditional(self, z: Values, data: Values) -> MultivariateNormal:
        """Return the law of new observations at `data["x"]` given all that were observed, for one value of z."""
        x, new = predictors(self.data), predictors(data)
        factor = torch.linalg.cholesky(self.covariance(z, x))
        shared = torch.linalg.solve_triangular(factor, self.kernel(z, x, new), upper=False)
        y = observations(self.data["y"], z).unsqueeze(-1)
        standard = torch.linalg.solve_triangular(factor, y, upper=False)
        mean = (shared.mT @ standard).squeeze(-1)
        return MultivariateNormal(mean, self.covariance(z, new) - shared.mT @ shared)

    def predictive(self, draws: Values, data: Mapping[str, Tensor], replicate: int = 0) -> Values:
        """Draw observations at new inputs, given those observed: one set for each draw of the hyperparameters."""
        if self.per_replicate:
            raise Unsupported("model=gaussian_process predicts from one data set; fit it without per_replicate.")
        with torch.no_grad():
            found = [
                self.conditional(dict(zip(draws, z, strict=True)), dict(data)).sample()
                for z in zip(*draws.values(), strict=True)
            ]
        return {"y": torch.stack(found)}

    def log_evidence(self, hyperparameters: Mapping[str, float], data: Mapping[str, Tensor]) -> float:
        """Return log p(y | hyperparameters) in float64, exactly.

        Args:
            hyperparameters: A value of `lengthscale`, `amplitude` and `noise`.
            data: With the columns `x` and `y`.
        """
        z = {name: torch.tensor(hyperparameters[name], dtype=torch.float64) for name in self.latents}
        wide = {name: value.double() for name, value in data.items()}
        return self.likelihood(z, wide).log_prob(wide["y"]).item()

    def log_likelihood_of_points(self, z: Values, x: Values) -> Tensor:
        """Raise `Unsupported`: all points have one density."""
        raise Unsupported("model=gaussian_process has one density for all points, and none for a single one.")
