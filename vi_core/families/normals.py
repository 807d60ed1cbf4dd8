"""Normal families on unconstrained space: mean field, full rank and low rank.

Kucukelbir, Tran, Ranganath, Gelman, Blei 2017 (the first two); Ong, Nott, Smith 2018 (the third).
"""

import math

import torch
from torch import Tensor

from vi_core.distributions.normal import HALF_LOG_2PI
from vi_core.distributions.transforms import Exponential
from vi_core.errors import require
from vi_core.families._packed import Entry
from vi_core.families.unconstrained import (
    Base,
    Preconditioner,
    Start,
    UnconstrainedFamily,
    normal_log_density,
    solve,
)
from vi_core.per_replicate import PerReplicate
from vi_core.types import Graph, Latent

exponential = Exponential()


def noise(num_samples: int, like: Tensor) -> Tensor:
    """Draw standard Normals (K, *shape of a tensor)."""
    return torch.randn((num_samples, *like.shape), dtype=like.dtype, device=like.device)


class DiagonalNormal(Base):
    """v ~ N(loc, diag(scale²)), with loc and scale (*batch, D)."""

    def __init__(self, loc: Tensor, scale: Tensor):
        self.loc, self.scale = loc, scale

    def rsample(self, num_samples: int) -> Tensor:
        return torch.addcmul(self.loc, self.scale, noise(num_samples, self.loc))

    def log_terms(self, v: Tensor) -> Tensor:
        return normal_log_density((v - self.loc) / self.scale, self.scale.log())

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def root(self) -> Tensor:
        return torch.diag_embed(self.scale)


class CholeskyNormal(Base):
    """v ~ N(loc, L Lᵀ): L has the diagonal `scale` (*batch, D) and the entries `lower` below it, row by row.

    With ε = L⁻¹(v − loc), log q(v_i | v_<i) = −ε_i²/2 − log L_ii − log(2π)/2.
    """

    def __init__(self, loc: Tensor, scale: Tensor, lower: Tensor):
        self.loc, self.scale = loc, scale
        size = loc.shape[-1]
        rows, columns = torch.tril_indices(size, size, offset=-1, device=loc.device)
        flat = loc.new_zeros(*loc.shape[:-1], size * size).index_copy(-1, rows * size + columns, lower)
        self.cholesky = flat.unflatten(-1, (size, size)) + torch.diag_embed(scale)

    def rsample(self, num_samples: int) -> Tensor:
        return self.loc + (self.cholesky @ noise(num_samples, self.loc).unsqueeze(-1)).squeeze(-1)

    def log_terms(self, v: Tensor) -> Tensor:
        return normal_log_density(solve(self.cholesky, v - self.loc), self.scale.log())

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def root(self) -> Tensor:
        return self.cholesky


class LowRankNormal(Base):
    """v ~ N(loc, diag(s²) + B Bᵀ), with B = diag(s) C and C (*batch, D, M).

    By Woodbury, with e = (v − loc)/s and the M × M matrix I + CᵀC = F Fᵀ,

        log q(v) = −½ [|e|² − |F⁻¹Cᵀe|²] − Σ log s − log|F| − (D/2) log 2π.
    """

    def __init__(self, loc: Tensor, scale: Tensor, loadings: Tensor):
        self.loc, self.scale = loc, scale
        self.loadings = loadings.reshape(*loc.shape, -1)

    def rsample(self, num_samples: int) -> Tensor:
        shared = noise(num_samples, self.loadings[..., 0, :]).unsqueeze(-1)
        standard = noise(num_samples, self.loc) + (self.loadings @ shared).squeeze(-1)
        return torch.addcmul(self.loc, self.scale, standard)

    def log_terms(self, v: Tensor) -> Tensor:
        standard = (v - self.loc) / self.scale
        inner = self.loadings.mT @ self.loadings + torch.eye(self.loadings.shape[-1]).to(v)
        factor = torch.linalg.cholesky(inner)
        projected = solve(factor, (self.loadings.mT @ standard.unsqueeze(-1)).squeeze(-1))
        square = standard.square().sum(-1) - projected.square().sum(-1)
        log_det = self.scale.log().sum(-1) + factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return (-0.5 * square - log_det - v.shape[-1] * HALF_LOG_2PI).unsqueeze(-1)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def root(self) -> Tensor:
        own, shared = torch.diag_embed(self.scale), self.scale.unsqueeze(-1) * self.loadings
        return torch.cat([own, shared], dim=-1)


