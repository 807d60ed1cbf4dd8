"""Effective sample size and Pareto k-hat: how good q is as an importance-sampling proposal for the posterior.

With w_k = p(x, z_k)/q(z_k), z_k ~ q, both numbers measure whether the weights have a finite variance: the effective
sample size by their second moment, and Pareto k-hat by the tail that decides whether that moment exists.
"""

import torch
from torch import Tensor

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


def pareto_shape(x: Tensor) -> Tensor:
    """Estimate the shape k of a generalised Pareto law from ordered exceedances x > 0, (n,), ascending.

    The profile likelihood of θ = −k/scale is averaged over a grid that the first quartile of x sets
    (Zhang, Stephens 2009, equations 5 to 9).
    """
    n = len(x)
    count = 30 + int(n**0.5)
    quartile = x[int(n / 4 + 0.5) - 1]
    steps = torch.arange(1, count + 1, dtype=x.dtype, device=x.device)
    theta = 1 / x[-1] + (1 - (count / (steps - 0.5)).sqrt()) / (3 * quartile)
    shape = torch.log1p(-theta.unsqueeze(1) * x).mean(dim=1)
    log_likelihood = n * ((-theta / shape).log() - shape - 1)
    weights = log_likelihood.softmax(dim=0)
    return torch.log1p(-(weights * theta).sum() * x).mean()
