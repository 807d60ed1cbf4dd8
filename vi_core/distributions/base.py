"""Contract of a univariate distribution, a small pure object on explicit tensors.

The distributions of this folder follow `torch.distributions` in names and parameters. They leave out its argument
checks and shape bookkeeping, which cost several times the arithmetic for the small tensors of black-box VI. Parameters
have shape `(*batch, *event)`; a draw of K samples has shape `(K, *batch, *event)`, and `log_prob` is elementwise.
"""

from abc import ABC, abstractmethod

from torch import Tensor


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

    @property
    @abstractmethod
    def mean(self) -> Tensor:
        """E[z], elementwise."""

    @property
    @abstractmethod
    def variance(self) -> Tensor:
        """Var[z], elementwise."""


def sum_last(value: Tensor, axes: int) -> Tensor:
    """Sum over the last `axes` axes; the tensor itself for zero of them."""
    return value.sum(dim=tuple(range(-axes, 0))) if axes else value
