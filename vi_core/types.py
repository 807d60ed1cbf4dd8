"""The words that all parts share.

Shapes: `(K, R, B, *event)` are samples, replicates, batch and event. `*batch` stands for `(R, B)`; B is 1 for latents
that all data points share, and R is 1 for families with networks.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Latents = dict[str, Tensor]
"""Values of the latent variables by name, each (K, *batch, *event)."""

Params = dict[str, dict[str, Tensor]]
"""Constrained parameters of q: latent -> parameter name -> (*batch, *event); B is 1 for what data points share."""

Support = Literal["real", "positive", "one_hot"]
"""Where a latent's values lie, elementwise; `one_hot` ones are vectors along the last axis of the event."""


@dataclass(frozen=True)
class Latent:
    """What a model says of one latent variable.

    Args:
        support: Where its values lie.
        shape: Event shape.
        local: Whether each data point has its own (an amortised latent) or all share one.
    """

    support: Support
    shape: tuple[int, ...] = ()
    local: bool = False


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
