"""Maps from the real line to the positive numbers, with their inverses.

A variational family stores unconstrained numbers and moves them by gradient ascent; the part `Positive` says how they
become scales, rates and concentrations. The choice changes the geometry that an optimizer sees: report 001 stores
logarithms (`Exponential`), report 000 applies `Softplus`, and report 002 stores a Normal's log-precision (`Precision`).
"""

from abc import ABC, abstractmethod

from torch import Tensor
from torch.nn import functional as F


class Positive(ABC):
    """A map from the reals onto positive numbers, elementwise and differentiable where it is one to one."""

    @abstractmethod
    def __call__(self, raw: Tensor) -> Tensor:
        """Map unconstrained numbers to positive ones; same shape."""

    @abstractmethod
    def inverse(self, value: Tensor) -> Tensor:
        """Map positive numbers to unconstrained ones; same shape."""


class Exponential(Positive):
    """value = exp(raw)."""

    def __call__(self, raw: Tensor) -> Tensor:
        return raw.exp()

    def inverse(self, value: Tensor) -> Tensor:
        return value.log()


class Softplus(Positive):
    """value = log(1 + exp(raw)), with inverse value + log(1 − exp(−value))."""

    def __call__(self, raw: Tensor) -> Tensor:
        return F.softplus(raw, threshold=40)  # the default, 20, jumps by 2e-9

    def inverse(self, value: Tensor) -> Tensor:
        return value + (-(-value).expm1()).log()


class Precision(Positive):
    """value = exp(−raw / 2): raw is the logarithm of the precision 1/value², for scales."""

    def __call__(self, raw: Tensor) -> Tensor:
        return (-0.5 * raw).exp()

    def inverse(self, value: Tensor) -> Tensor:
        return -2 * value.log()


class Clamp(Positive):
    """value = max(raw, 1e-4): the parameter itself, kept off zero, as report 004 does. No gradient flows below."""

    least = 1e-4

    def __call__(self, raw: Tensor) -> Tensor:
        return raw.clamp_min(self.least)

    def inverse(self, value: Tensor) -> Tensor:
        return value
