"""Normal families on unconstrained space: mean field, full rank and low rank.

Kucukelbir, Tran, Ranganath, Gelman, Blei 2017 (the first two); Ong, Nott, Smith 2018 (the third).

The Fisher information of N(m, L Lᵀ) on m and the free entries of L. With ε = L⁻¹(v − m) and M = L⁻¹ the scores are

    ∂ log q/∂m = Mᵀ ε,    ∂ log q/∂L_ij = [Mᵀ(ε εᵀ − I)]_ij  for i ≥ j.

Third moments of ε are zero, so that m and L do not mix. With M lower triangular and
E[(ε_a ε_b − δ_ab)(ε_c ε_d − δ_cd)] = δ_ac δ_bd + δ_ad δ_bc,

    F(m) = Mᵀ M,    F(L_ij, L_kl) = δ_jl (Mᵀ M)_ik + M_li M_jk = δ_jl [(Mᵀ M)_ik + δ_ij δ_kj / L_jj²]:

the second term asks for l ≥ i ≥ j ≥ k ≥ l. The information is one block for m and one for each column of L.

That of N(m, Σ) on the parameters of a low rank, Σ = S Ω S with S = diag(s) and Ω = I + C Cᵀ. A parameter θ of Σ moves
S⁻¹ Σ S⁻¹ by e_i yᵀ + y e_iᵀ, with y = Ω e_i/s_i for s_i, and with column a of C for C_ia. With P = Ω⁻¹ and g = P y

    F(m) = S⁻¹ P S⁻¹,    F(θ, θ') = ½ tr(Σ⁻¹ ∂Σ Σ⁻¹ ∂'Σ) = g_{i'} g'_i + (yᵀ P y') P_{ii'}.

It is singular along turns C → C O with orthogonal O, which leave q as it is, where there are more parameters than Σ
has entries, and where a column of C is zero. The exact gradient is zero along all of these, and its estimates are not.
A solve that leaves the null space alone does not help: beside it F is as small as the square of a loading, and a step
is its noise divided by that. `NaturalGradient` therefore asks for damping, with which noise moves C in the null space,
and q not; docs/natural_gradient.md has what was measured.
"""

import math
from abc import abstractmethod

import torch
from torch import Tensor

from vi_core.distributions.normal import HALF_LOG_2PI
from vi_core.distributions.transforms import Exponential
from vi_core.errors import require
from vi_core.families._packed import Entry
from vi_core.families.unconstrained import (
    Base,
    Normals,
    Preconditioner,
    StoredFamily,
    diagonal,
    normal_log_density,
    product,
    solve,
    times,
)
from vi_core.per_replicate import PerReplicate
from vi_core.types import Graph, Latent, Latents, Params

exponential = Exponential()


def noise(num_samples: int, like: Tensor) -> Tensor:
    """Draw standard Normals (K, *shape of a tensor)."""
    return torch.randn((num_samples, *like.shape), dtype=like.dtype, device=like.device)


class NormalLaw(Base):
    """An abstract Normal law of the coordinates, with mean `loc` (*batch, D)."""

    loc: Tensor

    @abstractmethod
    def log_det(self) -> Tensor:
        """Return ½ log|Cov[v]|, (*batch)."""

    @property
    @abstractmethod
    def roots(self) -> list[Tensor]:
        """Matrices B of which Cov[v] = Σ B Bᵀ: (*batch, D, M), or (*batch, D) for a diagonal one."""

    @property
    def normals(self) -> Normals:
        whole = [torch.diag_embed(root) if root.dim() == self.loc.dim() else root for root in self.roots]
        return [(self.loc, torch.cat(whole, dim=-1))]

    def entropy(self) -> Tensor:
        """Return H[v] = ½ log|Cov[v]| + D/2 (1 + log 2π), (*batch)."""
        return self.log_det() + self.loc.shape[-1] * (0.5 + HALF_LOG_2PI)


