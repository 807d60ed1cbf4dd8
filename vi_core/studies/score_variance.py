"""Where the score lowers the variance of the pathwise gradient: question 3.1.24 of 000, 001, 002; report 003, 3.4.

With a posterior N(0, 1), q = N(m, s²) and z = m + sε, the total derivative of log w in m is −z, and leaving out the
score, −ε/s, makes it the path derivative −z + ε/s:

    m:  Var(total) = s²,          Var(path) = (1/s − s)²,
    s:  Var(total) = m² + 2s²,    Var(path) = m² + 2(1/s − s)².

In both parameters the score helps where s² < 1/2 and harms above; at s = 1, m = 0 the path derivative has no noise. The
estimators are the library's. On Normal–Gamma the same is seen in loc of q(mu), beside quadrature, with the rest of q at
the mean-field optimum.
"""

from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vi_core.bounds.elbo import ELBO
from vi_core.distributions import supports
from vi_core.distributions.normal import standard_normal
from vi_core.distributions.transforms import Exponential
from vi_core.errors import require
from vi_core.estimators.base import Estimator
from vi_core.estimators.pathwise import Pathwise, StickingTheLanding
from vi_core.families.base import Family
from vi_core.families.mean_field import MeanField
from vi_core.models.base import Factors, Model
from vi_core.studies.base import Figures, Finding, Form, Quantity, Records, Study, doubles
from vi_core.studies.claims.base import Problem, Rule
from vi_core.studies.claims.bounds import fixed_point
from vi_core.types import Latent, Latents

ESTIMATORS = {"total": Pathwise(num_samples=1), "path": StickingTheLanding(num_samples=1)}
GRID = 121  # values of m, and of s, of the map
REACH = (0.2, 2.0)  # of s


class StandardNormal(Model):
    """A posterior N(0, 1), with latent `z`."""

    def __init__(self):
        super().__init__()
        self.latents = {"z": Latent(supports.real)}

    def factors(self, z: Latents, x: Any) -> Factors:
        return {"posterior": (standard_normal(z["z"]).log_prob(z["z"]), frozenset({"z"}))}


class ScoreVariance(Study):
    """Variances of both estimators, by formula and Monte Carlo.

    Args:
        squares: Values of s², positive and ascending.
        loc: m of the Monte Carlo estimates.
        scales: Scales of q(mu) on Normal–Gamma, positive.
        num_samples: Draws of each estimate, at least 100.
    """

    def __init__(self, *, squares: list[float], loc: float = 1.0, scales: list[float], num_samples: int = 100_000):
        require(num_samples >= 100, f"study.num_samples={num_samples} must be at least 100.")
        require(min(squares, default=0) > 0, f"study.squares={squares} must be positive numbers.")
        require(squares == sorted(set(squares)), f"study.squares={squares} must ascend.")
        require(min(scales, default=0) > 0, f"study.scales={scales} must be positive numbers.")
        self.squares, self.loc, self.scales, self.num_samples = squares, loc, scales, num_samples

    def run(self) -> Finding:
        found, records = dict[str, Quantity](), dict[str, np.ndarray]()
        for kind, part in ESTIMATORS.items():
            rows = [self._standard(part, square**0.5) for square in self.squares]
            for i, parameter in enumerate(("loc", "scale")):
                exact = variance(kind, parameter, self.loc, np.sqrt(self.squares))
                pairs = zip(self.squares, rows, exact.tolist(), strict=True)
                row = {text(s): deviation(gradient[:, i], true) for s, gradient, true in pairs}
                found |= {f"{kind}_{parameter}[{name}]": quantity for name, quantity in row.items()}
                records[f"{kind}_{parameter}"] = np.array([quantity.value for quantity in row.values()])
            for scale in self.scales:
                found[f"{kind}_normal_gamma[{text(scale)}]"] = self._normal_gamma(kind, part, scale)
        return Finding(found, records | {"squares": np.array(self.squares)})

    def _standard(self, part: Estimator, scale: float) -> Tensor:
        """Return independent gradients in (m, s), (N, 2)."""
        model, count = StandardNormal(), self.num_samples
        family = MeanField(model.latents, count, positive=Exponential()).double()
        family.assign({"z": repeated({"loc": self.loc, "scale": scale}, count)})
        return gradient(part, model, family, None) / doubles([1.0, scale])

    def _normal_gamma(self, kind: str, part: Estimator, scale: float) -> Quantity:
        """Return the standard deviation of the gradient in loc of q(mu), by Monte Carlo and by quadrature."""
        problem = Problem(self.num_samples)
        loc, _, a, b = fixed_point(problem)
        family = problem.family(self.num_samples)
        mu, tau = {"loc": loc, "scale": scale}, {"concentration": a, "rate": b}
        family.assign({"mu": repeated(mu, self.num_samples), "tau": repeated(tau, self.num_samples)})
        rule = Rule((loc, scale, a, b))
        centre, ratio, *_ = (value.item() for value in problem.model.posterior(problem.x))
        slope = -ratio * rule.tau * (rule.mu - centre) + (kind == "path") * (rule.mu - loc) / scale**2
        exact = rule.mean(slope**2) - rule.mean(slope) ** 2
        return deviation(gradient(part, problem.model, family, problem.x)[:, 0], exact)

    def forms(self) -> dict[str, Form]:
        count = len(self.squares)
        rows = {f"{kind}_{name}": Form((count,), least=0) for kind in ESTIMATORS for name in ("loc", "scale")}
        return rows | {"squares": Form((count,), least=0, ascending=True)}

    def figures(self, records: Records) -> Figures:
        from vi_core.plots.studies import score_figure

        s, m = np.linspace(*REACH, GRID), np.linspace(-2.0, 2.0, GRID)
        curves = {kind: variance(kind, "loc", self.loc, s) ** 0.5 for kind in ESTIMATORS}
        total, path = (variance(kind, "scale", m[:, None], s) for kind in ESTIMATORS)
        points = {kind: records[f"{kind}_loc"] for kind in ESTIMATORS}
        where = np.sqrt(records["squares"])
        title = "score_variance: q = N(m, s²), posterior N(0, 1)"
        return {"variance": score_figure((s, m), curves, (where, points), np.log10(path / total) / 2, title=title)}


def variance(kind: str, parameter: str, m: Any, s: np.ndarray) -> np.ndarray:
    """Return the variance of one draw's gradient in closed form, in the shape of m and s together."""
    part = s**2 if kind == "total" else (1 / s - s) ** 2
    return part + 0 * m if parameter == "loc" else m**2 + 2 * part


def repeated(values: dict[str, float], count: int) -> dict[str, Tensor]:
    """Return parameters for R = `count` replicates, each (R, 1)."""
    return {name: torch.full((count, 1), value, dtype=torch.float64) for name, value in values.items()}


def gradient(part: Estimator, model: Model, family: Family, x: Any) -> Tensor:
    """Return independent gradients in the stored parameters, (N, P)."""
    (found,) = torch.autograd.grad(part(model, family, ELBO(), x).surrogate.sum(), list(family.parameters()))
    return found.squeeze(1)


def deviation(samples: Tensor, variance: float) -> Quantity:
    """Return the standard deviation of samples (N,), with its error from the fourth moment, beside the exact one."""
    squares = (samples - samples.mean()).square()
    value = squares.mean().sqrt().item()
    error = squares.std().item() / len(samples) ** 0.5 / max(2 * value, 1e-300)
    return Quantity(value, error, variance**0.5)


def text(number: float) -> str:
    """Return a number without a dot, as a fraction."""
    return str(Fraction(number).limit_denominator(1000))
