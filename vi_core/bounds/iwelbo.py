"""The importance-weighted bound, IWELBO_K = E[log (1/K) Σ_k w_k], with ELBO = IWELBO_1 ≤ IWELBO_K ≤ log p(x).

Burda, Grosse, Salakhutdinov 2015. The K samples of a step are its importance samples.
"""

import math

from torch import Tensor

from vi_core.bounds.base import Bound


class IWELBO(Bound):
    """L = logsumexp_k log w_k − log K."""

    name = "iwelbo"
    additive = False

    def __call__(self, log_w: Tensor) -> Tensor:
        return log_w.logsumexp(dim=0) - math.log(log_w.shape[0])

    def signal(self, log_w: Tensor) -> Tensor:
        """L − w_k / Σ_j w_j: the normalised weight is ∂L/∂log w_k."""
        return self(log_w) - log_w.softmax(dim=0)
