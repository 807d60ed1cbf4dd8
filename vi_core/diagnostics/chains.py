"""Convergence of Markov chains: split R-hat, effective sample sizes, and the Monte Carlo error of means and quantiles.

Vehtari, Gelman, Simpson, Carpenter, Bürkner 2021, "Rank-normalization, folding, and localization: an improved R-hat".
Draws are (C, N, D): chains, draws of each, scalars.
"""

import numpy as np
from numpy import ndarray


def split_rhat(draws: ndarray) -> ndarray:
    """Return the largest of split R-hat of ranks and of folded ranks, (D,): near 1 where all halves of chains agree.

    With half chains of length n, within variance W and variance of their means B/n, R-hat is √(((n−1)/n W + B/n)/W).
    It is computed of normal scores of the ranks, which have moments whatever the law; folded around the median, it sees
    chains that differ in their spread.
    """
    halves = split(draws)
    folded = np.abs(halves - np.median(halves, axis=(0, 1)))
    return np.maximum(_rhat(normal_scores(halves)), _rhat(normal_scores(folded)))


def split(draws: ndarray) -> ndarray:
    """Return each chain as two, (2C, N // 2, D)."""
    half = draws.shape[1] // 2
    return np.concatenate([draws[:, :half], draws[:, -half:]])


def normal_scores(draws: ndarray) -> ndarray:
    """Return Φ⁻¹((rank − 3/8)/(S + 1/4)) of each value among all S draws of its scalar."""
    from scipy import stats  # slow to import

    chains, count, size = draws.shape
    ranks = stats.rankdata(draws.reshape(-1, size), axis=0).reshape(draws.shape)
    return stats.norm.ppf((ranks - 0.375) / (chains * count + 0.25))


def _rhat(draws: ndarray) -> ndarray:
    count = draws.shape[1]
    within = draws.var(axis=1, ddof=1).mean(axis=0)
    between = draws.mean(axis=1).var(axis=0, ddof=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt((count - 1) / count + between / within)


def effective_size(draws: ndarray) -> ndarray:
    """Return the number of independent draws with the same error of the mean, (D,).

    S/τ with τ = −1 + 2 Σ_t (ρ_2t + ρ_2t+1), summed while the pairs are positive and made monotone (Geyer 1992). The
    autocorrelations ρ_t come from all half chains: 1 − (W − mean autocovariance)/variance, so that chains that disagree
    count as correlated. At most S log₁₀ S.
    """
    halves = split(draws)
    chains, count, _ = halves.shape
    covariance = autocovariance(halves).mean(axis=0)
    within = covariance[0] * count / (count - 1)
    total = within * (count - 1) / count + halves.mean(axis=1).var(axis=0, ddof=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        rho = 1 - (within - covariance) / total
    rho[0] = 1
    pairs = rho[: count // 2 * 2].reshape(-1, 2, rho.shape[1]).sum(axis=1)
    positive = np.logical_and.accumulate(pairs > 0, axis=0)
    time = -1 + 2 * np.where(positive, np.minimum.accumulate(pairs, axis=0), 0).sum(axis=0)
    size = chains * count
    return np.minimum(size / np.maximum(time, 1e-12), size * np.log10(size))


def autocovariance(draws: ndarray) -> ndarray:
    """Return autocovariances at lags 0 to N − 1, divided by N, (C, N, D), by the fast Fourier transform."""
    count = draws.shape[1]
    centred = draws - draws.mean(axis=1, keepdims=True)
    spectrum = np.fft.rfft(centred, n=2 * count, axis=1)
    return np.fft.irfft(np.abs(spectrum) ** 2, n=2 * count, axis=1)[:, :count] / count


def mean_error(draws: ndarray) -> ndarray:
    """Return the Monte Carlo standard error of each mean, (D,)."""
    return draws.reshape(-1, draws.shape[-1]).std(axis=0, ddof=1) / np.sqrt(effective_size(draws))


def quantile_error(draws: ndarray, probability: float) -> ndarray:
    """Return the Monte Carlo standard error of a quantile, (D,).

    The indicator of being below the quantile has an effective size n; the quantiles at the 16 % and 84 % points of
    Beta(n p + 1, n (1 − p) + 1) are two standard errors apart.
    """
    from scipy import stats

    flat = draws.reshape(-1, draws.shape[-1])
    below = (draws <= np.quantile(flat, probability, axis=0)).astype(float)
    size = effective_size(below)
    law = stats.beta(size * probability + 1, size * (1 - probability) + 1)
    ends = [[np.quantile(flat[:, i], p) for i, p in enumerate(law.ppf(end))] for end in (0.1587, 0.8413)]
    return (np.array(ends[1]) - np.array(ends[0])) / 2
