"""The Gamma distribution, by concentration and rate, and functions that keep its digits for large arguments.

log Γ(a) grows like a log a, so that log Γ(a + m) − log Γ(a) and m ψ(a) lose at a = 10^14 what they are about. With
Stirling's expansion and its remainder, Binet's function s,

    log Γ(a) = (a − ½) log a − a + ½ log 2π + s(a),        s(a) = 1/(12 a) − 1/(360 a³) + ...,
    ψ(a)     = log a + d(a),                               d(a) = −1/(2 a) − 1/(12 a²) + ...,

and h(u) = u − log(1 + u), the large terms cancel on paper:

    log Γ(a + m) − log Γ(a) − m log a = (a + m − ½) log(1 + m/a) − m + s(a + m) − s(a).

Abramowitz, Stegun 1964, equations 6.1.40 and 6.3.18.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vi_core.distributions.normal import HALF_LOG_2PI


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
class Gamma:
    """Gamma(concentration a, rate b), density b^a z^(a−1) e^(−bz) / Γ(a).

    Draws come from torch's rejection sampler; their derivative is the implicit one, −∂F/∂a ÷ density
    (Figurnov, Mohamed, Mnih 2018). The smallest normal number is added to keep draws that underflow positive; it
    changes no others.
    """

    concentration: Tensor
    rate: Tensor

    def rsample(self, num_samples: int) -> Tensor:
        """Draw z, with shape (K, *batch, *event), differentiable in the parameters."""
        shape = (num_samples, *self.concentration.shape)
        standard = standard_gamma(self.concentration.expand(shape))
        return (standard + torch.finfo(standard.dtype).tiny) / self.rate

    def log_prob(self, z: Tensor) -> Tensor:
        """Return log q(z), elementwise."""
        a, b = self.concentration, self.rate
        return torch.addcmul(torch.addcmul(GammaNormalizer.apply(a, b), a - 1, z.log()), b, z, value=-1)

    def entropy(self) -> Tensor:
        """Return E[−log q(z)], elementwise."""
        a = self.concentration
        return a - self.rate.log() + torch.lgamma(a) + (1 - a) * torch.digamma(a)

    @property
    def mean(self) -> Tensor:
        """E[z], elementwise."""
        return self.concentration / self.rate

    @property
    def mean_log(self) -> Tensor:
        """E[log z] = ψ(a) − log b."""
        return torch.digamma(self.concentration) - self.rate.log()

    @property
    def variance(self) -> Tensor:
        """Var[z], elementwise."""
        return self.concentration / self.rate.square()

    def icdf(self, level: float) -> Tensor:
        """Return the quantile at a level in (0, 1), elementwise, without a gradient."""
        from scipy.special import gammaincinv  # slow to import

        quantile = gammaincinv(self.concentration.detach().cpu().double().numpy(), level)
        return torch.as_tensor(quantile).to(self.rate) / self.rate

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

    with the functions d and s of `vi_core.distributions.gamma`. The first line is a small difference of large
    terms where the concentrations are large; in the second nothing large is left to cancel.
    """
    (a, b), (c, d) = (q.concentration, q.rate), (p.concentration, p.rate)
    u, t, ratio = (a - c) / c, (d - b) / b, a / c * (d / b)
    v = torch.where((u.abs() < 0.5) & (t.abs() < 0.5), u * (d / b) + t, ratio - 1)
    log_ratios = torch.where(v.abs() < 0.5, v.clamp(-0.5, 0.5).log1p(), (a / c).log() + (d / b).log())
    return c * (v - log_ratios) + 0.5 * log_ratio(a, c) + (a - c) * digamma_less_log(a) + binet(c) - binet(a)


LARGE = 16.0  # from here on the first omitted terms of both series are below 1e-17
BINET = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)
DIGAMMA = (-1 / 12, 1 / 120, -1 / 252, 1 / 240, -1 / 132, 691 / 32760, -1 / 12)


def binet(a: Tensor) -> Tensor:
    """Return s(a) = log Γ(a) − (a − ½) log a + a − ½ log 2π for a > 0, same shape."""
    small, inverse = a.clamp_max(LARGE), a.clamp_min(LARGE).reciprocal()
    direct = small.lgamma() - (small - 0.5) * small.log() + small - HALF_LOG_2PI
    return torch.where(a > LARGE, inverse * polynomial(BINET, inverse.square()), direct)


def digamma_less_log(a: Tensor) -> Tensor:
    """Return d(a) = ψ(a) − log a for a > 0, same shape."""
    small, inverse = a.clamp_max(LARGE), a.clamp_min(LARGE).reciprocal()
    squared = inverse.square()
    series = squared * polynomial(DIGAMMA, squared) - 0.5 * inverse
    return torch.where(a > LARGE, series, small.digamma() - small.log())


def polynomial(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    """Return Σ_i c_i x^i by Horner's rule, same shape as x."""
    total = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + coefficient
    return total


def log_ratio(x: Tensor, y: Tensor) -> Tensor:
    """Return log(x/y) for positive x and y, broadcasting, with all digits where they are close."""
    change = (x - y) / y
    return torch.where(change.abs() < 0.5, change.log1p(), (x / y).log())


def log_gamma_ratio(a: Tensor, m: Tensor) -> Tensor:
    """Return log Γ(a + m) − log Γ(a) − m log a for a > 0 and m ≥ 0, broadcasting."""
    return (a + m - 0.5) * torch.log1p(m / a) - m + binet(a + m) - binet(a)


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
