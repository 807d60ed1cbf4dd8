"""Exponential draws by the inverse distribution function, z = −log(1 − u)/rate: report 003, section 4.1 and figure 4.

With F(z) = 1 − exp(−rate z) and u uniform on [0, 1), z = F⁻¹(u) has P(z ≤ t) = P(u ≤ F(t)) = F(t), the exponential law.
At a fixed u, z is a smooth function of the rate, ∂z/∂rate = −z/rate, so that a derivative passes through the draw.

The draws are compared with torch's own sampler and the exact density, by a histogram and the Kolmogorov–Smirnov
distance. The purpose of the inverse is a path derivative: the gradient of E[f(z)] in the rate is −1/rate² for f = z and
−4/rate³ for f = z².
"""

import math

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from vi_core.distributions.gamma import Exponential
from vi_core.errors import require
from vi_core.per_replicate import require_positive
from vi_core.studies.base import Figures, Finding, Form, Quantity, Records, Study, average, doubles

GRID = 400  # points at which the density is drawn


class ExponentialInverseCDF(Study):
    """Draws of two samplers, tests of their law, and gradients in the rate.

    Args:
        rate: Rate of the exponential law, positive.
        num_draws: Draws of each sampler that are compared, at least 2.
        num_samples: Draws of each gradient, at least 2.
    """

    def __init__(self, *, rate: float = 1.0, num_draws: int = 1000, num_samples: int = 100_000):
        require_positive("study", rate=rate)
        for name, value in {"num_draws": num_draws, "num_samples": num_samples}.items():
            require(value >= 2, f"study.{name}={value} must be at least 2.")
        self.rate, self.num_draws, self.num_samples = rate, num_draws, num_samples

    def run(self) -> Finding:
        rate = doubles(self.rate)
        draws = {
            "direct": torch.distributions.Exponential(rate).sample((self.num_draws,)),
            "inverse": Exponential(rate).rsample(self.num_draws),
        }
        z = np.linspace(0, -math.log(1e-4) / self.rate, GRID)
        density = self.rate * np.exp(-self.rate * z)
        records = {name: value.numpy() for name, value in draws.items()} | {"grid": z, "density": density}
        laws = {f"{name}_{key}": q for name, value in draws.items() for key, q in self._law(value).items()}
        return Finding(laws | self._gradients(rate), records)

    def _law(self, draws: Tensor) -> dict[str, Quantity]:
        """Return the mean of draws (N,), and distance and p-value of the Kolmogorov–Smirnov test of their law.

        The distance is the largest difference between the empirical distribution function and F. For draws of the right
        law the p-value is uniform on [0, 1].
        """
        distance, p_value = stats.kstest(draws.numpy(), stats.expon(scale=1 / self.rate).cdf)[:2]
        return {
            "mean": average(draws, 1 / self.rate),
            "ks_distance": Quantity(float(distance)),
            "ks_p_value": Quantity(float(p_value)),
        }

    def _gradients(self, rate: Tensor) -> dict[str, Quantity]:
        """Return d E[f(z)]/d rate for f = z and z²: averages over draws of the derivative by autograd.

        The exact values follow from E[z] = 1/rate and E[z²] = 2/rate². Each draw has a rate of its own, so that one
        backward pass gives the derivative of every draw, and with them the standard error of their mean.
        """
        rates = rate.expand(self.num_samples).clone().requires_grad_()
        z = Exponential(rates).rsample(1).squeeze(0)
        exact = {"gradient_of_mean": -1 / self.rate**2, "gradient_of_square": -4 / self.rate**3}
        found = {}
        for power, (name, value) in enumerate(exact.items(), start=1):
            (slopes,) = torch.autograd.grad((z**power).sum(), rates, retain_graph=True)
            found[name] = average(slopes, value)
        return found

    def forms(self) -> dict[str, Form]:
        draws = Form((self.num_draws,))
        return {"direct": draws, "inverse": draws, "grid": Form((GRID,), ascending=True), "density": Form((GRID,))}

    def figures(self, records: Records) -> Figures:
        from vi_core.plots.studies import histogram_figure

        figure = histogram_figure(
            {"torch's sampler": records["direct"], "inverse distribution function": records["inverse"]},
            (records["grid"], records["density"]),
            xlabel="z",
            title=f"exponential_inverse_cdf: {self.num_draws} draws at rate {self.rate:g}",
        )
        return {"histograms": figure}
