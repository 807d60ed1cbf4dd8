"""The Gamma distribution, by concentration and rate."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vi_core.distributions.base import Distribution
from vi_core.distributions.gamma_functions import binet, digamma_less_log, log_ratio


class GammaNormalizer(torch.autograd.Function):
    """The log-normaliser a log b − log Γ(a), computed once for all samples that share a and b.

    Parameters that are expanded to (K, *batch) for per-sample scores hold the same numbers K times. Evaluating the
    special functions on all copies would cost a sixth of a step of black-box VI.
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


def standard_gamma(concentration: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Return draws of Gamma(concentration, 1), with the shape of `concentration` and an implicit derivative.

    `torch.distributions.Gamma` calls the same function, takes no generator, and takes six times as long for the small
    tensors of black-box VI.
    """
    return torch._standard_gamma(concentration, generator=generator)


@dataclass(frozen=True)
class Gamma(Distribution):
    """Gamma(concentration a, rate b), density b^a z^(a−1) e^(−bz) / Γ(a).

    Draws come from torch's rejection sampler; their derivative is the implicit one, −∂F/∂a ÷ density
    (Figurnov, Mohamed, Mnih 2018). The smallest normal number is added to keep draws that underflow positive; it
    changes no others.
    """

    concentration: Tensor
    rate: Tensor

    def rsample(self, num_samples: int) -> Tensor:
        shape = (num_samples, *self.concentration.shape)
        standard = standard_gamma(self.concentration.expand(shape))
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
        """Return the Fisher information on (a, b), [[ψ₁(a), −1/b], [−1/b, a/b²]], (*batch, *event, 2, 2)."""
        a, b = self.concentration, self.rate
        cross = -1 / b
        rows = [torch.stack([torch.polygamma(1, a), cross], -1), torch.stack([cross, a / b.square()], -1)]
        return torch.stack(rows, dim=-2)


def kl_gamma(q: Gamma, p: Gamma) -> Tensor:
    """KL(q ‖ p) of two Gammas, elementwise, from concentrations a, c and rates b, d of q and p:

        KL = (a − c) ψ(a) − log Γ(a) + log Γ(c) + c log(b/d) + a (d/b − 1)
           = c (v − log(1 + v)) + ½ log(a/c) + (a − c) d(a) + s(c) − s(a),        v = (a/c) (d/b) − 1,

    with the functions d and s of `vi_core.distributions.gamma_functions`. The first line is a small difference of large
    terms where the concentrations are large; in the second nothing large is left to cancel.
    """
    (a, b), (c, d) = (q.concentration, q.rate), (p.concentration, p.rate)
    u, t, ratio = (a - c) / c, (d - b) / b, a / c * (d / b)
    v = torch.where((u.abs() < 0.5) & (t.abs() < 0.5), u * (d / b) + t, ratio - 1)
    log_ratios = torch.where(v.abs() < 0.5, v.clamp(-0.5, 0.5).log1p(), (a / c).log() + (d / b).log())
    return c * (v - log_ratios) + 0.5 * log_ratio(a, c) + (a - c) * digamma_less_log(a) + binet(c) - binet(a)
