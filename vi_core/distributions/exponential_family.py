"""Exponential families p(x | η) = h(x) exp(ηᵀt(x) − A(η)), by their log-normaliser A alone.

∇A(η) = E[t(x)] are the mean parameters, and ∇²A(η) = Cov[t(x)] is the Fisher information on η. Both follow from A by
automatic differentiation. Amari 1998; Wainwright, Jordan 2008, section 3.5.
"""

from collections.abc import Callable

import torch
from torch import Tensor

LogNormalizer = Callable[[Tensor], Tensor]  # A(η), (*batch), for natural parameters η (*batch, P)


def mean_parameters(log_normalizer: LogNormalizer, natural: Tensor) -> Tensor:
    """Return E[t(x)] = ∇A(η), with shape (*batch, P)."""
    natural = natural.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(log_normalizer(natural).sum(), natural)
    return gradient


def fisher_information(log_normalizer: LogNormalizer, natural: Tensor) -> Tensor:
    """Return ∇²A(η), with shape (*batch, P, P), at natural parameters η (*batch, P)."""
    natural = natural.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(log_normalizer(natural).sum(), natural, create_graph=True)
        rows = [torch.autograd.grad(entry.sum(), natural, retain_graph=True)[0] for entry in gradient.unbind(-1)]
    return torch.stack(rows, dim=-2)


def gamma_log_normalizer(natural: Tensor) -> Tensor:
    """A(η) = log Γ(η₂ + 1) − (η₂ + 1) log(−η₁) of a Gamma with t(x) = (x, log x): η = (−rate, concentration − 1)."""
    rate, concentration = -natural[..., 0], natural[..., 1] + 1
    return torch.lgamma(concentration) - concentration * rate.log()


def normal_log_normalizer(natural: Tensor) -> Tensor:
    """A(η) = −η₁²/(4η₂) − ½ log(−2η₂) of a Normal with t(x) = (x, x²): η = (loc/scale², −1/(2 scale²))."""
    first, second = natural.unbind(-1)
    return -first.square() / (4 * second) - 0.5 * (-2 * second).log()
