"""The evidence lower bound and its importance-weighted form, which is as tight as its number of samples allows:

    ELBO = E_q[log p(x, z) − log q(z)] = log p(x) − KL(q(z) ‖ p(z | x)),
    IWELBO_K = E[log (1/K) Σ_k w_k],    ELBO = IWELBO_1 ≤ IWELBO_K ≤ log p(x).

Jordan, Ghahramani, Jaakkola, Saul 1999; Blei, Kucukelbir, McAuliffe 2017; Burda, Grosse, Salakhutdinov 2015. The K
samples of a step are its importance samples.
"""

import math

import torch
from torch import Tensor

from vi_core.bounds.base import Bound


class ELBO(Bound):
    """L = (1/K) Σ_k log w_k."""

    name, additive, linear = "elbo", True, True

    def __call__(self, log_w: Tensor) -> Tensor:
        return log_w.mean(dim=0)

    def signal(self, log_w: Tensor) -> Tensor:
        """log w_k / K: the other samples and the constant ∂L/∂log w_k have expectation zero against score k."""
        return log_w * (1 / log_w.shape[0])


class IWELBO(Bound):
    """L = logsumexp_k log w_k − log K."""

    name = "iwelbo"

    def __call__(self, log_w: Tensor) -> Tensor:
        return without_negligible(log_w).logsumexp(dim=0) - math.log(log_w.shape[0])

    def signal(self, log_w: Tensor) -> Tensor:
        """L − w_k / Σ_j w_j: the normalised weight is ∂L/∂log w_k."""
        return self(log_w) - log_w.softmax(dim=0)


def without_negligible(log_w: Tensor) -> Tensor:
    """Return log-weights (K, *batch) with −∞ in place of those below eps² of the largest.

    They cannot change a sum that holds the largest. Their normalised weights, which multiply gradients, would be
    subnormal numbers, with which a processor multiplies matrices three times more slowly.
    """
    least = log_w.detach().amax(dim=0) + 2 * math.log(torch.finfo(log_w.dtype).eps)
    return log_w.masked_fill(log_w < least, -torch.inf)
