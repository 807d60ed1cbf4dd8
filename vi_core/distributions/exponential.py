"""The few distributions that models and families share, as small pure objects on explicit tensors.

They follow `torch.distributions` in names and parameters, and leave out its argument checks and shape bookkeeping,
which cost several times the arithmetic for the small tensors of black-box VI. Parameters have shape `(*batch, *event)`;
a draw of K samples has shape `(K, *batch, *event)`, and `log_prob` is elementwise: the joint sums over the event.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from vi_core.distributions.base import Distribution


@dataclass(frozen=True)
class Exponential(Distribution):
    """Exponential(rate), density rate·e^(−rate·z), drawn by its inverse distribution function.

    F(z) = 1 − e^(−rate·z) gives z = −log(1 − u)/rate for u ~ U[0, 1), differentiable in the rate. log1p(−u) is finite
    for every such u and exact for small ones. As for `Gamma`, the smallest normal number is added.
    """

    rate: Tensor

    def rsample(self, num_samples: int) -> Tensor:
        uniform = torch.rand((num_samples, *self.rate.shape), dtype=self.rate.dtype, device=self.rate.device)
        return (torch.finfo(uniform.dtype).tiny - torch.log1p(-uniform)) / self.rate

    def log_prob(self, z: Tensor) -> Tensor:
        return self.rate.log() - self.rate * z

    def entropy(self) -> Tensor:
        return 1 - self.rate.log()

    @property
    def mean(self) -> Tensor:
        return self.rate.reciprocal()

    @property
    def variance(self) -> Tensor:
        return self.rate.square().reciprocal()

    def fisher(self) -> Tensor:
        """Return the information on the rate, 1/rate², (*batch, *event, 1, 1)."""
        return self.variance[..., None, None]
