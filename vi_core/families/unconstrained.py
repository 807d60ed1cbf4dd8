"""Families on the unconstrained space of all latents, in coordinates that a preconditioner chooses.

With z = T(u), the supports' bijections, and u = origin + A v,

    log q(z) = log q_v(A⁻¹(u − origin)) − log|det A| − log|det ∂T/∂u|.

A is lower triangular, so that a q_v whose coordinates depend on earlier ones alone stays so in u: the factors
q(z_i | z_<i) and the directed graph of q exist in every preconditioner. With A Aᵀ the inverse of the Hessian of
−log p at a mode, one learning rate serves problems of all scales.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from vi_core.distributions import supports
from vi_core.distributions.normal import HALF_LOG_2PI
from vi_core.errors import require
from vi_core.families._packed import Entry, PackedParameters
from vi_core.families.base import Family, VariationalDistribution
from vi_core.types import Graph, Latent, Latents, Params

Normals = list[tuple[Tensor, Tensor]]  # means (*batch, D) and roots W (*batch, D, M), with covariances W Wᵀ
Preconditioner = Literal["none", "diagonal", "full"]
NODES = 32  # of Gauss-Hermite quadrature, for moments of one transformed coordinate
POINTS = 256  # of a Sobol sequence, for moments of vectors
EARLIER = "run:"  # start of a setting `start` that names the folder of a run
DIAGONAL = 3  # axes of a diagonal matrix for each replicate, (R, 1, D)
MOST_FULL = 2000  # coordinates for which A is a whole matrix


class Point(dict[str, Tensor]):
    """Latents (K, *batch, *event), with the coordinates u and v (K, *batch, D) that they came from."""

    u: Tensor
    v: Tensor


class Space:
    """The unconstrained coordinates of all latents, side by side.

    Args:
        latents: Continuous latents that all data points share.
    """

    def __init__(self, latents: dict[str, Latent]):
        self.latents = latents
        self.sizes = {name: math.prod(latent.unconstrained_shape) for name, latent in latents.items()}
        self.size = sum(self.sizes.values())

    def split(self, u: Tensor) -> dict[str, Tensor]:
        """Return the coordinates (..., *unconstrained_shape) of each latent from all, (..., D)."""
        pieces = zip(self.latents.items(), u.split(list(self.sizes.values()), dim=-1), strict=True)
        return {name: piece.reshape(*u.shape[:-1], *latent.unconstrained_shape) for (name, latent), piece in pieces}

    def values(self, u: Tensor) -> Latents:
        """Return z = T(u), by latent."""
        return {name: self.latents[name].support.transform(own) for name, own in self.split(u).items()}

    def coordinates(self, z: Latents) -> Tensor:
        """Return u = T⁻¹(z), (..., D)."""
        pieces = []
        for name, latent in self.latents.items():
            own = latent.support.inverse(z[name])
            pieces.append(own.reshape(*own.shape[: own.dim() - len(latent.unconstrained_shape)], -1))
        return torch.cat(pieces, dim=-1)

    def of(self, z: Latents) -> Tensor:
        """Return u of latents, which draws remember."""
        return z.u if isinstance(z, Point) else self.coordinates(z)

    def log_dets(self, u: Tensor, z: Latents) -> dict[str, Tensor]:
        """Return log|det ∂z/∂u| of each latent, (...)."""
        return {name: self.latents[name].log_abs_det_jacobian(own, z[name]) for name, own in self.split(u).items()}


class Base(ABC):
    """q_v, a law of the preconditioned coordinates (..., D), for given parameters."""

    @abstractmethod
    def rsample(self, num_samples: int) -> Tensor:
        """Draw v, (K, *batch, D), differentiable in the parameters."""

    @abstractmethod
    def log_terms(self, v: Tensor) -> Tensor:
        """Return log q(v_i | v_<i), (K, *batch, D); or log q(v), with a last axis of one, without terms."""

    def balanced(self, num_samples: int) -> Tensor:
        """Draw v like `rsample`, with means over the draws that vary less; the draws need not be independent."""
        return self.rsample(num_samples)

    @property
    def normals(self) -> Normals:
        """The Normals of which q_v is a mixture with equal weights; empty for another law, which has `points`."""
        return []

    def points(self) -> Tensor:
        """Return points (N, *batch, D) with equal weights that stand for a law without `normals`."""
        raise NotImplementedError


class UnconstrainedDistribution(VariationalDistribution):
    """q(z) of a law of preconditioned coordinates.

    Args:
        base: q_v.
        space: The latents' coordinates.
        origin: (R, 1, D).
        factor: A: its diagonal (R, 1, D), or all of it (R, 1, D, D).
        kind: The family's name.
    """

    def __init__(self, base: Base, space: Space, origin: Tensor, factor: Tensor, kind: str):
        self.base, self.space, self.origin, self.factor, self.kind = base, space, origin, factor, kind
        self.full = factor.dim() == origin.dim() + 1

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: (*self.origin.shape[:2], *latent.shape) for name, latent in self.space.latents.items()}

    def rsample(self, num_samples: int) -> Point:
        return self._point(self.base.rsample(num_samples))

    def balanced(self, num_samples: int) -> Point:
        return self._point(self.base.balanced(num_samples))

    def _point(self, v: Tensor) -> Point:
        u = self.origin + self._times(v)
        z = Point(self.space.values(u))
        z.u, z.v = u, v
        return z

    def _times(self, v: Tensor) -> Tensor:
        return times(self.factor, v) if self.full else self.factor * v

    def coordinates(self, z: Latents) -> Tensor:
        """Return u, (K, *batch, D), of latents."""
        return self.space.of(z)

    def _whitened(self, z: Latents, u: Tensor) -> Tensor:
        """Return v of latents with coordinates u."""
        if isinstance(z, Point):
            return z.v
        centred = u - self.origin
        return solve(self.factor, centred) if self.full else centred / self.factor

    def log_prob_terms(self, z: Latents) -> dict[str, Tensor]:
        u = self.coordinates(z)
        v = self._whitened(z, u)
        terms, log_dets = self.base.log_terms(v), self.space.log_dets(u, z)
        scale = (self.factor.diagonal(dim1=-2, dim2=-1) if self.full else self.factor).log()
        if terms.shape[-1] != self.space.size:
            total = terms.squeeze(-1) - scale.sum(-1)
            return {"joint": total - torch.stack(list(log_dets.values())).sum(dim=0)}
        pieces = (terms - scale).split(list(self.space.sizes.values()), dim=-1)
        return {name: piece.sum(-1) - log_dets[name] for name, piece in zip(log_dets, pieces, strict=True)}

    def log_scale(self) -> Tensor:
        """Return log|det A|, (R, 1)."""
        return (self.factor.diagonal(dim1=-2, dim2=-1) if self.full else self.factor).log().sum(-1)

    def _normals(self) -> Normals:
        """Return means and roots of u."""
        scaled = self.factor if self.full else self.factor.unsqueeze(-1)
        return [
            (self.origin + self._times(mean), scaled @ root if self.full else scaled * root)
            for mean, root in self.base.normals
        ]

    def coordinate_moments(self) -> tuple[Tensor, Tensor]:
        """Return E[u], (*batch, D), and Cov[u], (*batch, D, D)."""
        if not self.base.normals:
            u = self.origin + self._times(self.base.points())
            mean = u.mean(dim=0)
            return mean, ((u - mean).unsqueeze(-1) * (u - mean).unsqueeze(-2)).mean(dim=0)
        means, roots = zip(*self._normals(), strict=True)
        mean = torch.stack(means).mean(dim=0)
        seconds = [
            root @ root.mT + (m - mean).unsqueeze(-1) * (m - mean).unsqueeze(-2)
            for m, root in zip(means, roots, strict=True)
        ]
        return mean, torch.stack(seconds).mean(dim=0)

    def moments(self) -> dict[str, tuple[Tensor, Tensor]]:
        if not self.base.normals:
            z = self._point(self.base.points())
            return {name: (value.mean(dim=0), value.std(dim=0, correction=0)) for name, value in z.items()}
        normals, found, start = self._normals(), {}, 0
        for name, size in self.space.sizes.items():
            own, latent = slice(start, start + size), self.space.latents[name]
            each = [transformed_moments(latent, mean[..., own], root[..., own, :]) for mean, root in normals]
            found[name] = each[0] if len(each) == 1 else of_mixture(each)
            start += size
        return found

    def quantiles(self, levels: Sequence[float]) -> dict[str, tuple[Tensor, ...]]:
        """Those of T(u) = T(F⁻¹(p)), of latents whose numbers are transformed one by one, where u is Normal."""
        if len(self.base.normals) != 1:
            return {}
        ((mean, root),), found, start = self._normals(), {}, 0
        points = torch.special.ndtri(torch.tensor(list(levels), dtype=torch.float64)).to(mean)
        for name, size in self.space.sizes.items():
            own, latent = slice(start, start + size), self.space.latents[name]
            if latent.support.event_dims == 0:
                u = mean[..., own] + root[..., own, :].norm(dim=-1) * points.reshape(-1, *(1,) * mean.dim())
                found[name] = latent.support.transform(u.reshape(len(points), *mean.shape[:-1], *latent.shape)).unbind()
            start += size
        return found


def of_mixture(each: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of a mixture with equal weights, from those of its components."""
    means, stds = (torch.stack(values) for values in zip(*each, strict=True))
    mean = means.mean(dim=0)
    return mean, (stds.square() + (means - mean).square()).mean(dim=0).sqrt()


