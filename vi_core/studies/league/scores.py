"""Distance of draws from q to reference draws, on the scale of the posterior.

A fit is *good* when the mean of each quantity is within 0.3 posterior deviations and each deviation within a factor
0.7 to 1.4. The energy distance sees what moments do not:

    D² = 2 E|X − Y| − E|X − X'| − E|Y − Y'|,   X ~ q, Y ~ p, in units of the posterior deviations.

Székely, Rizzo 2013.
"""

from typing import NamedTuple

import numpy as np
from numpy import ndarray

LARGEST_MEAN_ERROR = 0.3  # posterior deviations
DEVIATIONS = (0.7, 1.4)  # of q in units of the posterior's
DRAWS_COMPARED = 500  # of each side for the energy distance


class Score(NamedTuple):
    """How far a fit is from its reference.

    Attributes:
        mean_error: Largest error of a mean, in posterior deviations.
        sd_low: Smallest ratio of a deviation to the posterior's.
        sd_high: Largest.
        energy: Energy distance, in posterior deviations.
    """

    mean_error: float
    sd_low: float
    sd_high: float
    energy: float

    @property
    def good(self) -> bool:
        """Whether all means and deviations are within the limits."""
        low, high = DEVIATIONS
        return self.mean_error < LARGEST_MEAN_ERROR and low < self.sd_low and self.sd_high < high


def score(draws: ndarray, reference: ndarray, weights: ndarray | None = None) -> Score:
    """Compare draws with a reference.

    Args:
        draws: From q, (S, D).
        reference: From the posterior, (N, D).
        weights: Of the draws, (S,), positive with sum one; None for equal ones.
    """
    centre, scale = reference.mean(axis=0), reference.std(axis=0)
    own = (draws - centre) / scale
    mean = np.average(own, axis=0, weights=weights)
    sd = np.sqrt(np.average((own - mean) ** 2, axis=0, weights=weights))
    distance = energy_distance(own, (reference - centre) / scale, weights)
    return Score(float(np.abs(mean).max()), float(sd.min()), float(sd.max()), distance)


def energy_distance(x: ndarray, y: ndarray, weights: ndarray | None = None) -> float:
    """Return the energy distance of two sets of draws, (S, D) and (N, D), from at most 500 of each."""
    if weights is None:
        weights = np.full(len(x), 1 / len(x))
    chosen, others = evenly(len(x)), evenly(len(y))
    x, y, w = x[chosen], y[others], weights[chosen] / weights[chosen].sum()
    v = np.full(len(y), 1 / len(y))
    across, within, between = (w @ distances(x, y) @ v, w @ distances(x, x) @ w, v @ distances(y, y) @ v)
    return float(np.sqrt(max(0.0, 2 * across - within - between)))


def distances(x: ndarray, y: ndarray) -> ndarray:
    """Return |x_i − y_j|, (S, N)."""
    from scipy.spatial.distance import cdist  # slow to import, and used here alone

    return cdist(x, y)


def evenly(count: int) -> ndarray:
    """Return at most 500 indices spread evenly over `count` draws."""
    return np.unique(np.linspace(0, count - 1, min(count, DRAWS_COMPARED)).round().astype(int))
