"""Elementwise bijections from the real line onto the positive numbers, for parameters of variational families.

A family stores unconstrained numbers and moves them by gradient ascent; a `Positive` turns them into scales, rates and
concentrations. The choice changes the geometry that an optimizer sees, and with it the speed of convergence. Supports
of latent variables have fixed maps: `vi_core.distributions.supports`.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn import functional as F


class Positive(ABC):
    """An elementwise map from the reals onto positive numbers, differentiable where it is one to one."""

    @abstractmethod
    def __call__(self, raw: Tensor) -> Tensor:
        """Map unconstrained numbers to positive ones; same shape."""

    @abstractmethod
    def inverse(self, value: Tensor) -> Tensor:
        """Map positive numbers to unconstrained ones; same shape."""

    @abstractmethod
    def log_abs_det_jacobian(self, raw: Tensor, value: Tensor) -> Tensor:
        """Return log|d value / d raw| at raw and value = self(raw), elementwise; same shape."""


class Exponential(Positive):
    """value = exp(raw)."""

    def __call__(self, raw: Tensor) -> Tensor:
        return raw.exp()

    def inverse(self, value: Tensor) -> Tensor:
        return value.log()

    def log_abs_det_jacobian(self, raw: Tensor, value: Tensor) -> Tensor:
        return raw


class Softplus(Positive):
    """value = log(1 + exp(raw)), with inverse value + log(1 − exp(−value))."""

    def __call__(self, raw: Tensor) -> Tensor:
        return F.softplus(raw, threshold=40)  # the default, 20, jumps by 2e-9

    def inverse(self, value: Tensor) -> Tensor:
        return value + (-(-value).expm1()).log()

    def log_abs_det_jacobian(self, raw: Tensor, value: Tensor) -> Tensor:
        return F.logsigmoid(raw)


class Precision(Positive):
    """value = exp(−raw / 2): raw is the logarithm of the precision 1/value², for scales."""

    def __call__(self, raw: Tensor) -> Tensor:
        return (-0.5 * raw).exp()

    def inverse(self, value: Tensor) -> Tensor:
        return -2 * value.log()

    def log_abs_det_jacobian(self, raw: Tensor, value: Tensor) -> Tensor:
        return -0.5 * raw - math.log(2)


class Clamp(Positive):
    """value = max(raw, 1e-4): the parameter itself, kept off zero. Below 1e-4 the derivative is zero."""

    least = 1e-4

    def __call__(self, raw: Tensor) -> Tensor:
        return raw.clamp_min(self.least)

    def inverse(self, value: Tensor) -> Tensor:
        return value

    def log_abs_det_jacobian(self, raw: Tensor, value: Tensor) -> Tensor:
        return torch.where(raw < self.least, -torch.inf, torch.zeros_like(raw))
