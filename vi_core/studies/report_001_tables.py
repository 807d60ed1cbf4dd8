"""Tables 1 and 2 of report 001 by its own stream of random numbers, beside independent streams.

Algorithms 1 and 2 of Ranganath, Gerrish, Blei 2014 on Normal–Gamma with q(tau) q(mu | tau). Report 001 seeds torch with
10, draws the data, four starting values, and then, in each step, S times tau and mu, one scalar after the other.
Replicate 0 repeats these calls; the other replicates have the same data and start, and draws of their own. All of them
take the same steps, in float32 as there, so that the report's numbers are one point of the distribution that the others
show.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vi_core.distributions.transforms import Exponential
from vi_core.errors import require
from vi_core.estimators.score_function.coefficients import Coefficient, InSample, NoControl
from vi_core.estimators.score_function.estimator import per_sample_scores
from vi_core.families.normal_gamma import NormalGammaFamily
from vi_core.models.conjugate.normal_gamma import NormalGamma
from vi_core.problem import default_dtype
from vi_core.studies.base import Figures, Finding, Form, Quantity, Records, Study
from vi_core.studies.claims.base import A_0, B_0, LAMBDA_0, MU_0
from vi_core.types import Latents

SEED, NUM_POINTS, NUM_SAMPLES, LEARNING_RATE = 10, 100, 30, 1e-5  # of report 001
ALGORITHMS: dict[str, Coefficient] = {"table_1": NoControl(), "table_2": InSample()}
EARLY = (100, 1000)  # steps at which the bounds of both algorithms are compared


class Path(NamedTuple):
    """E[mu] and E[tau], (T, 2, R), and the average of log w over samples, (T, R), at the recorded steps."""

    means: Tensor
    bound: Tensor


class Replay:
    """Draws of replicate 0 by 001's calls, and of the others by whole tensors.

    The report's stream is kept aside, so that the default one goes on as if it had not been used.
    """

    def __init__(self, replicates: int):
        generator = torch.Generator().manual_seed(SEED)
        self.points = torch.normal(MU_0, 1 / math.sqrt(0.5), (NUM_POINTS,), generator=generator)
        loc = torch.randn(1, generator=generator)
        uniform = torch.cat([torch.rand(1, generator=generator) for _ in range(3)])
        ratio, a, b = uniform * torch.tensor([2.0, 3.0, 3.0]) + torch.tensor([0.5, 1.0, 0.5])
        self.start = [value.expand(replicates, 1).clone() for value in (loc, ratio, a, b)]
        self.state = generator.get_state()

    def draw(self, params: list[Tensor], own: Latents) -> Latents:
        """Return draws (S, R, 1) with those of replicate 0 in place; `own` are independent ones of all replicates."""
        loc, ratio, a, b = (value[0, 0].detach() for value in params)
        law = torch.distributions.Gamma(a, b, validate_args=False)
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.set_state(self.state)
            for k in range(NUM_SAMPLES):
                tau = law.sample()
                own["mu"][k, 0, 0] = torch.normal(loc, 1 / (ratio * tau).sqrt())
                own["tau"][k, 0, 0] = tau
            self.state = torch.get_rng_state()
        return own


class Report001Tables(Study):
    """Both tables.

    Args:
        replicates: Independent streams, at least 2, besides the report's.
        steps: Iterations.
        every: Steps between two recorded points.
    """

    def __init__(self, *, replicates: int = 64, steps: int = 10_000, every: int = 100):
        require(replicates >= 2, f"study.replicates={replicates} must be at least 2.")
        require(1 <= every <= steps, f"study.every={every} must be from 1 to study.steps={steps}.")
        self.replicates, self.steps, self.every = replicates, steps, every

    def run(self) -> Finding:
        with default_dtype(torch.float32):  # as the report draws
            return self._run()

    def _run(self) -> Finding:
        found, records = dict[str, Quantity](), {"steps": np.arange(self.every, self.steps + 1, self.every)}
        bounds = list[Tensor]()
        for name, coefficient in ALGORITHMS.items():
            path = self.ascend(coefficient)
            end, others = path.means[-1], path.means[-1, :, 1:]
            for i, latent in enumerate(("mu", "tau")):
                found[f"{name}_{latent}"] = Quantity(end[i, 0].item())
                found[f"{name}_{latent}_band"] = Quantity(others[i].mean().item())
                found[f"{name}_{latent}_sd"] = Quantity(others[i].std().item())
                found[f"{name}_{latent}_rank"] = Quantity((others[i] < end[i, 0]).double().mean().item())
            for step in (*EARLY, self.steps):
                if step % self.every == 0 and step <= self.steps:
                    bound = path.bound[step // self.every - 1, 1:]
                    se = bound.std().item() / math.sqrt(self.replicates)
                    found[f"{name}_elbo[{step}]"] = Quantity(bound.mean().item(), se)
            bounds.append(path.bound[:, 1:].double())
            records[f"{name}_replay"] = path.means[:, :, 0].double().numpy()
            levels = torch.tensor([0.025, 0.975])
            records[f"{name}_band"] = path.means[:, :, 1:].quantile(levels, dim=2).double().numpy()
        plain, controlled = bounds
        error = ((plain.var(dim=1) + controlled.var(dim=1)) / self.replicates).sqrt()
        records["gain"] = torch.stack([controlled.mean(dim=1) - plain.mean(dim=1), error]).numpy()
        return Finding(found, records)

    def ascend(self, coefficient: Coefficient) -> Path:
        """Return the path of all replicates, of which number 0 is the report's."""
        model = NormalGamma(loc=MU_0, precision_ratio=LAMBDA_0, concentration=A_0, rate=B_0)
        replay, count = Replay(self.replicates + 1), self.replicates + 1
        x, slopes = model.summarize(replay.points), torch.ones(4, count, 1)
        family = NormalGammaFamily(model.latents, count, positive=Exponential())
        values, means, bounds = replay.start, [], []
        for step in range(1, self.steps + 1):
            params = named(values)
            z = replay.draw(values, family.distribution(params).sample(NUM_SAMPLES))
            log_q, h = per_sample_scores(family, params, z)
            log_w = model.log_joint(z, x) - log_q
            slopes[1:] = torch.stack(values[1:])  # d value / d log value
            h = h * slopes[:, None]
            f = log_w * h
            gradient = (f - coefficient(f, h) * h).mean(dim=1)
            values = [
                values[0] + LEARNING_RATE * gradient[0],
                *((v.log() + LEARNING_RATE * g).exp() for v, g in zip(values[1:], gradient[1:], strict=True)),
            ]
            if step % self.every == 0:
                means.append(torch.cat([values[0], values[2] / values[3]], dim=1).T)
                bounds.append(log_w.mean(dim=0)[:, 0])
        return Path(torch.stack(means), torch.stack(bounds))

    def forms(self) -> dict[str, Form]:
        found = {"steps": Form(("rows",), "integer", least=1, ascending=True), "gain": Form((2, "rows"))}
        for name in ALGORITHMS:
            found |= {f"{name}_replay": Form(("rows", 2)), f"{name}_band": Form((2, "rows", 2))}
        return found

    def figures(self, records: Records) -> Figures:
        from vi_core.plots.reports import replay_figure

        return {"tables": replay_figure(records, title="report 001's stream among independent ones")}


def named(values: list[Tensor]) -> dict[str, dict[str, Tensor]]:
    """Return loc, precision ratio, concentration and rate, each (R, 1), as parameters of q."""
    loc, ratio, a, b = values
    return {"mu": {"loc": loc, "precision_ratio": ratio}, "tau": {"concentration": a, "rate": b}}
