"""Importance sampling from q, with weights w_k = p(x, z_k)/q(z_k), z_k ~ q: how good q is as a proposal, and log p(x).

The effective sample size and Pareto k-hat measure whether the weights have a finite variance: the first by their second
moment, the other by the tail that decides whether that moment exists. For models with latents of their own for each
data point, the log-likelihood of single points is

    log p(x) ≈ log (1/K) Σ_k p(x, z_k)/q(z_k | x),   z_k ~ q(z | x).

Its expectation is the IWELBO with K samples: below log p(x), and rising to it with K. Rezende, Mohamed, Wierstra 2014,
appendix E.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vi_core.datasets.base import Data
from vi_core.families.base import Family
from vi_core.models.base import Model

POINTS = 100  # data points in one piece
NUMBERS = 2**24  # largest number of elements of a tensor (samples, points, *event), which bounds memory
LEAST_TAIL = 5  # with fewer draws in the tail no shape is estimated


def effective_sample_size(log_w: Tensor) -> Tensor:
    """Return (Σ w)² / Σ w² as a share of the K draws, between 1/K and 1, for log-weights (K, *batch)."""
    return (2 * log_w.logsumexp(dim=0) - (2 * log_w).logsumexp(dim=0)).exp() / len(log_w)


def pareto_k(log_w: Tensor) -> Tensor:
    """Return the shape k-hat of a generalised Pareto fit to the largest weights, (*batch), for log-weights (K, *batch).

    Below 0.5 the weights have finite variance; above 0.7 importance sampling from q is of no use, and q misses part of
    the posterior. Constant weights, where q is the posterior, give −∞, the best value; fewer than 25 draws give NaN.
    The tail is the largest min(K/5, 3√K) weights; the fit is Zhang and Stephens 2009, shrunk towards 0.5 with the
    weight of ten draws, as in Vehtari, Simpson, Gelman, Yao, Gabry 2024, "Pareto smoothed importance sampling".
    """
    flat = log_w.reshape(len(log_w), -1)
    shapes = [_pareto_k(column) for column in flat.unbind(dim=1)]
    return torch.stack(shapes).reshape(log_w.shape[1:])


def _pareto_k(log_w: Tensor) -> Tensor:
    """k-hat of one set of log-weights (K,)."""
    size = len(log_w)
    tail = int(min(0.2 * size, 3 * size**0.5))
    if tail < LEAST_TAIL or not bool(log_w.isfinite().all()):
        return log_w.new_tensor(torch.nan)
    ordered = (log_w - log_w.max()).sort().values
    if ordered[-1] - ordered[0] < 1e-9:
        return log_w.new_tensor(-torch.inf)
    exceedances = ordered[-tail:].exp() - ordered[-tail - 1].exp()
    shape = pareto_shape(exceedances.clamp_min(torch.finfo(log_w.dtype).tiny))
    return (tail * shape + 5) / (tail + 10)


def smoothed_weights(log_w: Tensor) -> Tensor:
    """Return normalised weights (K,) whose tail is that of a generalised Pareto law, for finite log-weights (K,).

    The largest min(K/5, 3√K) weights are replaced, in their order, by the quantiles (i − ½)/M of the law that was
    fitted to them, none above the largest weight that was drawn: Vehtari et al. 2024, algorithm 1.
    """
    size, shifted = len(log_w), log_w - log_w.max()
    tail = int(min(0.2 * size, 3 * size**0.5))
    order = shifted.argsort()
    weights, largest = shifted.exp(), order[-tail:]
    cut = weights[order[-tail - 1]]
    exceedances = (weights[largest] - cut).clamp_min(torch.finfo(log_w.dtype).tiny)
    if tail >= LEAST_TAIL and float(shifted.min()) < -1e-9:
        theta, raw = pareto_fit(exceedances)
        shape, scale = (tail * raw + 5) / (tail + 10), -raw / theta
        levels = (torch.arange(tail, dtype=log_w.dtype, device=log_w.device) + 0.5) / tail
        quantiles = scale * torch.expm1(-shape * torch.log1p(-levels)) / shape
        weights = weights.index_copy(0, largest, (cut + quantiles).clamp_max(1.0))
    return weights / weights.sum()


def pareto_shape(x: Tensor) -> Tensor:
    """Estimate the shape k of a generalised Pareto law from ordered exceedances x > 0, (n,), ascending."""
    return pareto_fit(x)[1]


def pareto_fit(x: Tensor) -> tuple[Tensor, Tensor]:
    """Estimate θ = −k/scale and the shape k of a generalised Pareto law from exceedances x > 0, (n,), ascending.

    The profile likelihood of θ is averaged over a grid that the first quartile of x sets (Zhang, Stephens 2009,
    equations 5 to 9).
    """
    n = len(x)
    count = 30 + int(n**0.5)
    quartile = x[int(n / 4 + 0.5) - 1]
    steps = torch.arange(1, count + 1, dtype=x.dtype, device=x.device)
    theta = 1 / x[-1] + (1 - (count / (steps - 0.5)).sqrt()) / (3 * quartile)
    shape = torch.log1p(-theta.unsqueeze(1) * x).mean(dim=1)
    log_likelihood = n * ((-theta / shape).log() - shape - 1)
    theta = (log_likelihood.softmax(dim=0) * theta).sum()
    return theta, torch.log1p(-theta * x).mean()


class Likelihood(NamedTuple):
    """Estimates for N data points, in float64.

    Attributes:
        log_likelihood: log p(x) of each point, (N,).
        ess: Effective sample size of each point's weights, as a share of the K draws, (N,).
    """

    log_likelihood: Tensor
    ess: Tensor


@torch.no_grad()
def held_out_likelihood(model: Model, family: Family, data: Data, num_samples: int) -> Likelihood:
    """Estimate log p(x) of the held-out points, or of all where none are held out, with K draws for each.

    Where the decode of the data is stochastic, each point is drawn once, and is the same for all K.

    Args:
        model: A model with latents of their own for each data point.
        family: The fitted q(z | x), with R = 1.
        data: The data set.
        num_samples: K, at least 1.
    """
    stored = data.train if data.test is None else data.test
    parts = [_likelihood(model, family, data.decode(rows), num_samples) for rows in stored.split(POINTS)]
    return Likelihood(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _likelihood(model: Model, family: Family, x: Tensor, num_samples: int) -> Likelihood:
    q = family.distribution(family.variational(x))
    size = max(1, NUMBERS // x.numel())
    pieces = []
    for start in range(0, num_samples, size):
        z = q.sample(min(size, num_samples - start))
        pieces.append((model.log_joint(z, x) - q.log_prob(z)).squeeze(1))
    log_w = torch.cat(pieces).double()
    return Likelihood(log_w.logsumexp(dim=0) - math.log(num_samples), effective_sample_size(log_w))
