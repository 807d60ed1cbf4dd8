"""Type aliases shared by models, families and estimators.

Shapes: `(K, R, B, *event)` are samples, replicates, batch and event. `*batch` stands for `(R, B)`; B is 1 for latents
that all data points share, and R is 1 for families with networks.
"""

from dataclasses import dataclass

from torch import Tensor

from vi_core.distributions.supports import Support
from vi_core.errors import require

Latents = dict[str, Tensor]  # values of the latent variables by name, each (K, *batch, *event)
Params = dict[str, dict[str, Tensor]]  # constrained parameters of q: latent -> name -> (*batch, *event)
Graph = dict[str, frozenset[str]]  # latent -> its parents in a directed graph; or factor -> the latents it mentions


@dataclass(frozen=True)
class Latent:
    """A latent variable as its model declares it.

    Args:
        support: Where its values lie.
        shape: Event shape; a simplex, one-hot or ordered vector has its coordinates along the last axis.
        local: Whether each data point has its own (an amortised latent) or all share one.
    """

    support: Support
    shape: tuple[int, ...] = ()
    local: bool = False

    def __str__(self) -> str:
        return self.support.name + (f" {self.shape}" if self.shape else "") + (", per data point" if self.local else "")

    def __post_init__(self) -> None:
        axes = self.support.event_dims
        require(len(self.shape) >= axes, f"shape={self.shape} must have {axes} axes for {self.support.name} support.")

    @property
    def unconstrained_shape(self) -> tuple[int, ...]:
        """Shape of the latent in unconstrained space."""
        return self.support.unconstrained_shape(self.shape)

    def log_abs_det_jacobian(self, u: Tensor, z: Tensor) -> Tensor:
        """Return log|det ∂z/∂u| of z = support.transform(u), summed over the event: (...) for z (..., *shape)."""
        return sum_last(self.support.log_abs_det_jacobian(u, z), len(self.shape) - self.support.event_dims)


def sum_last(value: Tensor, axes: int) -> Tensor:
    """Sum over the last `axes` axes; the tensor itself for zero of them."""
    return value.sum(dim=tuple(range(-axes, 0))) if axes else value


def detached(params: Params) -> Params:
    """Return the same parameters with every gradient stopped."""
    return {latent: {name: value.detach() for name, value in group.items()} for latent, group in params.items()}


def flatten(params: Params) -> list[Tensor]:
    """Return the tensors of `params`, latents and names in the order in which the family declares them."""
    return [value for group in params.values() for value in group.values()]


def unflatten(tensors: list[Tensor], like: Params) -> Params:
    """Return `tensors` under the names of `like`; the inverse of `flatten`."""
    remaining = iter(tensors)
    return {latent: {name: next(remaining) for name in group} for latent, group in like.items()}


def column_names(params: Params) -> list[str]:
    """Return `latent.parameter` for each tensor, in the order of `flatten`."""
    return [f"{latent}.{name}" for latent, group in params.items() for name in group]