class DiagonalNormal(NormalLaw):
    """v ~ N(loc, diag(scale²)), with loc and scale (*batch, D)."""

    def __init__(self, loc: Tensor, scale: Tensor):
        self.loc, self.scale = loc, scale

    def rsample(self, num_samples: int) -> Tensor:
        return torch.addcmul(self.loc, self.scale, noise(num_samples, self.loc))

    def log_terms(self, v: Tensor) -> Tensor:
        return normal_log_density((v - self.loc) / self.scale, self.scale.log())

    def log_det(self) -> Tensor:
        return self.scale.log().sum(-1)

    @property
    def roots(self) -> list[Tensor]:
        return [self.scale]

    def fisher(self) -> Tensor:
        """Return the information on loc and scale, diag(1/scale², 2/scale²), (*batch, 2D, 2D)."""
        precision = self.scale.square().reciprocal()
        return torch.diag_embed(torch.cat([precision, 2 * precision], dim=-1))


class CholeskyNormal(NormalLaw):
    """v ~ N(loc, L Lᵀ): L has the diagonal `scale` (*batch, D) and the entries `lower` below it.

    With ε = L⁻¹(v − loc), log q(v_i | v_<i) = −ε_i²/2 − log L_ii − log(2π)/2.

    Args:
        loc, scale: (*batch, D).
        lower: (*batch, P).
        places: (2, P), row and column of each entry of `lower`; the others are zero.
    """

    def __init__(self, loc: Tensor, scale: Tensor, lower: Tensor, places: Tensor):
        self.loc, self.scale, self.places = loc, scale, places
        size = loc.shape[-1]
        rows, columns = places
        # An index for each entry: the gradient of scatter takes a fifth of the time that index_copy's does.
        flat = loc.new_zeros(*loc.shape[:-1], size * size)
        flat = flat.scatter(-1, (rows * size + columns).expand_as(lower), lower)
        self.cholesky = flat.unflatten(-1, (size, size)) + torch.diag_embed(scale)

    def rsample(self, num_samples: int) -> Tensor:
        return self.loc + times(self.cholesky, noise(num_samples, self.loc))

    def log_terms(self, v: Tensor) -> Tensor:
        return normal_log_density(solve(self.cholesky, v - self.loc), self.scale.log())

    def log_det(self) -> Tensor:
        return self.scale.log().sum(-1)

    @property
    def roots(self) -> list[Tensor]:
        return [self.cholesky]

    def fisher(self) -> Tensor:
        """Return the information on loc, scale and lower, (*batch, P, P), in that order."""
        diagonal = torch.arange(self.loc.shape[-1], device=self.loc.device)
        rows, columns = torch.cat([diagonal.expand(2, -1), self.places], dim=-1)
        identity = torch.eye(len(diagonal)).to(self.cholesky)
        inverse = torch.linalg.solve_triangular(self.cholesky, identity, upper=False)
        precision = inverse.mT @ inverse
        block = precision[..., rows, :][..., rows] * (columns.unsqueeze(-1) == columns)
        own = torch.cat([self.scale.square().reciprocal(), torch.zeros_like(block[..., 0, len(diagonal) :])], dim=-1)
        block = block + torch.diag_embed(own)
        whole = precision.new_zeros(*precision.shape[:-2], len(diagonal) + len(rows), len(diagonal) + len(rows))
        whole[..., : len(diagonal), : len(diagonal)] = precision
        whole[..., len(diagonal) :, len(diagonal) :] = block
        return whole


