"""Differences of log Γ and of ψ that keep their digits for large arguments.

log Γ(a) grows like a log a, so that log Γ(a + m) − log Γ(a) and m ψ(a) lose at a = 10^14 what they are about. With
Stirling's expansion and its remainder, Binet's function s,

    log Γ(a) = (a − ½) log a − a + ½ log 2π + s(a),        s(a) = 1/(12 a) − 1/(360 a³) + ...,
    ψ(a)     = log a + d(a),                               d(a) = −1/(2 a) − 1/(12 a²) + ...,

and h(u) = u − log(1 + u), the large terms cancel on paper:

    log Γ(a + m) − log Γ(a) − m log a = (a + m − ½) log(1 + m/a) − m + s(a + m) − s(a).

Abramowitz, Stegun 1964, equations 6.1.40 and 6.3.18.
"""

import torch
from torch import Tensor

from vi_core.distributions.normal import HALF_LOG_2PI

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
