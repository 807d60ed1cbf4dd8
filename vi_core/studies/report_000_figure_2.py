"""Figure 2 of report 000 as written, beside the plain estimator and the control variate with the right coefficient.

The report gives torch.cov the S × 2 matrix of f and h, which stands for S variables with two observations each, where
f = R h, h is the score of one parameter, and R = log p less the log of that parameter's factor of q. The S × S result
over Var(h) multiplies the scores. It has rank one: with two observations the covariance of samples k and j is
(f_k − h_k)(f_j − h_j)/2, so that the report's gradient is

    mean f − m mean(f − h),     m = Σ_j (f_j − h_j) h_j / (2 Var h),

a multiple of the plain one up to the small m mean h. The multiple is about S/2 times the size of log w, thousands, and
Adam divides it out. The report also hands the gradient in the scale, concentration and rate to the numbers before
softplus, without its slope, which changes lengths too. What is left of the control variate is the noise of m.

The coefficient put right is Cov(f, h)/Var(h), one number for each parameter, from the other samples.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from vi_core.datasets.synthetic import NormalNumpyDraws
from vi_core.distributions.normal import Normal
from vi_core.distributions.transforms import Softplus
from vi_core.errors import require
from vi_core.estimators.score_function.coefficients import LeaveOneOut
from vi_core.estimators.score_function.estimator import per_sample_scores
from vi_core.families.mean_field import MeanField
from vi_core.models.conjugate.normal_gamma import NormalGamma
from vi_core.optimizers.adam import Adam
from vi_core.studies.base import Figures, Finding, Form, Quantity, Records, Study, average, doubles
from vi_core.studies.claims.base import A_0, B_0, LAMBDA_0, MU_0
from vi_core.types import Params

NUM_SAMPLES, LEARNING_RATE = 50, 1e-3  # of report 000
BARS = {10: 10, 100: 20, 1000: 30}  # of its histograms, by the number of points


class Draws(NamedTuple):
    """What a gradient is made of; S samples, R replicates, four parameters: loc, scale, concentration and rate.

    Attributes:
        log_p: (S, R).
        log_q: Of each parameter's own factor, (4, S, R).
        scores: (4, S, R).
        slopes: Derivative of each parameter in the number that is stored, (4, R).
    """

    log_p: Tensor
    log_q: Tensor
    scores: Tensor
    slopes: Tensor

    @property
    def log_w(self) -> Tensor:
        """The log-weights, (S, R)."""
        return self.log_p - self.log_q[0] - self.log_q[-1]


def naive(draws: Draws) -> Tensor:
    """Return the plain score-function gradient in the stored numbers, (4, R): figure 1."""
    return (draws.log_w * draws.scores).mean(dim=1) * draws.slopes


def as_written(draws: Draws) -> Tensor:
    """Return the report's gradient, (4, R), by the formula above."""
    h = draws.scores
    f = (draws.log_p - draws.log_q) * h
    multiple = ((f - h) * h).sum(dim=1) / (2 * h.var(dim=1))
    return f.mean(dim=1) - multiple * (f - h).mean(dim=1)


def right(draws: Draws) -> Tensor:
    """Return the gradient with the right coefficient, (4, R)."""
    h = draws.scores
    f = draws.log_w * h
    return (f - LeaveOneOut()(f, h) * h).mean(dim=1) * draws.slopes


GRADIENTS: dict[str, Callable[[Draws], Tensor]] = {"naive": naive, "as_written": as_written, "right": right}


