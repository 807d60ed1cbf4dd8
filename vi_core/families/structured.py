"""Structured Normals on unconstrained space: any covariance inside groups of latents, independence between groups.

q(u) = Π_g N(u_g; m_g, Σ_g), one factor for each group g of latents: between mean field, where each number is a group,
and full rank, where all of them are one. With the coordinates in the model's order L is a lower triangular matrix whose
entries between groups are zero, and its columns have the Fisher information of `vi_core.families.normals`.
The preconditioner is cut in the same way: at a mode with Hessian −H the curvature of a group given the others is its
diagonal block H_gg, and A_g A_gᵀ = H_gg⁻¹. Hoffman, Blei 2015 on structure in q; Tan, Nott 2018 on sparse factors.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from vi_core.errors import ConfigError, did_you_mean, require
from vi_core.families._packed import Entry
from vi_core.families.normals import CholeskyNormal, NormalFamily, location_and_scale
from vi_core.families.unconstrained import Preconditioner
from vi_core.per_replicate import PerReplicate
from vi_core.types import Graph, Latent


class Structured(NormalFamily):
    """A Normal with any covariance inside each group of latents, independent between groups.

    Args:
        latents: Continuous latents that all data points share.
        replicates: R, independent copies.
        groups: Names of latents that depend on each other, a list for each group, as in [[a, b], [c, d]]. A latent that
            is in none is a group of its own, whose numbers depend on each other.
        scale: Initial deviation of each coordinate; one number, or one for each replicate.
        start: Where the origin lies: `random`, `mode`, or `run:<folder>`, where an earlier fit ended.
        preconditioner: Which curvature at the origin scales the coordinates; `full` is full inside groups.
    """

    name = "structured"
    places: Tensor
    together: Tensor

    def __init__(
        self,
        latents: dict[str, Latent],
        replicates: int = 1,
        /,
        *,
        groups: Sequence[Sequence[str]] = (),
        scale: PerReplicate = 1.0,
        start: str = "mode",
        preconditioner: Preconditioner = "full",
    ):
        self.check_latents(latents)
        self.groups = completed(groups, latents)
        together = same_group(self.groups, latents)
        places = together.tril(-1).nonzero().T
        entries = location_and_scale(latents, scale)
        entries.append(Entry("u", "lower", (places.shape[1],), 0.0))
        super().__init__(latents, replicates, entries, start, preconditioner)
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("together", together, persistent=False)

    @property
    def parents(self) -> Graph:
        """Each latent depends on those before it in its group."""
        found: Graph = {}
        for name in self.space.latents:
            own = next(group for group in self.groups if name in group)
            found[name] = frozenset(other for other in found if other in own)
        return found

    def law(self, **parameters: Tensor) -> CholeskyNormal:
        return CholeskyNormal(**parameters, places=self.places)

    def fisher(self) -> Tensor:
        """One block for the mean of each group and one for each column of L, in closed form."""
        with torch.no_grad():
            return self.pull_back(self.law(**self.variational()["u"]).fisher().squeeze(1))

    def place(self, origin: Tensor, factor: Tensor | None) -> None:
        if factor is not None and self.preconditioner == "full":
            precision = torch.where(self.together, torch.cholesky_inverse(factor), 0)
            factor = torch.linalg.cholesky(torch.linalg.inv(precision))
        super().place(origin, factor)


def completed(groups: Sequence[Sequence[str]], latents: dict[str, Latent]) -> list[Sequence[str]]:
    """Return the groups, with one for each latent that is in none.

    Raises:
        ConfigError: For a name that is no latent of the model, or that is named twice.
    """
    named = [name for group in groups for name in group]
    for name in named:
        if name not in latents:
            known = ", ".join(latents)
            raise ConfigError(f"family.groups names '{name}'.{did_you_mean(name, latents)} The latents are {known}.")
        require(named.count(name) == 1, f"family.groups names '{name}' twice; a latent is in one group.")
    return [*groups, *([name] for name in latents if name not in named)]


def same_group(groups: Sequence[Sequence[str]], latents: dict[str, Latent]) -> Tensor:
    """Return which pairs of coordinates belong to one group, (D, D)."""
    numbers = {name: i for i, group in enumerate(groups) for name in group}
    sizes = {name: math.prod(latent.unconstrained_shape) for name, latent in latents.items()}
    owner = torch.tensor([numbers[name] for name, size in sizes.items() for _ in range(size)])
    return owner.unsqueeze(-1) == owner