class MeanFieldNormal(UnconstrainedFamily):
    """Independent Normals in preconditioned coordinates.

    Args:
        latents: Continuous latents that all data points share.
        replicates: R, independent copies.
        scale: Initial deviation of each coordinate; one number, or one for each replicate.
        start: Where the origin lies, at a random point or at a mode of p.
        preconditioner: Which curvature at the origin scales the coordinates.
    """

    name = "mean_field_normal"

    def __init__(
        self,
        latents: dict[str, Latent],
        replicates: int = 1,
        /,
        *,
        scale: PerReplicate = 1.0,
        start: Start = "mode",
        preconditioner: Preconditioner = "diagonal",
    ):
        super().__init__(latents, replicates, location_and_scale(latents, scale), start, preconditioner)

    @property
    def parents(self) -> Graph:
        return super().parents if self.preconditioner == "full" else dict.fromkeys(self.space.latents, frozenset[str]())

    def law(self, **parameters: Tensor) -> DiagonalNormal:
        return DiagonalNormal(**parameters)


class FullRankNormal(UnconstrainedFamily):
    """A Normal with any covariance, by its Cholesky factor.

    Args:
        latents: Continuous latents that all data points share.
        replicates: R, independent copies.
        scale: Initial deviation of each coordinate; one number, or one for each replicate.
        start: Where the origin lies, at a random point or at a mode of p.
        preconditioner: Which curvature at the origin scales the coordinates.
    """

    name = "full_rank_normal"

    def __init__(
        self,
        latents: dict[str, Latent],
        replicates: int = 1,
        /,
        *,
        scale: PerReplicate = 1.0,
        start: Start = "mode",
        preconditioner: Preconditioner = "full",
    ):
        entries = location_and_scale(latents, scale)
        size = entries[0].size
        entries.append(Entry("u", "lower", (size * (size - 1) // 2,), 0.0))
        super().__init__(latents, replicates, entries, start, preconditioner)

    def law(self, **parameters: Tensor) -> CholeskyNormal:
        return CholeskyNormal(**parameters)


class LowRank(UnconstrainedFamily):
    """A Normal whose covariance is diagonal plus a matrix of low rank, for thousands of coordinates.

    Args:
        latents: Continuous latents that all data points share.
        replicates: R, independent copies.
        rank: M, columns of the loadings; at least 1.
        scale: Initial deviation of each coordinate; one number, or one for each replicate.
        loadings_std: Deviation of the initial loadings, in units of the scale.
        start: Where the origin lies, at a random point or at a mode of p.
        preconditioner: Which curvature at the origin scales the coordinates.
    """

    name = "low_rank_normal"

    def __init__(
        self,
        latents: dict[str, Latent],
        replicates: int = 1,
        /,
        *,
        rank: int = 5,
        scale: PerReplicate = 1.0,
        loadings_std: PerReplicate = 0.01,
        start: Start = "mode",
        preconditioner: Preconditioner = "diagonal",
    ):
        require(rank >= 1, f"family.rank={rank} must be at least 1.")
        entries = location_and_scale(latents, scale)
        entries.append(Entry("u", "loadings", (entries[0].size * rank,), 0.0, None, loadings_std))
        super().__init__(latents, replicates, entries, start, preconditioner)

    @property
    def parents(self) -> Graph:
        return {}

    def law(self, **parameters: Tensor) -> LowRankNormal:
        return LowRankNormal(**parameters)


def location_and_scale(latents: dict[str, Latent], scale: PerReplicate) -> list[Entry]:
    """Return the entries of a location and a positive scale for each coordinate."""
    size = sum(math.prod(latent.unconstrained_shape) for latent in latents.values() if not latent.support.discrete)
    return [Entry("u", "loc", (size,), 0.0), Entry("u", "scale", (size,), scale, exponential)]
