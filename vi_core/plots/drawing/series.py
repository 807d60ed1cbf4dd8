"""Arithmetic on recorded series before they are drawn: smoothing, quantiles over replicates, thinning, axis limits.

A series has shape (T, R): T recorded steps of R replicates. Entries that are not finite count as missing, so that a
replicate that was frozen or diverged leaves the statistics from there on, and the others stay in.
"""

from collections.abc import Iterable

import numpy as np
from numpy import ndarray

MAX_POINTS = 2000  # of a drawn line, about twice the pixels of a panel
BAND = (0.05, 0.5, 0.95)  # quantiles over replicates: band, median, band


def smooth(step: ndarray, values: ndarray, window: int) -> tuple[ndarray, ndarray]:
    """Return the centred moving average of `values` (T, R) and the steps it belongs to, (T', R) after (T',).

    Row t is the mean of rows t − h … t + h, with h = window // 2 but at most t // 6: a window that grows with t leaves
    the first, steep part of a run in place. An even window is taken one row wider. Rows at the end without a complete
    window are dropped.
    """
    rows = np.arange(len(step))
    half = np.minimum(window // 2, rows // 6)
    complete = rows + half < len(step)
    rows, half = rows[complete], half[complete]
    return step[rows], _slice_means(values, rows - half, rows + half + 1)


def _slice_means(values: ndarray, start: ndarray, stop: ndarray) -> ndarray:
    """Return for each i the mean over the finite entries of rows start[i] … stop[i] − 1 of `values` (T, R).

    Every slice is summed on its own: differences of a running sum would carry the rounding error of one huge first
    value through the whole trace.
    """
    finite = np.isfinite(values)
    slices = np.stack([start, stop], axis=1).ravel()
    end = ((0, 1), (0, 0))
    total = np.add.reduceat(np.pad(np.where(finite, values, 0.0), end), slices)[::2]
    count = np.add.reduceat(np.pad(finite.astype(float), end), slices)[::2]
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def quantiles(values: ndarray, levels: tuple[float, ...] = BAND) -> ndarray:
    """Return quantiles over the finite replicates of `values` (T, R), with shape (len(levels), T); NaN where none is.

    The numbers of `np.nanquantile`, without its Python loop over rows.
    """
    ordered = np.sort(np.where(np.isfinite(values), values, np.nan), axis=1)
    last = np.maximum(np.isfinite(ordered).sum(axis=1) - 1, 0)
    position = np.asarray(levels)[:, None] * last
    low = position.astype(int)
    high = np.minimum(low + 1, last)
    rows = np.arange(len(values))
    return ordered[rows, low] + (position - low) * (ordered[rows, high] - ordered[rows, low])


def thin(length: int) -> ndarray:
    """Return at most `MAX_POINTS` row numbers of 0 … length − 1, dense enough for a linear and for a log axis."""
    if length <= MAX_POINTS:
        return np.arange(length)
    even = np.linspace(0, length - 1, MAX_POINTS // 2)
    early = np.geomspace(1, length, MAX_POINTS // 2) - 1
    return np.unique(np.concatenate([even, early]).astype(int))


def envelope(step: ndarray, values: ndarray) -> tuple[ndarray, ndarray]:
    """Return a line (T,) and its steps with few points: the minimum and maximum of each thinned stretch."""
    rows = thin(len(step))
    if len(rows) == len(step):
        return step, values
    low, high = np.fmin.reduceat(values, rows), np.fmax.reduceat(values, rows)
    return np.repeat(step[rows], 2), np.stack([low, high], axis=1).ravel()


def last_half(values: ndarray) -> ndarray:
    """Return the second half of the rows of `values`."""
    return values[len(values) // 2 :]


def robust_limits(values: ndarray, include: Iterable[float], scale: float = 0.0) -> tuple[float, float]:
    """Return limits of an axis that show `values` but their outermost 0.5 per cent at each end, and all of `include`.

    A number of `include` further away than ten times the spread of the values, or than six times `scale`, is left out:
    it would flatten them. The limits are at least `scale` apart: what is smaller is of no interest.
    """
    numbers = [number for number in include if np.isfinite(number)]
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        finite = np.asarray(numbers or [0.0])
    low, high = np.percentile(finite, [0.5, 99.5])
    size = max(abs(low), abs(high), 1e-12)
    far = max(10 * max(high - low, 1e-4 * size), 6 * scale)
    near = [number for number in numbers if low - far < number < high + far]
    low, high = min([low, *near]), max([high, *near])
    margin = max(0.08 * max(high - low, 1e-5 * size), (scale - (high - low)) / 2)
    return float(low - margin), float(high + margin)
