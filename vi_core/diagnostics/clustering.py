"""Comparison of a fitted mixture with the generating one: labels up to renaming, parameters up to renumbering.

Components of a mixture have no order of their own, so that neither can be compared entry by entry.

The adjusted Rand index of two labellings counts the pairs of points on which they agree, less what chance gives: 1 for
equal partitions, 0 on average for independent ones (Hubert, Arabie 1985). With contingency table n_ij and its
sums a_i, b_j,

    (Σ C(n_ij, 2) − e) / (½ (Σ C(a_i, 2) + Σ C(b_j, 2)) − e),   e = Σ C(a_i, 2) Σ C(b_j, 2) / C(N, 2).
"""

import numpy as np
from numpy import ndarray


def adjusted_rand_index(first: ndarray, second: ndarray) -> float:
    """Return the adjusted Rand index of two labellings of N points, (N,) integers from 0: at most 1."""
    table = np.zeros((first.max() + 1, second.max() + 1))
    np.add.at(table, (first, second), 1)
    together, rows, columns = (_pairs(n).sum() for n in (table, table.sum(axis=1), table.sum(axis=0)))
    chance = rows * columns / _pairs(np.float64(len(first)))
    most = (rows + columns) / 2
    return 1.0 if most == chance else float((together - chance) / (most - chance))


def _pairs(count: ndarray | np.float64) -> ndarray:
    return np.asarray(count * (count - 1) / 2)


def renumbering(estimate: ndarray, truth: ndarray) -> ndarray:
    """Return the permutation that matches generating components with estimated ones.

    Args:
        estimate: Parameters of the K estimated components, (K, D).
        truth: Parameters of the K generating components, (K, D).

    Returns:
        p, (K,), for which truth[p] lies nearest to `estimate`, in units of truth's standard deviation per column.
    """
    from scipy.optimize import linear_sum_assignment  # slow to import, and few runs need it

    scale = truth.std(axis=0)
    scaled = (estimate[:, None] - truth[None]) / np.where(scale > 0, scale, 1.0)
    return linear_sum_assignment(np.square(scaled).sum(axis=-1))[1]
