"""Contract of a bound: a pure function of log-weights, in log space.

With log w_k = log p(x, z_k) − log q(z_k) and z_1..z_K ~ q independent, a bound is the expectation of some L(log w).
"""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor


class Bound(ABC):
    """A lower bound of log p(x).

    Attributes:
        name: Column of traces and summaries, and the value of the setting `bound`.
        additive: Whether L is a mean of one term for each sample. Control-variate coefficients estimated from the
            samples are unbiased, and the path derivative is, only then.
        linear: Whether L is the mean of the log-weights. The bound is then a sum of expectations, one for each term of
            log p(x, z) − log q(z), of which each may have a closed form or be left out where it is zero.
    """

    name: ClassVar[str]
    additive: ClassVar[bool] = False
    linear: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, log_w: Tensor) -> Tensor:
        """Reduce log-weights (K, *batch) to the Monte Carlo value L of the bound (*batch)."""

    @abstractmethod
    def signal(self, log_w: Tensor) -> Tensor:
        """Return the factor of each sample's score ∇log q(z_k) in the score-function gradient, (K, *batch).

        The gradient of E[L] in the parameters of q is E[Σ_k (L − ∂L/∂log w_k) ∇log q(z_k)]. Where samples enter L
        separately, the parts of L that do not hold z_k have expectation zero against its score and are left out.
        """
