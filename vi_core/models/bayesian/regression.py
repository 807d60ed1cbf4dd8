"""Linear, logistic and Poisson regression with Normal priors of the coefficients.

Each has the linear predictor η_n = alpha + x_n·beta + offset_n. The data have a column `y`, predictors `x`, (N, P) or
(N,), and optionally `offset` and `weights`: a point of weight w counts as w points, p(y_n | z)^w.

The linear model is conjugate. With the variance sigma2 ~ InvGamma(a, b), coefficients θ | sigma2 ~ N(0, sigma2 S²) and
n = Σ w, let A have the rows √w_n (1, x_n) and below them S⁻¹, let t have the entries √w_n (y_n − offset_n) and below
them zeros, and let A = QR. Then m = R⁻¹Qᵀt, V = (RᵀR)⁻¹, and with the smallest sum of squares ss = |t − Am|²

    θ | sigma2, y ~ N(m, sigma2 V),     sigma2 | y ~ InvGamma(a_n, b_n) = InvGamma(a + n/2, b + ss/2),
    log p(y | sigma2) = −(n/2) log(2π sigma2) − ss/(2 sigma2) − log|S| − log|R|,
    log p(y) = −(n/2) log 2π + a log b − log Γ(a) + log Γ(a_n) − a_n log b_n − log|S| − log|R|.

Source: Gelman, Carlin, Stern, Dunson, Vehtari, Rubin 2013, "Bayesian Data Analysis", chapter 14.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, InverseGamma, Normal, Poisson, StudentT

from vi_core.distributions.gamma import log_gamma_ratio
from vi_core.distributions.normal import HALF_LOG_2PI
from vi_core.models.bayesian.base import BayesianModel, Prior, Values
from vi_core.per_replicate import require_positive


def predictors(data: Values) -> Tensor:
    """Return the predictors as floating numbers, (B, P)."""
    x = data["x"]
    x = x if x.is_floating_point() else x.to(torch.get_default_dtype())
    return x if x.dim() == 2 else x.unsqueeze(-1)


class Regression(BayesianModel):
    """A likelihood of y given a linear predictor, with weights and an offset.

    Args:
        intercept_scale: Prior deviation of alpha.
        slope_scale: Prior deviation of each element of beta.
    """

    def __init__(self, *, intercept_scale: float, slope_scale: float):
        super().__init__()
        require_positive("model", intercept_scale=intercept_scale, slope_scale=slope_scale)
        self.intercept_scale, self.slope_scale = intercept_scale, slope_scale

    def prior(self, data: Values) -> Iterable[tuple[str, Prior]]:
        yield "alpha", Normal(0.0, self.intercept_scale)
        yield "beta", Normal(0.0, self.slope_scale).expand([predictors(data).shape[-1]])

    def predictor(self, z: Values, data: Values) -> Tensor:
        """Return η, (B,), for one value of the coefficients."""
        eta = z["alpha"] + z["beta"] @ predictors(data).mT
        return eta + data["offset"] if "offset" in data else eta

    def weights(self, data: Values) -> Tensor | None:
        return data.get("weights")


class LogisticRegression(Regression):
    """P(y_n = 1) = 1 / (1 + exp(−η_n)), with y of zeros and ones.

    Args:
        intercept_scale: Prior deviation of alpha.
        slope_scale: Prior deviation of each element of beta; 2.5 suits predictors of unit deviation.
    """

    def __init__(self, *, intercept_scale: float = 10.0, slope_scale: float = 2.5):
        super().__init__(intercept_scale=intercept_scale, slope_scale=slope_scale)

    def likelihood(self, z: Values, data: Values) -> Distribution:
        return Bernoulli(logits=self.predictor(z, data))


class PoissonRegression(Regression):
    """y_n ~ Poisson(exp(η_n)); the offset is the logarithm of an exposure.

    Args:
        intercept_scale: Prior deviation of alpha.
        slope_scale: Prior deviation of each element of beta.
    """

    def __init__(self, *, intercept_scale: float = 5.0, slope_scale: float = 1.0):
        super().__init__(intercept_scale=intercept_scale, slope_scale=slope_scale)

    def likelihood(self, z: Values, data: Values) -> Distribution:
        return Poisson(self.predictor(z, data).exp())


class LeastSquares(NamedTuple):
    """The posterior of the coefficients in units of the noise: N(mean, sigma2 (RᵀR)⁻¹).

    Attributes:
        mean: m, (1 + P,), alpha first.
        factor: R, (1 + P, 1 + P).
        squares: ss, the smallest sum of squares.
        total: n = Σ w.
    """

    mean: Tensor
    factor: Tensor
    squares: float
    total: float


class LinearRegression(Regression):
    """y_n ~ N(η_n, sigma2), whose posterior and evidence are exact.

    Args:
        intercept_scale: Prior deviation of alpha in units of the noise's.
        slope_scale: Prior deviation of each element of beta in units of the noise's.
        concentration: a of the inverse Gamma prior of sigma2.
        rate: b of the same.
        sigma: Known deviation of the noise, so that the posterior is Normal; None for a latent variance sigma2.
    """

    def __init__(
        self,
        *,
        intercept_scale: float = 10.0,
        slope_scale: float = 2.5,
        concentration: float = 2.0,
        rate: float = 1.0,
        sigma: float | None = None,
    ):
        super().__init__(intercept_scale=intercept_scale, slope_scale=slope_scale)
        require_positive("model", concentration=concentration, rate=rate)
        if sigma is not None:
            require_positive("model", sigma=sigma)
        self.concentration, self.rate, self.sigma = concentration, rate, sigma

    def noise(self, z: Values) -> Tensor | float:
        """Return the deviation of the noise."""
        return z["sigma2"].sqrt() if self.sigma is None else self.sigma

    def prior(self, data: Values) -> Iterable[tuple[str, Prior]]:
        size = predictors(data).shape[-1]
        if self.sigma is None:
            yield "sigma2", InverseGamma(torch.tensor(self.concentration), torch.tensor(self.rate))
        yield "alpha", lambda z: Normal(0.0, self.intercept_scale * self.noise(z))
        yield "beta", lambda z: Normal(0.0, self.slope_scale * self.noise(z)).expand([size])

    def likelihood(self, z: Values, data: Values) -> Distribution:
        return Normal(self.predictor(z, data), self.noise(z))

    def least_squares(self, x: Values) -> LeastSquares:
        """Solve the augmented system of the module's docstring in float64."""
        data = {name: value.cpu().double() for name, value in x.items()}
        design, y = predictors(data), data["y"] - data.get("offset", torch.zeros(()))
        weights = data.get("weights", torch.ones_like(y))
        design = torch.cat([torch.ones_like(design[:, :1]), design], dim=1) * weights.sqrt().unsqueeze(-1)
        rows = torch.cat([design, self._scales(design.shape[1]).reciprocal().diag()])
        target = torch.cat([y * weights.sqrt(), y.new_zeros(design.shape[1])])
        orthogonal, factor = torch.linalg.qr(rows)
        mean = torch.linalg.solve_triangular(factor, (orthogonal.T @ target).unsqueeze(-1), upper=True).squeeze(-1)
        return LeastSquares(mean, factor, float((target - rows @ mean).square().sum()), float(weights.sum()))

    def _scales(self, size: int) -> Tensor:
        return torch.tensor([self.intercept_scale, *[self.slope_scale] * (size - 1)], dtype=torch.float64)

    def exact(self, x: Values) -> dict[str, float]:
        found = self.least_squares(x)
        evidence = -found.total * HALF_LOG_2PI - float(found.factor.diagonal().abs().log().sum())
        evidence -= float(self._scales(len(found.mean)).log().sum())
        answers = {}
        if self.sigma is None:
            half, gain = 0.5 * found.total, 0.5 * found.squares
            a, b = self.concentration + half, self.rate + gain
            ratio = log_gamma_ratio(*torch.tensor([self.concentration, half], dtype=torch.float64))
            evidence += float(ratio) + half * math.log(self.concentration / b)
            evidence -= self.concentration * math.log1p(gain / self.rate)
            variance = b / (a - 1) if a > 1 else math.inf
            answers = {"sigma2": variance, "sigma2.std": variance / math.sqrt(a - 2) if a > 2 else math.inf}
        else:
            variance = self.sigma**2
            evidence -= found.total * math.log(self.sigma) + 0.5 * found.squares / variance
        deviations = (self._spreads(found) * math.sqrt(variance)).tolist()
        names = ["alpha", *(f"beta[{i}]" for i in range(len(found.mean) - 1))]
        for name, mean, deviation in zip(names, found.mean.tolist(), deviations, strict=True):
            answers |= {name: mean, f"{name}.std": deviation}
        return answers | {"log_evidence": evidence}

    def exact_marginals(self, x: Values) -> dict[str, Distribution]:
        """Student's t for the coefficients and an inverse Gamma for sigma2; Normals where sigma is known."""
        solved = self.least_squares(x)
        spreads = self._spreads(solved)
        names = ["alpha", *(f"beta[{i}]" for i in range(len(spreads) - 1))]
        if self.sigma is not None:
            laws = [Normal(mean, self.sigma * spread) for mean, spread in zip(solved.mean, spreads, strict=True)]
            return dict(zip(names, laws, strict=True))
        a = torch.tensor(self.concentration + 0.5 * solved.total, dtype=torch.float64)
        b = torch.tensor(self.rate + 0.5 * solved.squares, dtype=torch.float64)
        laws = [StudentT(2 * a, *pair) for pair in zip(solved.mean, spreads * (b / a).sqrt(), strict=True)]
        return {"sigma2": InverseGamma(a, b), **dict(zip(names, laws, strict=True))}

    @staticmethod
    def _spreads(solved: LeastSquares) -> Tensor:
        """Return the deviations of the coefficients in units of the noise's, (1 + P,)."""
        eye = torch.eye(len(solved.mean), dtype=torch.float64)
        return torch.linalg.solve_triangular(solved.factor, eye, upper=True).norm(dim=1)
