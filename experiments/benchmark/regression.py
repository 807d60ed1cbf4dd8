"""Logistic regression of 569 tumours on 30 measurements, with a full-rank Normal: 31 latents and K = 8 samples a step.

This program fits eight replicates at once, from a mode and in whitened coordinates; a step counts for one of them.
`by_factors` is the same step with the density written for all samples and replicates at once, in place of being mapped
from the density of one draw. NumPyro fits one `AutoMultivariateNormal`, in its own coordinates and from its own start.
All make the same number of steps, after which the bound must be that of the best full-rank Normal.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch.nn.functional import softplus

from vi_core.distributions.normal import HALF_LOG_2PI
from vi_core.models.base import Factors
from vi_core.models.bayesian.regression import LogisticRegression
from vi_core.types import Latents

from .entries import Answers, Entry, Place, Problem, ours

REPLICATES, SAMPLES, STEPS, TAIL = 8, 8, 4000, 200
RATE = 0.05  # of NumPyro's Adam; of 0.005, 0.01, 0.02 and 0.05 the one whose bound is the best
ANSWERS: Answers = {"elbo": (-58.9, 0.6)}


def logistic(place: Place) -> Problem:
    """Eight replicates against one fit of NumPyro."""
    data = str(tumours(place.folder))
    chosen = ["experiment=own", "model=logistic_regression", "dataset=npz", f"dataset.path={data}", "dtype=float32"]
    chosen += [f"replicates={REPLICATES}", f"estimator.num_samples={SAMPLES}", f"optimizer.schedule.steps={STEPS}"]
    scale = 1e6 / REPLICATES
    factors = {"model": f"{__name__}.ByFactors"}
    others = ours(place, "by_factors", chosen, scale=scale, answers=ANSWERS, more=factors)
    settings = {"problem": "logistic", "data": data, "num_samples": SAMPLES, "lr": RATE, "steps": STEPS}
    entries = [
        *ours(place, "logistic", chosen, scale=scale, answers=ANSWERS),
        *(replace(entry, contender="by_factors") for entry in others),
        Entry("numpyro", "scan", "numpyro_", settings, 1e6, ANSWERS),
    ]
    return Problem("logistic", "µs per fit and step", entries, steps=STEPS, tail=TAIL)


def tumours(folder: Path) -> Path:
    """Return the file of the standardised data set."""
    from sklearn.datasets import load_breast_cancer  # slow to import

    path = folder / "tumours.npz"
    if not path.exists():
        x, y = map(np.asarray, load_breast_cancer(return_X_y=True))
        np.savez(path, x=(x - x.mean(0)) / x.std(0), y=y.astype(float))  # as NumPyro takes it
    return path


class ByFactors(LogisticRegression):
    """The shipped model with factors for all samples and replicates at once."""

    def factors(self, z: Latents, x: Any) -> Factors:
        alpha, beta = z["alpha"], z["beta"]
        eta = alpha.unsqueeze(-1) + beta @ x["x"].mT
        found: Factors = {"y": ((x["y"] * eta - softplus(eta)).sum(-1), frozenset({"alpha", "beta"}))}
        scales = {"alpha": self.intercept_scale, "beta": self.slope_scale}
        for name, value in {"alpha": alpha.unsqueeze(-1), "beta": beta}.items():
            constant = value.shape[-1] * (np.log(scales[name]) + HALF_LOG_2PI)
            density = -0.5 * (value / scales[name]).square().sum(-1) - constant
            found[name] = (density, frozenset({name}))
        return found