def times(factor: Tensor, value: Tensor) -> Tensor:
    """Return A x for A (*batch, N, M) and x (K, *batch, M), whose batch axes may be A's own; (K, *batch, N).

    The K vectors are the columns of one matrix: A is neither copied nor read for each of them.
    """
    if factor.dim() > value.dim():
        return (factor @ value.unsqueeze(-1)).squeeze(-1)
    return (factor @ value.movedim(0, -1)).movedim(-1, 0)


def product(a: Tensor, b: Tensor) -> Tensor:
    """Return A B of matrices (R, 1, D, M), or (R, 1, D) for diagonal ones; diagonal where both are."""
    if a.dim() == b.dim():
        return a * b if a.dim() == DIAGONAL else a @ b
    return a.unsqueeze(-1) * b if a.dim() == DIAGONAL else a * b.unsqueeze(-2)


def diagonal(a: Tensor) -> Tensor:
    """Return the diagonal (R, 1, D) of a matrix that `product` takes."""
    return a if a.dim() == DIAGONAL else a.diagonal(dim1=-2, dim2=-1)


def solve(factor: Tensor, value: Tensor) -> Tensor:
    """Return A⁻¹ x for lower triangular A (*batch, D, D) and x (K, *batch, D), whose batch axes may be A's own."""
    if factor.dim() > value.dim():
        return torch.linalg.solve_triangular(factor, value.unsqueeze(-1), upper=False).squeeze(-1)
    return torch.linalg.solve_triangular(factor, value.movedim(0, -1), upper=False).movedim(-1, 0)


