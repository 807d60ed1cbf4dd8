"""The log-likelihood of single data points by importance sampling, for models with latents of their own per point:

    log p(x) ≈ log (1/K) Σ_k p(x, z_k)/q(z_k | x),   z_k ~ q(z | x).

Its expectation is the IWELBO with K samples: below log p(x), and rising to it with K. Rezende, Mohamed, Wierstra 2014,
appendix E.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vi_core.datasets.base import Data
from vi_core.diagnostics.importance import effective_sample_size
from vi_core.families.base import Family
from vi_core.models.base import Model

POINTS = 100  # data points in one piece
NUMBERS = 2**24  # largest number of elements of a tensor (samples, points, *event), which bounds memory


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
