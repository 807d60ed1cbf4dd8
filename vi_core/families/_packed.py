"""Storage of free variational parameters in one tensor, with the transforms that constrain them.

With one tensor (R, 1, P) an optimizer step costs the same for four parameters and for four hundred. Parameters with the
same transform are stored side by side, so that it is one operation.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vi_core.distributions import supports
from vi_core.distributions.transforms import Positive
from vi_core.families.base import Family, all_shared
from vi_core.per_replicate import PerReplicate, column, require_each, require_positive
from vi_core.types import Latent, Params, flatten


class Entry(NamedTuple):
    """One variational parameter: its name, event shape, constraint and the law of its initial value.

    Attributes:
        latent, name: Keys of the parameter in `Params`.
        shape: Event shape.
        initial: Initial value, or its mean where `initial_std` is positive.
        positive: Transform of a positive parameter; None for a real one.
        initial_std: Standard deviation of the initial value over replicates and elements; for real parameters.
    """

    latent: str
    name: str
    shape: tuple[int, ...]
    initial: PerReplicate
    positive: Positive | None = None
    initial_std: PerReplicate = 0.0

    def draw(self, replicates: int) -> Tensor:
        """Return the initial value, (R, 1, size), with its spread drawn from torch's default stream.

        Raises:
            ConfigError: Where the value or its spread is out of range.
        """
        if self.positive is None:
            finite = f"family.{self.name}={self.initial} must be finite."
            require_each(math.isfinite, self.initial, finite)
        else:
            require_positive("family", **{self.name: self.initial})
        spread = f"family.{self.name}_std={self.initial_std} must be finite and not negative."
        require_each(lambda std: 0 <= std < math.inf, self.initial_std, spread)
        initial = column(self.initial, replicates, f"family.{self.name}", trailing=2)
        value = initial.expand(replicates, 1, self.size).contiguous()
        spread = column(self.initial_std, replicates, f"family.{self.name}_std", trailing=2)
        return value + spread * torch.randn_like(value) if bool(spread.any()) else value

    @property
    def size(self) -> int:
        """Number of scalars of its event."""
        return math.prod(self.shape)


class PackedParameters(nn.Module):
    """Unconstrained parameters of R replicates in one tensor.

    Args:
        entries: The parameters, in the order of `Params`.
        replicates: R.
    """

    def __init__(self, entries: Sequence[Entry], replicates: int):
        super().__init__()
        self.entries, self.replicates = list(entries), replicates
        self.transforms = list(dict.fromkeys([None, *(entry.positive for entry in entries)]))
        self.groups = [[e for e in entries if e.positive is transform] for transform in self.transforms]
        self.stored = [entry for group in self.groups for entry in group]
        self.raw = nn.Parameter(self._packed({(e.latent, e.name): e.draw(replicates) for e in self.stored}))

    def _packed(self, values: dict[tuple[str, str], Tensor]) -> Tensor:
        pieces = [values[e.latent, e.name].reshape(self.replicates, 1, -1) for e in self.stored]
        stored = zip(self.stored, pieces, strict=True)
        return torch.cat([p if e.positive is None else e.positive.inverse(p) for e, p in stored], dim=-1)

    def forward(self) -> Params:
        """Return the constrained parameters, each (R, 1, *event)."""
        return self.constrain(self.raw)

    def constrain(self, raw: Tensor) -> Params:
        """Map unconstrained numbers (..., P) to named constrained ones, each (..., *event)."""
        pieces: list[Tensor] = []
        blocks = raw.split([sum(entry.size for entry in group) for group in self.groups], dim=-1)
        for transform, group, block in zip(self.transforms, self.groups, blocks, strict=True):
            values = block if transform is None else transform(block)
            pieces += values.split([entry.size for entry in group], dim=-1) if group else []
        batch = raw.shape[:-1]
        named = {(e.latent, e.name): p.reshape(*batch, *e.shape) for e, p in zip(self.stored, pieces, strict=True)}
        params: Params = {}
        for entry in self.entries:
            params.setdefault(entry.latent, {})[entry.name] = named[entry.latent, entry.name]
        return params

    def jacobian(self) -> tuple[Tensor, Tensor]:
        """Return d value / d raw of each stored number, (R, P), and its place in the order of `flatten`, (P,)."""
        raw = self.raw.detach().requires_grad_()
        with torch.enable_grad():
            params = self.constrain(raw)
            total = torch.cat([value.flatten() for value in flatten(params)]).sum()
        (slopes,) = torch.autograd.grad(total, raw)
        starts = {(e.latent, e.name): sum(o.size for o in self.entries[:i]) for i, e in enumerate(self.entries)}
        places = [starts[e.latent, e.name] + i for e in self.stored for i in range(e.size)]
        return slopes.squeeze(1), torch.tensor(places, device=raw.device)

    def pull_back(self, information: Tensor) -> Tensor:
        """Return Jᵀ F J of F, (R, P, P) in the order of `flatten`, with the diagonal J of the transforms."""
        slopes, places = self.jacobian()
        return slopes.unsqueeze(-1) * information[:, places][:, :, places] * slopes.unsqueeze(-2)

    def stored_names(self) -> list[str]:
        """Name each stored number, in its place along the last axis."""
        return [f"{e.latent}.{e.name}" + (f"[{i}]" if e.shape else "") for e in self.stored for i in range(e.size)]

    def assign(self, params: Params) -> None:
        """Store constrained values, each (R, 1, *event)."""
        with torch.no_grad():
            self.raw.copy_(self._packed({(e.latent, e.name): params[e.latent][e.name] for e in self.stored}))


class PackedFamily(Family):
    """An abstract family whose parameters are free and stored in one tensor; subclasses add the density.

    Args:
        entries: The parameters, in the order of `Params`.
        replicates: R.
    """

    described = "real and positive latents that all data points share"

    def __init__(self, entries: Sequence[Entry], replicates: int):
        super().__init__()
        self.replicates = replicates
        self.packed = PackedParameters(entries, replicates)
        self.layout = {e.latent: frozenset(o.name for o in entries if o.latent == e.latent) for e in entries}

    @classmethod
    def describes(cls, latents: dict[str, Latent]) -> bool:
        return all_shared(latents, supports.real, supports.positive)

    def variational(self, x: object = None) -> Params:
        return self.packed()

    def stored_names(self) -> list[str]:
        return self.packed.stored_names()

    def assign(self, params: Params) -> None:
        self.packed.assign(params)

    def pull_back(self, information: Tensor) -> Tensor:
        return self.packed.pull_back(information)
