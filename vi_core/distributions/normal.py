"""The Normal distribution, by mean and standard deviation."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class Normal:
    """N(loc, scale²), with reparameterisation z = loc + scale·ε, ε ~ N(0, 1)."""

    loc: Tensor
    scale: Tensor

    def rsample(self, num_samples: int) -> Tensor:
        """Draw z, with shape (K, *batch, *event), differentiable in the parameters."""
        noise = torch.randn((num_samples, *self.loc.shape), dtype=self.loc.dtype, device=self.loc.device)
        return torch.addcmul(self.loc, self.scale, noise)

    def log_prob(self, z: Tensor) -> Tensor:
        """Return log q(z), elementwise."""
        standard = (z - self.loc) / self.scale
        return torch.addcmul(-self.scale.log() - HALF_LOG_2PI, standard, standard, value=-0.5)

    def entropy(self) -> Tensor:
        """Return E[−log q(z)], elementwise."""
        return self.scale.log() + (0.5 + HALF_LOG_2PI)

    @property
    def mean(self) -> Tensor:
        """E[z], elementwise."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """Var[z], elementwise."""
        return self.scale.square()

    def icdf(self, level: float) -> Tensor:
        """Return the quantile at a level in (0, 1), elementwise."""
        return self.loc + self.scale * torch.special.ndtri(self.loc.new_tensor(level))

    def fisher(self) -> Tensor:
        """Return the Fisher information on (loc, scale), diag(1/scale², 2/scale²), (*batch, *event, 2, 2)."""
        precision = self.scale.square().reciprocal()
        return torch.diag_embed(torch.stack([precision, 2 * precision], dim=-1))


def standard_normal(like: Tensor) -> Normal:
    """Return N(0, 1), with scalar parameters of the dtype and on the device of a tensor."""
    return Normal(like.new_zeros(()), like.new_ones(()))


def kl_normal(q: Normal, p: Normal) -> Tensor:
    """KL(q ‖ p) of two Normals, elementwise: log(s_p/s_q) + (s_q² + (m_q − m_p)²)/(2 s_p²) − 1/2."""
    ratio = (q.scale / p.scale).square()
    return 0.5 * (ratio + ((q.loc - p.loc) / p.scale).square() - 1 - ratio.log())