def transformed_moments(latent: Latent, mean: Tensor, root: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation (*batch, *event) of T(u), u ~ N(mean, root rootᵀ).

    In closed form for real and positive latents; by Gauss-Hermite quadrature for other numbers; for vectors by a Sobol
    sequence of 256 points, good to about 2 % of the deviation.

    Args:
        latent: Its support and shape.
        mean: (*batch, size), of the latent's coordinates.
        root: (*batch, size, M).
    """
    batch, support = mean.shape[:-1], latent.support
    if support.event_dims == 0:
        mean, std = (part.reshape(*batch, *latent.shape) for part in (mean, root.norm(dim=-1)))
        if support == supports.real:
            return mean, std
        if support == supports.positive:
            centre = (mean + 0.5 * std.square()).exp()
            return centre, centre * std.square().expm1().sqrt()
        nodes, weights = hermite(mean)
        u = mean + std * nodes.reshape(-1, *(1,) * mean.dim())
    else:
        if root.shape[-1] > root.shape[-2]:
            root = torch.linalg.qr(root.mT).R.mT  # as few dimensions of noise as the latent has
        noise = torch.quasirandom.SobolEngine(root.shape[-1]).draw(POINTS + 1, dtype=torch.float64)[1:]
        normal = (noise.mul(2).sub(1).erfinv() * math.sqrt(2)).to(mean)
        u = mean + (root @ normal.T).movedim(-1, 0)
        u = u.reshape(POINTS, *batch, *latent.unconstrained_shape)
        weights = mean.new_full((POINTS,), 1 / POINTS)
    z = support.transform(u)
    weights = weights.reshape(-1, *(1,) * (z.dim() - 1))
    centre = (weights * z).sum(dim=0)
    return centre, (weights * (z - centre).square()).sum(dim=0).sqrt()


def hermite(like: Tensor) -> tuple[Tensor, Tensor]:
    """Return nodes and weights of quadrature under N(0, 1), each (NODES,), in the type of a tensor."""
    import numpy as np

    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    return torch.from_numpy(nodes).to(like), torch.from_numpy(weights / weights.sum()).to(like)


class UnconstrainedFamily(Family):
    """An abstract family of laws on unconstrained space; subclasses add the law of the coordinates.

    Args:
        latents: Continuous latents that all data points share.
        replicates: R.
        start: Where the origin lies: `random`, a point drawn uniformly from (−2, 2); `mode`, a mode of p found from
            there; or `run:<folder>`, the mean of the best q of an earlier run with the same latents.
        preconditioner: Curvature at the origin that scales the coordinates: none, its diagonal, or all of it.
    """

    described = "continuous latents that all data points share"
    origin: Tensor
    factor: Tensor

    def __init__(self, latents: dict[str, Latent], replicates: int, start: str, preconditioner: Preconditioner):
        super().__init__()
        self.check_latents(latents)
        known = start in ("random", "mode") or start.removeprefix(EARLIER) not in ("", start)
        require(known, f"family.start={start} must be random, mode, or run:<folder> with the folder of a run.")
        self.replicates, self.latents, self.space = replicates, latents, Space(latents)
        self.start, self.preconditioner = start, preconditioner
        size, like = self.space.size, torch.zeros(())
        require(
            preconditioner != "full" or size <= MOST_FULL,
            f"family.preconditioner=full needs a matrix of {size} x {size}; use family.preconditioner=diagonal.",
        )
        self.register_buffer("origin", like.new_zeros(replicates, 1, size))
        shape = (size, size) if preconditioner == "full" else (size,)
        identity = torch.eye(size).to(like) if preconditioner == "full" else like.new_ones(size)
        self.register_buffer("factor", identity.expand(replicates, 1, *shape).clone())

    @classmethod
    def describes(cls, latents: dict[str, Latent]) -> bool:
        return all(not latent.local and not latent.support.discrete for latent in latents.values())

    @property
    def parents(self) -> Graph:
        """Each latent depends on all before it."""
        names = list(self.space.latents)
        return {name: frozenset(names[:i]) for i, name in enumerate(names)}

    def distribution(self, params: Params) -> UnconstrainedDistribution:
        return UnconstrainedDistribution(self.law(**params["u"]), self.space, self.origin, self.factor, self.name)

    @abstractmethod
    def law(self, **parameters: Tensor) -> Base:
        """Return q_v for constrained parameters (*batch, *shape)."""

    def point(self, u: Tensor) -> tuple[Latents, Tensor]:
        """Return z = T(u) and log|det ∂z/∂u|, for coordinates (..., D)."""
        z = self.space.values(u)
        return z, torch.stack(list(self.space.log_dets(u, z).values())).sum(dim=0)

    def coordinates(self, z: Latents) -> Tensor:
        """Return u, (..., D), of latents."""
        return self.space.of(z)

    def place(self, origin: Tensor, factor: Tensor | None) -> None:
        """Set the coordinates: origin (R, 1, D), and A in the shape of `factor`, or None where it stays."""
        with torch.no_grad():
            self.origin.copy_(origin)
            if factor is not None:
                self.factor.copy_(factor)


class StoredFamily(UnconstrainedFamily):
    """An abstract family on unconstrained space whose parameters are stored in one tensor.

    Args:
        latents, replicates, start, preconditioner: As those of `UnconstrainedFamily`.
        entries: Parameters of q_v, all of one name, `u`.
    """

    def __init__(
        self,
        latents: dict[str, Latent],
        replicates: int,
        entries: Sequence[Entry],
        start: str,
        preconditioner: Preconditioner,
    ):
        super().__init__(latents, replicates, start, preconditioner)
        self.packed = PackedParameters(entries, replicates)
        self.layout = {"u": frozenset(entry.name for entry in entries)}

    def variational(self, x: object = None) -> Params:
        return self.packed()

    def stored_names(self) -> list[str]:
        return self.packed.stored_names()

    def pull_back(self, information: Tensor) -> Tensor:
        return self.packed.pull_back(information)

    def assign(self, params: Params) -> None:
        self.packed.assign(params)


def normal_log_density(standard: Tensor, log_scale: Tensor) -> Tensor:
    """Return log N elementwise, from standardised values and the logarithm of the scale."""
    return -0.5 * standard.square() - log_scale - HALF_LOG_2PI
