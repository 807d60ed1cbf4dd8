"""The contract of a bound: a pure function of log-weights, in log space.

With log w_k = log p(x, z_k) − log q(z_k) and z_1..z_K ~ q independent, a bound is the expectation of some L(log w).
It is *additive* when L is a mean of one term per sample; estimators with estimated baselines need that.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor


class Bound(ABC):
    """A lower bound of log p(x)."""

    name: ClassVar[str]
    additive: ClassVar[bool]

    @abstractmethod
    def __call__(self, log_w: Tensor) -> Tensor:
        """Reduce log-weights (K, *batch) to the Monte Carlo value of the bound (*batch)."""

    @abstractmethod
    def signal(self, log_w: Tensor) -> Tensor:
        """Return what multiplies each sample's score ∇log q(z_k) in the score-function gradient, (K, *batch).

        The gradient of E[L] in the parameters of q is E[Σ_k (L − ∂L/∂log w_k) ∇log q(z_k)]. Where samples enter L
        separately, the parts of L that do not hold z_k have expectation zero against its score and are left out.
        """
