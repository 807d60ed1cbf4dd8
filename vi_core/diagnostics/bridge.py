"""Log evidence from posterior draws, by bridge sampling.

With posterior draws u_i, i = 1..N₁, of the unnormalised density p̃, and draws v_j, j = 1..N₂, of a proposal g, the
evidence r solves, with s_i = N₁/(N₁ + N₂),

    r = (1/N₂) Σ_j l(v_j)/(s₁ l(v_j) + s₂ r)  /  (1/N₁) Σ_i 1/(s₁ l(u_i) + s₂ r),    l = p̃/g.

Meng, Wong 1996; Gronau et al. 2017. The proposal is a Normal with mean and covariance of other posterior draws, on
unconstrained space, where posteriors are closer to Normals.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from vi_core.errors import LabError

TOLERANCE = 1e-10  # of log r between two iterations
MOST_ITERATIONS = 1000

LogDensity = Callable[[Tensor], Tensor]  # points (S, D) -> log p̃ (S,)


class Evidence(NamedTuple):
    """A log evidence in nats.

    Attributes:
        value: Mean of the estimates from the two halves of the draws.
        error: Standard error: of the mean of the two by the formula, or half their difference, whichever is larger.
    """

    value: float
    error: float


def bridge_evidence(log_density: LogDensity, draws: ndarray, seed: int, effective: float) -> Evidence:
    """Return the log evidence from posterior draws.

    Args:
        log_density: log p̃ on unconstrained space, with the log-determinant of the transform.
        draws: Unconstrained draws of the posterior, (C, N, D).
        seed: Of the draws of the proposal.
        effective: Effective number of independent draws, the least over the coordinates.

    Raises:
        LabError: Where the iteration does not converge.
    """
    half = draws.shape[1] // 2
    parts = [np.ascontiguousarray(part.reshape(-1, draws.shape[-1])) for part in (draws[:, :half], draws[:, half:])]
    generator = torch.Generator().manual_seed(seed)
    pairs = ((parts[0], parts[1]), (parts[1], parts[0]))
    found = [_one(log_density, fitted, used, generator, effective / 2) for fitted, used in pairs]
    values, variances = (np.array(each) for each in zip(*found, strict=True))
    formula = math.sqrt(float(variances.sum())) / 2
    return Evidence(float(values.mean()), max(formula, abs(float(values[0] - values[1])) / 2))


def _one(
    log_density: LogDensity, fitted: ndarray, used: ndarray, generator: torch.Generator, effective: float
) -> tuple[float, float]:
    """Return log r and its variance, with a proposal from `fitted` and the posterior draws `used`."""
    centre, points = torch.from_numpy(fitted.mean(axis=0)), torch.from_numpy(used)
    root = torch.linalg.cholesky(torch.from_numpy(np.atleast_2d(np.cov(fitted.T))))
    noise = torch.randn(len(used), len(centre), generator=generator, dtype=torch.float64)
    proposal = torch.distributions.MultivariateNormal(centre, scale_tril=root, validate_args=False)
    drawn = centre + noise @ root.mT

    def ratio(u: Tensor) -> ndarray:
        with torch.no_grad():
            return (log_density(u).double() - proposal.log_prob(u)).nan_to_num(nan=-torch.inf).numpy()

    own, others = ratio(points), ratio(drawn)
    log_r = solve(own, others, effective)
    return log_r, variance(own, others, log_r, effective)


def solve(own: ndarray, others: ndarray, effective: float) -> float:
    """Return log r from log l of posterior draws (N₁,) and of proposal draws (N₂,).

    The weights s are those of `effective` independent posterior draws.
    """
    s = effective / (effective + len(others))
    log_s, log_t = math.log(s), math.log1p(-s)
    log_r = float(np.median(own))
    for _ in range(MOST_ITERATIONS):
        above = np.logaddexp.reduce(others - np.logaddexp(log_s + others, log_t + log_r)) - math.log(len(others))
        below = np.logaddexp.reduce(-np.logaddexp(log_s + own, log_t + log_r)) - math.log(len(own))
        before, log_r = log_r, float(above - below)
        if abs(log_r - before) < TOLERANCE:
            return log_r
    raise LabError("bridge sampling does not converge: the posterior has no overlap with a Normal of its moments.")


def variance(own: ndarray, others: ndarray, log_r: float, effective: float) -> float:
    """Return the variance of log r (Frühwirth-Schnatter 2004), with `effective` independent posterior draws.

    With p = l/r and g = 1, f₁ = p/(s p + t) at proposal draws and f₂ = 1/(s p + t) at posterior draws, it is
    Var[f₁]/(N₂ E[f₁]²) + Var[f₂]/(N_eff E[f₂]²).
    """
    s = effective / (effective + len(others))
    log_s, log_t = math.log(s), math.log1p(-s)
    first = np.exp(others - log_r - np.logaddexp(log_s + others - log_r, log_t))
    second = np.exp(-np.logaddexp(log_s + own - log_r, log_t))
    return float(
        first.var() / first.mean() ** 2 / len(others) + second.var() / second.mean() ** 2 / max(1.0, effective)
    )
