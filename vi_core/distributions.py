"""The few distributions that models and families share, as small pure objects on explicit tensors.

They follow `torch.distributions` in names and parameters, and leave out its argument checks and shape bookkeeping,
which cost several times the arithmetic for the small tensors of black-box VI. Parameters have shape `(*batch, *event)`;
a draw of K samples has shape `(K, *batch, *event)`, and `log_prob` is elementwise: the joint sums over the event.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Distribution(ABC):
    """A univariate law for each element of its parameters."""

    @abstractmethod
    def rsample(self, num_samples: int) -> Tensor:
        """Draw z, with shape (K, *batch, *event), differentiable in the parameters."""

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """Return log q(z), elementwise."""

    @abstractmethod
    def entropy(self) -> Tensor:
        """Return E[−log q(z)], elementwise."""

    @abstractmethod
    def fisher(self) -> Tensor:
        """Return the Fisher information on the P parameters, in the order of the fields, (*batch, *event, P, P)."""

    @property
    @abstractmethod
    def mean(self) -> Tensor:
        """E[z], elementwise."""

    @property
    @abstractmethod
    def variance(self) -> Tensor:
        """Var[z], elementwise."""


@dataclass(frozen=True)
class Normal(Distribution):
    """N(loc, scale²), with reparameterisation z = loc + scale·ε, ε ~ N(0, 1)."""

    loc: Tensor
    scale: Tensor

    def rsample(self, num_samples: int) -> Tensor:
        noise = torch.randn((num_samples, *self.loc.shape), dtype=self.loc.dtype, device=self.loc.device)
        return torch.addcmul(self.loc, self.scale, noise)

    def log_prob(self, z: Tensor) -> Tensor:
        standard = (z - self.loc) / self.scale
        return torch.addcmul(-self.scale.log() - HALF_LOG_2PI, standard, standard, value=-0.5)

    def entropy(self) -> Tensor:
        return self.scale.log() + (0.5 + HALF_LOG_2PI)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return self.scale.square()

    def fisher(self) -> Tensor:
        """Return the information on (loc, scale), diag(1/scale², 2/scale²), (*batch, *event, 2, 2)."""
        precision = self.scale.square().reciprocal()
        return torch.diag_embed(torch.stack([precision, 2 * precision], dim=-1))


class GammaNormalizer(torch.autograd.Function):
    """a log b − log Γ(a), computed once for all samples that share a and b.

    Parameters that were expanded to (K, *batch) to obtain per-sample scores hold the same numbers K times. The special
    functions then cost a sixth of a step of black-box VI if they are evaluated on every copy.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor, b: Tensor) -> Tensor:
        """Return the normaliser, shaped as a."""
        base_a, base_b = _without_copies(a), _without_copies(b)
        return (base_a * base_b.log() - torch.lgamma(base_a)).expand_as(a)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        """Keep one row of each parameter."""
        a, b = inputs
        ctx.save_for_backward(_without_copies(a), _without_copies(b))

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return gradient · (log b − ψ(a)) and gradient · a/b, each sample's own."""
        (gradient,), (a, b) = grad_outputs, ctx.saved_tensors
        return gradient * (b.log() - torch.digamma(a)), gradient * (a / b)


def _without_copies(value: Tensor) -> Tensor:
    """Return one row of a tensor whose first axis was expanded, else the tensor."""
    return value[:1] if value.dim() and value.stride(0) == 0 else value


@dataclass(frozen=True)
class Gamma(Distribution):
    """Gamma(concentration a, rate b), density b^a z^(a−1) e^(−bz) / Γ(a).

    Draws come from torch's rejection sampler; their derivative is the implicit one, −∂F/∂a ÷ density
    (Figurnov, Mohamed, Mnih 2018). The smallest normal number is added, which only draws that underflow feel.
    """

    concentration: Tensor
    rate: Tensor

    def rsample(self, num_samples: int) -> Tensor:
        shape = (num_samples, *self.concentration.shape)
        standard = torch._standard_gamma(self.concentration.expand(shape))
        return (standard + torch.finfo(standard.dtype).tiny) / self.rate

    def log_prob(self, z: Tensor) -> Tensor:
        a, b = self.concentration, self.rate
        return torch.addcmul(torch.addcmul(GammaNormalizer.apply(a, b), a - 1, z.log()), b, z, value=-1)

    def entropy(self) -> Tensor:
        a = self.concentration
        return a - self.rate.log() + torch.lgamma(a) + (1 - a) * torch.digamma(a)

    @property
    def mean(self) -> Tensor:
        return self.concentration / self.rate

    @property
    def mean_log(self) -> Tensor:
        """E[log z] = ψ(a) − log b."""
        return torch.digamma(self.concentration) - self.rate.log()

    @property
    def variance(self) -> Tensor:
        return self.concentration / self.rate.square()

    def fisher(self) -> Tensor:
        """Return the information on (a, b), [[ψ₁(a), −1/b], [−1/b, a/b²]], (*batch, *event, 2, 2)."""
        a, b = self.concentration, self.rate
        cross = -1 / b
        rows = [torch.stack([torch.polygamma(1, a), cross], -1), torch.stack([cross, a / b.square()], -1)]
        return torch.stack(rows, dim=-2)


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


def kl_normal(q: Normal, p: Normal) -> Tensor:
    """KL(q ‖ p) of two Normals, elementwise: log(s_p/s_q) + (s_q² + (m_q − m_p)²)/(2 s_p²) − 1/2."""
    ratio = (q.scale / p.scale).square()
    return 0.5 * (ratio + ((q.loc - p.loc) / p.scale).square() - 1 - ratio.log())


def kl_gamma(q: Gamma, p: Gamma) -> Tensor:
    """KL(q ‖ p) of two Gammas, elementwise (rates):

    (a_q − a_p) ψ(a_q) − log Γ(a_q) + log Γ(a_p) + a_p (log b_q − log b_p) + a_q (b_p/b_q − 1).
    """
    shape = (q.concentration - p.concentration) * torch.digamma(q.concentration)
    normalizers = torch.lgamma(p.concentration) - torch.lgamma(q.concentration)
    rates = p.concentration * (q.rate.log() - p.rate.log()) + q.concentration * (p.rate / q.rate - 1)
    return shape + normalizers + rates