class LowRankNormal(NormalLaw):
    """v ~ N(loc, diag(s²) + B Bᵀ), with B = diag(s) C and C (*batch, D, M).

    By Woodbury, with e = (v − loc)/s and the M × M matrix I + CᵀC = F Fᵀ,

        log q(v) = −½ [|e|² − |F⁻¹Cᵀe|²] − Σ log s − log|F| − (D/2) log 2π.
    """

    def __init__(self, loc: Tensor, scale: Tensor, loadings: Tensor):
        self.loc, self.scale = loc, scale
        self.loadings = loadings.reshape(*loc.shape, -1)

    def rsample(self, num_samples: int) -> Tensor:
        shared = noise(num_samples, self.loadings[..., 0, :])
        standard = noise(num_samples, self.loc) + times(self.loadings, shared)
        return torch.addcmul(self.loc, self.scale, standard)

    def _inner(self) -> Tensor:
        """Return F, (*batch, M, M)."""
        identity = torch.eye(self.loadings.shape[-1]).to(self.loadings)
        return torch.linalg.cholesky(self.loadings.mT @ self.loadings + identity)

    def log_terms(self, v: Tensor) -> Tensor:
        standard, factor = (v - self.loc) / self.scale, self._inner()
        projected = solve(factor, times(self.loadings.mT, standard))
        square = standard.square().sum(-1) - projected.square().sum(-1)
        return (-0.5 * square - self._log_det(factor) - v.shape[-1] * HALF_LOG_2PI).unsqueeze(-1)

    def _log_det(self, factor: Tensor) -> Tensor:
        return self.scale.log().sum(-1) + factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def log_det(self) -> Tensor:
        return self._log_det(self._inner())

    def fisher(self) -> Tensor:
        """Return the information on loc, scale and loadings, (*batch, P, P), in that order."""
        size, rank = self.loadings.shape[-2:]
        omega = self.loadings @ self.loadings.mT + torch.eye(size).to(self.loc)
        precision = torch.linalg.inv_ex(omega).inverse
        coordinates = torch.arange(size, device=self.loc.device)
        own = torch.cat([coordinates, coordinates.repeat_interleave(rank)])
        y = torch.cat([omega / self.scale.unsqueeze(-1), self.loadings.mT.tile(size, 1)], dim=-2)
        g = y @ precision
        across = g[..., own]
        block = across * across.mT + (g @ y.mT) * precision[..., own, :][..., own]
        whole = precision.new_zeros(*precision.shape[:-2], size + len(own), size + len(own))
        whole[..., :size, :size] = precision / (self.scale.unsqueeze(-1) * self.scale.unsqueeze(-2))
        whole[..., size:, size:] = block
        return whole

    @property
    def roots(self) -> list[Tensor]:
        return [self.scale, self.scale.unsqueeze(-1) * self.loadings]


class NormalFamily(StoredFamily):
    """An abstract family of Normals, whose entropy has a closed form.

    Attributes:
        places: (2, P), row and column of each entry below the diagonal of a Cholesky factor.
    """

    places: Tensor

    @abstractmethod
    def law(self, **parameters: Tensor) -> NormalLaw:
        """Return q_v for constrained parameters (*batch, *shape)."""

    def owners(self, group: str, name: str, size: int) -> tuple[str, ...]:
        """Those of the coordinates; of an entry of a Cholesky factor that of its row."""
        rows = [latent for latent, count in self.space.sizes.items() for _ in range(count)]
        return tuple(rows[i] for i in self.places[0].tolist()) if name == "lower" else tuple(rows)

    def entropy(self, params: Params, z: Latents) -> Tensor:
        q = self.distribution(params)
        log_det = torch.stack(list(self.space.log_dets(q.coordinates(z), z).values())).sum(dim=0)
        return self.law(**params["u"]).entropy() + q.log_scale() + log_det

    def kl_to_normal(self, params: Params, mean: Tensor, whitening: Tensor) -> Tensor:
        """With u = c + A v, E[v] = loc and Cov[v] = Σ B Bᵀ the divergence from N(m, (WᵀW)⁻¹) is

        ½ [|W (c − m) + W A loc|² + Σ |W A B|² − D] − log|W| − log|A| − ½ log|Cov[v]|.
        """
        law, change = self.law(**params["u"]), product(whitening, self.factor)
        centre = product(whitening, (self.origin - mean).unsqueeze(-1)) + product(change, law.loc.unsqueeze(-1))
        parts = [centre, *(product(change, root) for root in law.roots)]
        squares = torch.stack([part.square().flatten(2).sum(-1) for part in parts]).sum(dim=0)
        log_dets = diagonal(whitening).log().sum(-1) + self.distribution(params).log_scale() + law.log_det()
        return 0.5 * (squares - self.space.size) - log_dets


