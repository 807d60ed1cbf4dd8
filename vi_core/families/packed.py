"""Storage that families with free parameters hold: all of them in one tensor, with their constraints.

One tensor (R, 1, P) makes an optimizer step cost the same for four parameters and for four hundred. The positive ones
stand last, so that their transform is one operation.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vi_core.transforms import Positive
from vi_core.types import Params


class Entry(NamedTuple):
    """One variational parameter: its place, its event shape, its constraint and the law of its initial value."""

    latent: str
    name: str
    shape: tuple[int, ...]
    positive: bool
    initial: float
    initial_std: float = 0.0
    """Standard deviation of the initial value over replicates and elements; for unconstrained parameters."""


class PackedParameters(nn.Module):
    """Unconstrained parameters of R replicates, stored together.

    Args:
        entries: What is stored, in the order of `Params`.
        replicates: R.
        positive: How positive parameters are stored.
    """

    def __init__(self, entries: Sequence[Entry], replicates: int, positive: Positive):
        super().__init__()
        self.entries = list(entries)
        real, constrained = [e for e in entries if not e.positive], [e for e in entries if e.positive]
        self.stored = real + constrained
        self.real_sizes = [math.prod(e.shape) for e in real]
        self.positive_sizes = [math.prod(e.shape) for e in constrained]
        self.replicates, self.positive = replicates, positive
        self.raw = nn.Parameter(torch.cat([self._initial(entry) for entry in self.stored], dim=-1))

    def _initial(self, entry: Entry) -> Tensor:
        value = torch.full((self.replicates, 1, math.prod(entry.shape)), entry.initial)
        if entry.positive:
            return self.positive.inverse(value)
        return value + entry.initial_std * torch.randn_like(value) if entry.initial_std else value

    def forward(self) -> Params:
        """Return the constrained parameters, each (R, 1, *event)."""
        return self.constrain(self.raw)

    def constrain(self, raw: Tensor) -> Params:
        """Map unconstrained numbers (..., P) to named constrained ones, each (..., *event)."""
        real, positive = raw.split([sum(self.real_sizes), sum(self.positive_sizes)], dim=-1)
        pieces = [*real.split(self.real_sizes, dim=-1), *self.positive(positive).split(self.positive_sizes, dim=-1)]
        named = {
            (e.latent, e.name): p.reshape(*raw.shape[:-1], *e.shape) for e, p in zip(self.stored, pieces, strict=True)
        }
        params: Params = {}
        for entry in self.entries:
            params.setdefault(entry.latent, {})[entry.name] = named[entry.latent, entry.name]
        return params

    def stored_names(self) -> list[str]:
        """Name each stored number, in its place along the last axis."""
        return [
            f"{entry.latent}.{entry.name}" + (f"[{i}]" if entry.shape else "")
            for entry in self.stored
            for i in range(math.prod(entry.shape))
        ]

    def assign(self, params: Params) -> None:
        """Store constrained values, each (R, 1, *event)."""
        with torch.no_grad():
            pieces = []
            for entry in self.stored:
                value = params[entry.latent][entry.name].reshape(self.replicates, 1, -1)
                pieces.append(self.positive.inverse(value) if entry.positive else value)
            self.raw.copy_(torch.cat(pieces, dim=-1))
