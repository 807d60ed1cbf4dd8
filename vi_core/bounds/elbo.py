"""The evidence lower bound, ELBO = E_q[log p(x, z) − log q(z)] = log p(x) − KL(q(z) ‖ p(z | x)).

Jordan, Ghahramani, Jaakkola, Saul 1999; Blei, Kucukelbir, McAuliffe 2017.
"""

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