class Report000Figure2(Study):
    """Black-box VI of report 000 by the three gradients.

    Args:
        num_points: Of the report's data: 10, 100 or 1000.
        replicates: Independent runs of each, at least 2.
        steps: Iterations.
        every: Steps between two recorded points.
    """

    def __init__(self, *, num_points: int = 100, replicates: int = 64, steps: int = 10_000, every: int = 100):
        require(num_points in BARS, f"study.num_points={num_points} must be one of {list(BARS)}.")
        require(replicates >= 2, f"study.replicates={replicates} must be at least 2.")
        require(1 <= every <= steps, f"study.every={every} must be from 1 to study.steps={steps}.")
        self.replicates, self.steps, self.every = replicates, steps, every
        self.model = NormalGamma(loc=MU_0, precision_ratio=LAMBDA_0, concentration=A_0, rate=B_0)
        self.x = self.model.summarize(points(num_points))

    def run(self) -> Finding:
        found, records = dict[str, Quantity](), {"steps": np.arange(self.every, self.steps + 1, self.every)}
        exact, start = self.model.exact(self.x), torch.ones(4, self.replicates, dtype=torch.float64)
        start[0] = torch.randn(self.replicates, dtype=torch.float64)
        for name, gradient in GRADIENTS.items():
            path = self.ascend(gradient, start.clone())
            for latent, values in zip(("mu", "tau"), path[-1], strict=False):
                found[f"{name}_{latent}"] = average(values, exact[latent])
                deviation = values.std().item()  # with a relative error of 1/√(2(R − 1)) for Normal values
                found[f"{name}_{latent}_sd"] = Quantity(deviation, deviation / math.sqrt(2 * (self.replicates - 1)))
            found[f"{name}_elbo"] = average(path[-1, 2])
            records[name] = path.numpy()
        records |= {f"data_{size}": points(size).numpy() for size in BARS}
        return Finding(found, records)

    def ascend(self, gradient: Callable[[Draws], Tensor], raw: Tensor) -> Tensor:
        """Move stored numbers, (4, R), and return E[mu], E[tau] and the ELBO at the recorded steps, (T, 3, R)."""
        adam, path = Adam(lr=LEARNING_RATE), list[Tensor]()
        adam.bind([raw], 1)
        for step in range(1, self.steps + 1):
            raw += LEARNING_RATE * adam.directions([gradient(self.draw(raw))])[0]
            if step % self.every == 0:
                params = named(raw)
                tau = params["tau"]["concentration"] / params["tau"]["rate"]
                path.append(torch.stack([raw[0], tau[:, 0], self.model.expected_bound(params, self.x)[:, 0]]))
        return torch.stack(path)

    def draw(self, raw: Tensor) -> Draws:
        """Draw S samples from q, whose stored numbers are `raw`, (4, R)."""
        params, family = named(raw), MeanField(self.model.latents, raw.shape[1], positive=Softplus())
        q = family.distribution(params)
        z = q.sample(NUM_SAMPLES)
        log_q = q.log_prob_terms(z)
        terms = torch.stack([log_q[latent] for latent in ("mu", "mu", "tau", "tau")])
        slopes = torch.cat([torch.ones_like(raw[:1]), raw[1:].sigmoid()])
        scores = per_sample_scores(family, params, z)[1]
        return Draws(self.model.log_joint(z, self.x)[..., 0], terms[..., 0], scores[..., 0], slopes)

    def forms(self) -> dict[str, Form]:
        found = {"steps": Form(("rows",), "integer", least=1, ascending=True)}
        found |= {f"data_{size}": Form((size,)) for size in BARS}
        return found | {name: Form(("rows", 3, "replicates")) for name in GRADIENTS}

    def figures(self, records: Records) -> Figures:
        from vi_core.plots.reports import control_variates_figure, histograms_figure

        grid = np.linspace(-5, 7, 200)
        density = Normal(*doubles([MU_0, 0.5**-0.5])).log_prob(doubles(grid.tolist())).exp().numpy()
        samples = {str(bars): records[f"data_{size}"] for size, bars in BARS.items()}
        return {
            "control_variates": control_variates_figure(records, title="report 000, figure 2, as written and right"),
            "data": histograms_figure(samples, (grid, density), title="the data of report 000"),
        }


def points(size: int) -> Tensor:
    """Return the report's data of this size, (N,)."""
    return NormalNumpyDraws(num_points=size).load().train


def named(raw: Tensor) -> Params:
    """Return the stored numbers, (4, R), as parameters of q."""
    scale, concentration, rate = softplus(raw[1:, :, None])
    return {"mu": {"loc": raw[0, :, None], "scale": scale}, "tau": {"concentration": concentration, "rate": rate}}
