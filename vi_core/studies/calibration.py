"""Simulation-based calibration: is a posterior as wide as it says, on average over data that the model itself makes?

Parameters θ ~ p(θ) and data y ~ p(y | θ) are drawn many times, and each data set is fitted. Were q the posterior, the
rank of θ among draws of q would be uniform. A q that is too narrow puts θ outside its draws too often: the histogram of
ranks is high at both ends; one that is too wide is high in the middle, and a biased one at one end. Talts, Betancourt,
Simpson, Vehtari, Gelman 2018. All data sets are fitted at once, each by a replicate of its own.
"""

from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from vi_core.errors import require
from vi_core.fits.fitting import fit
from vi_core.models.bayesian.base import BayesianModel
from vi_core.problem import default_dtype
from vi_core.studies.base import Figures, Finding, Quantity, Records, Study

BINS = 20  # of a histogram of ranks
LEAST_EXPECTED = 5  # ranks in a bin, for the law of the test


class Calibration(Study):
    """Ranks of parameters among draws of the q that was fitted to data made from them.

    Args:
        model: A model of `y` given predictors `x`.
        points: N, rows of each data set.
        predictors: P, columns of x.
        correlation: Of each pair of columns, between 0 and 1; with it the posterior of the slopes is correlated too.
        fits: Data sets; at least 100.
        draws: Of each q; one less than a multiple of 20, so that all bins hold as many ranks.
        families: Names of the families that are compared.
        settings: Further arguments of `vi_core.fit`.
    """

    def __init__(
        self,
        *,
        model: BayesianModel,
        points: int = 20,
        predictors: int = 2,
        correlation: float = 0.9,
        fits: int = 200,
        draws: int = 99,
        families: list[str],
        settings: dict[str, Any],
    ):
        require(points >= 1 and predictors >= 1, f"study.points={points}, study.predictors={predictors} start at 1.")
        require(0 <= correlation < 1, f"study.correlation={correlation} must lie in [0, 1).")
        require(fits >= LEAST_EXPECTED * BINS, f"study.fits={fits} must be at least {LEAST_EXPECTED * BINS}.")
        require((draws + 1) % BINS == 0, f"study.draws={draws} must be one less than a multiple of {BINS}.")
        require(len(families) > 0, "study.families is empty; name at least one.")
        self.model, self.points, self.predictors, self.correlation = model, points, predictors, correlation
        self.fits, self.draws, self.families, self.settings = fits, draws, families, settings

    def run(self) -> Finding:
        with default_dtype(torch.float64):
            x = self._predictors()
            truth, y = self._simulated(x)
            ranks = {family: self._ranks(family, x, truth, y) for family in self.families}
        quantities = {
            f"{family}_{name}": Quantity(p_value(column, self.draws))
            for family, found in ranks.items()
            for name, column in found.items()
        }
        for family, found in ranks.items():
            least = min(p_value(column, self.draws) for column in found.values())
            quantities[f"{family}_uniform"] = Quantity(min(1.0, least * len(found)))
            quantities[f"{family}_outside"] = Quantity(float(np.mean([outside(c, self.draws) for c in found.values()])))
        records = {f"{family}.{name}": column for family, found in ranks.items() for name, column in found.items()}
        return Finding(quantities, records | {"draws": np.array(self.draws)})

    def _predictors(self) -> Tensor:
        """Return x (N, P) with a common part in all columns."""
        shared, own = torch.randn(self.points, 1), torch.randn(self.points, self.predictors)
        return self.correlation**0.5 * shared + (1 - self.correlation) ** 0.5 * own

    def _simulated(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return parameters (R, *event) by name from the prior, and data sets (R, N)."""
        self.model.observe({"x": x, "y": torch.zeros(len(x))}, len(x))
        drawn = [self.model.prior_draw() for _ in range(self.fits)]
        truth = {name: torch.stack([one[name] for one in drawn]) for name in drawn[0]}
        return truth, self.model.predictive(truth, {"x": x})[self.model.observed]

    def _ranks(self, family: str, x: Tensor, truth: dict[str, Tensor], y: Tensor) -> dict[str, ndarray]:
        """Fit all data sets by a family; return the rank of each scalar of θ among draws of q, (R,) by name."""
        seed = int(torch.randint(2**31, ()))
        data = {"x": x, "y": y}
        found = fit(
            self.model, data, family=family, replicates=self.fits, per_replicate=["y"], seed=seed, **self.settings
        )
        with torch.no_grad():
            z = found.q.sample(self.draws)
        ranks = {name: (z[name].squeeze(2) < value).sum(dim=0) for name, value in truth.items()}
        return {
            name if value.dim() == 1 else f"{name}[{i}]": column.numpy()
            for name, value in ranks.items()
            for i, column in enumerate(value.reshape(self.fits, -1).T)
        }

    def figures(self, records: Records) -> Figures:
        from scipy import stats  # slow to import, and only used here and below

        from vi_core.plots.calibration import rank_figure

        low, high = stats.binom.ppf((0.005, 0.995), self.fits, 1 / BINS)
        return {"ranks": rank_figure(records, BINS, (float(low), float(high)))}


def histogram(ranks: ndarray, draws: int) -> ndarray:
    """Return the counts of ranks 0, ..., draws in 20 equal bins."""
    return np.bincount(ranks * BINS // (draws + 1), minlength=BINS)


def p_value(ranks: ndarray, draws: int) -> float:
    """Return the p-value of Pearson's test that ranks are uniform."""
    from scipy import stats

    return float(stats.chisquare(histogram(ranks, draws))[1])


def outside(ranks: ndarray, draws: int) -> float:
    """Return the share of ranks in the outermost bins, which is 0.1 where they are uniform."""
    counts = histogram(ranks, draws)
    return float((counts[0] + counts[-1]) / counts.sum())
