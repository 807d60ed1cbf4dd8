"""The exponential distribution, drawn by its inverse distribution function."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Exponential:
    """Exponential(rate), density rate·e^(−rate·z).

    F(z) = 1 − e^(−rate·z) gives z = −log(1 − u)/rate for u ~ U[0, 1), differentiable in the rate. log1p(−u) is finite
    for every such u and exact for small ones. The smallest normal number is added to keep z positive at u = 0.
    """

    rate: Tensor

    def rsample(self, num_samples: int) -> Tensor:
        """Draw z, with shape (K, *batch, *event), differentiable in the rate."""
        uniform = torch.rand((num_samples, *self.rate.shape), dtype=self.rate.dtype, device=self.rate.device)
        return (torch.finfo(uniform.dtype).tiny - torch.log1p(-uniform)) / self.rate
