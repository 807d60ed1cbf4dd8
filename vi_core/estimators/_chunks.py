"""A model evaluated at some of the K samples at a time, so that memory does not grow with K.

What the derivative of f needs, the activations, is forgotten after each chunk, and computed once more when the backward
pass comes to it. It goes through the chunks one after the other, so that there is room for one where K samples had to
be kept. Values and gradients are those of all samples at once, at the cost of one more evaluation. Griewank, Walther
2000; Chen et al. 2016. `torch.utils.checkpoint` does the same, and imports torch's compiler first: a second, 80 MB.
"""

from collections.abc import Callable
from itertools import count
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from vi_core.types import Latents

Result = TypeVar("Result")
Function = Callable[[Latents, Any], Result]


def in_chunks(density: Function[Tensor], z: Latents, x: Any, size: int | None) -> Tensor:
    """Return density(z, x), (K, *batch), evaluated at `size` samples at a time; see `per_chunk`."""
    values = per_chunk(density, z, x, size)
    return values[0] if len(values) == 1 else torch.cat(values)


def per_chunk(function: Function[Result], z: Latents, x: Any, size: int | None) -> list[Result]:
    """Return function(z, x) for each `size` of the K samples in z, in their order; for all at once if `size` is None.

    The function must give the same again: it draws no random numbers.
    """
    if size is None or size >= len(next(iter(z.values()))):
        return [function(z, x)]
    chunks = zip(*(values.split(size) for values in z.values()), strict=True)
    return [forgetful(function, dict(zip(z, chunk, strict=True)), x) for chunk in chunks]


def forgetful(function: Function[Result], z: Latents, x: Any) -> Result:
    """Return function(z, x), of which nothing is kept for the backward pass but z and x."""
    places = count()
    again: dict[int, Tensor] = {}

    def recall(place: int) -> Tensor:
        if place not in again:
            again.update(saved_by(function, z, x))
        return again.pop(place)

    with saved_tensors_hooks(lambda _: next(places), recall):
        return function(z, x)


def saved_by(function: Function[Any], z: Latents, x: Any) -> dict[int, Tensor]:
    """Return all that the derivative of function(z, x) needs, numbered in the order in which it is saved."""
    saved: dict[int, Tensor] = {}

    def save(tensor: Tensor) -> int:
        saved[len(saved)] = tensor.detach()
        return len(saved)

    leaves = {name: value.detach().requires_grad_(value.requires_grad) for name, value in z.items()}
    with torch.enable_grad(), saved_tensors_hooks(save, saved.__getitem__):
        function(leaves, x)
    return saved