class MeanFieldNormal(NormalFamily):
    """Independent Normals in preconditioned coordinates.

    Args:
        latents: Continuous latents that all data points share.
        replicates: R, independent copies.
        scale: Initial deviation of each coordinate; one number, or one for each replicate.
        start: Where the origin lies: `random`, `mode`, or `run:<folder>`, where an earlier fit ended.
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
        start: str = "mode",
        preconditioner: Preconditioner = "diagonal",
    ):
        super().__init__(latents, replicates, location_and_scale(latents, scale), start, preconditioner)

    @property
    def parents(self) -> Graph:
        return super().parents if self.preconditioner == "full" else dict.fromkeys(self.space.latents, frozenset[str]())

    def law(self, **parameters: Tensor) -> DiagonalNormal:
        return DiagonalNormal(**parameters)

    def fisher(self) -> Tensor:
        """Diagonal, in closed form."""
        with torch.no_grad():
            return self.pull_back(self.law(**self.variational()["u"]).fisher().squeeze(1))


class FullRankNormal(NormalFamily):
    """A Normal with any covariance, by its Cholesky factor.

    Args:
        latents: Continuous latents that all data points share.
        replicates: R, independent copies.
        scale: Initial deviation of each coordinate; one number, or one for each replicate.
        start: Where the origin lies: `random`, `mode`, or `run:<folder>`, where an earlier fit ended.
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
        start: str = "mode",
        preconditioner: Preconditioner = "full",
    ):
        entries = location_and_scale(latents, scale)
        size = entries[0].size
        places = torch.tril_indices(size, size, offset=-1)
        entries.append(Entry("u", "lower", (places.shape[1],), 0.0))
        super().__init__(latents, replicates, entries, start, preconditioner)
        self.register_buffer("places", places, persistent=False)

    def law(self, **parameters: Tensor) -> CholeskyNormal:
        return CholeskyNormal(**parameters, places=self.places)

    def fisher(self) -> Tensor:
        """One block for the mean and one for each column of L, in closed form."""
        with torch.no_grad():
            return self.pull_back(self.law(**self.variational()["u"]).fisher().squeeze(1))


class LowRank(NormalFamily):
    """A Normal whose covariance is diagonal plus a matrix of low rank, for thousands of coordinates.

    Args:
        latents: Continuous latents that all data points share.
        replicates: R, independent copies.
        rank: M, columns of the loadings; at least 1.
        scale: Initial deviation of each coordinate; one number, or one for each replicate.
        loadings_std: Deviation of the initial loadings, in units of the scale.
        start: Where the origin lies: `random`, `mode`, or `run:<folder>`, where an earlier fit ended.
        preconditioner: Which curvature at the origin scales the coordinates.
    """

    name = "low_rank_normal"
    singular = True

    def __init__(
        self,
        latents: dict[str, Latent],
        replicates: int = 1,
        /,
        *,
        rank: int = 5,
        scale: PerReplicate = 1.0,
        loadings_std: PerReplicate = 0.01,
        start: str = "mode",
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

    def fisher(self) -> Tensor:
        """One block for the mean and one for the covariance, in closed form; singular."""
        with torch.no_grad():
            return self.pull_back(self.law(**self.variational()["u"]).fisher().squeeze(1))


def location_and_scale(latents: dict[str, Latent], scale: PerReplicate) -> list[Entry]:
    """Return the entries of a location and a positive scale for each coordinate."""
    size = sum(math.prod(latent.unconstrained_shape) for latent in latents.values() if not latent.support.discrete)
    return [Entry("u", "loc", (size,), 0.0), Entry("u", "scale", (size,), scale, exponential)]
