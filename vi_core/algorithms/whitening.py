"""The origin and the preconditioner of families on unconstrained space: a mode of p, and the curvature there.

At a mode u* of log p(u) = log p(T(u)) + log|det ∂T/∂u|, with Hessian −UΛUᵀ, the preconditioner is the lower triangular
A with A Aᵀ = U |Λ|⁻¹ Uᵀ: in coordinates v of u = u* + A v the curvature is one in all directions, and N(0, I) there is
Laplace's approximation. The Hessian is taken by central differences of gradients, which every model has; Newton steps
and Hessians in the coordinates that the last Hessian whitened make both exact where scales differ by many orders.
Where a search ends at no mode, or at one whose Laplace approximation is far from p, because the density is unbounded or
a funnel, the point of its path whose approximation has the highest ELBO takes the mode's place (Zhang, Carpenter,
Gelman, Vehtari 2022). Each replicate searches twice and takes one of the places by their shares of the evidence; one
whose place has hardly any of what the best replicate found takes that.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Categorical

from vi_core.errors import Unsupported
from vi_core.families.base import HasCoordinates
from vi_core.models.base import Model

TRIES = 5  # points that are drawn for a replicate, until one has a finite density and gradient
SEARCHES = 2  # ways up for a replicate, which takes one of the places found by their shares of the evidence
LEAST_CURVATURE = 1e-10  # smallest |eigenvalue| that counts, relative to the largest
NEWTON_STEPS = 10  # at most, from the end of a search to the mode
SETTLED = 1e-4  # of the gradient at a mode, and of the Hessian there plus one, in whitened coordinates
NEGLIGIBLE = 10.0  # nats that a replicate's place may be below the best one
CANDIDATES = 8  # points of a path whose Laplace approximations are compared
DRAWS = 64  # for the ELBO of a candidate
MOST_WHOLE = 500  # coordinates up to which `preconditioner=diagonal` looks at the whole Hessian
ROWS_AT_ONCE = 256  # of a Hessian whose diagonal is wanted
FAR = 2.0  # nats between ELBO and log evidence of Laplace's approximation at a mode, beyond which others are tried
EVALUATIONS, EVALUATIONS_EACH = 300, 30  # of a search at most, and for each coordinate

DENSITIES = 2**22  # data points under draws that are in memory at once

LogDensity = Callable[[Tensor], Tensor]  # coordinates (S, D) -> log p (S,)
Blocks = Callable[[], Iterable[tuple[Any, float]]]  # -> batches of all data with their shares of the points


class Density:
    """A log density in pieces that memory holds, some blocks of data and some draws at a time; it counts the draws.

    A batch of data stands for all of them, so that log p is the mean over the blocks, weighted by their shares.

    Args:
        f: log p (S,) of a block of data at coordinates (S, D).
        blocks: Yields the blocks.
    """

    def __init__(self, f: Callable[[Any, Tensor], Tensor], blocks: Blocks):
        self.f, self.blocks, self.count = f, blocks, 0

    def __call__(self, u: Tensor) -> Tensor:
        self.count += len(u)
        if torch.is_grad_enabled() and u.requires_grad:
            return _InPieces.apply(u, self)
        value = u.new_zeros(len(u))
        for x, share in self.blocks():
            value += share * torch.cat([self.f(x, piece) for piece in u.split(at_once(x))])
        return value

    def with_slopes(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return log p (S,) and its gradients (S, D)."""
        value, slope = u.new_zeros(len(u)), torch.zeros_like(u)
        for x, share in self.blocks():
            found = [self._piece(x, piece) for piece in u.split(at_once(x))]
            values, slopes = (torch.cat(parts) for parts in zip(*found, strict=True))
            value, slope = value + share * values, slope + share * slopes
        return value, slope

    def _piece(self, x: Any, u: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            u = u.detach().requires_grad_()
            value = self.f(x, u)
            (slope,) = torch.autograd.grad(value.sum(), u)
        return value.detach(), slope


class _InPieces(torch.autograd.Function):
    """Gradients that are computed with the values, so that nothing of a piece is kept."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, density: Density) -> Tensor:
        value, slope = density.with_slopes(u.detach())
        ctx.save_for_backward(slope)
        return value

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None]:
        return outer[0].unsqueeze(-1) * ctx.saved_tensors[0], None


def at_once(x: Any) -> int:
    """Return at how many draws the density of data is evaluated in a piece."""
    tensors = x.values() if isinstance(x, dict) else [x]
    points = max((len(t) for t in tensors if isinstance(t, Tensor) and t.dim()), default=1)
    return max(1, DENSITIES // points)


class Candidate(NamedTuple):
    """A place for the origin.

    Attributes:
        elbo: Of Laplace's approximation with the whole curvature, in nats.
        gap: Log evidence by the same draws, less the ELBO.
        point: (D,).
        factor: A, its diagonal, or None for no preconditioner.
    """

    elbo: float
    gap: float
    point: Tensor
    factor: Tensor | None


def whiten(family: HasCoordinates, model: Model, x: Any, blocks: Blocks | None = None, farthest: float = FAR) -> int:
    """Set the coordinates of a family, a replicate at a time, from points that torch's default stream draws.

    Args:
        family: Whose `start` and `preconditioner` say what is wanted.
        model: The target.
        x: All data, as `Model.summarize` returns them, or data points at random.
        blocks: All data in batches; a mode found from x is moved to theirs.
        farthest: Nats between ELBO and log evidence of Laplace's approximation at a mode up to which it is taken.

    Returns:
        Evaluations of the density, most of them with a gradient, for the replicate that took most.

    Raises:
        Unsupported: Where no starting point has a finite density and gradient.
    """
    like, most, found = family.origin, 0, []
    for replicate in range(len(like)):
        f = density(family, model, replicate, lambda: [(x, 1.0)])
        candidate = place(f, like[0, 0], family.start, family.preconditioner, farthest)
        most = max(most, f.count)
        if blocks is not None and family.start == "mode" and candidate.gap < FAR:
            candidate = moved(density(family, model, replicate, blocks), candidate)
        found.append(candidate)
    if not model.per_replicate:
        best = max(found, key=lambda candidate: candidate.elbo)
        found = [best if candidate.elbo < best.elbo - NEGLIGIBLE else candidate for candidate in found]
    factors = [candidate.factor for candidate in found if candidate.factor is not None]
    origin = torch.stack([candidate.point for candidate in found]).unsqueeze(1)
    family.place(origin, torch.stack(factors).unsqueeze(1) if factors else None)
    return most


def density(family: HasCoordinates, model: Model, replicate: int, blocks: Blocks) -> Density:
    """Return log p of what a replicate sees, in a family's unconstrained coordinates."""

    def log_density(seen: Any, u: Tensor) -> Tensor:
        z, log_det = family.point(u[:, None, None])
        return (model.log_joint(z, seen) + log_det).flatten()

    return Density(log_density, lambda: ((model.seen_by(replicate, part), share) for part, share in blocks()))


def starts(f: LogDensity, like: Tensor) -> Iterator[Tensor]:
    """Yield those of five points (D,), drawn uniformly from (−2, 2), that have a finite density and gradient."""
    for _ in range(TRIES):
        first = torch.rand_like(like) * 4 - 2
        with torch.no_grad():
            value = f(first[None])
        if bool(value.isfinite().all() and gradient(f, first[None]).isfinite().all()):
            yield first


def place(f: LogDensity, like: Tensor, start: str, preconditioner: str, farthest: float = FAR) -> Candidate:
    """Return the origin of one replicate, and A; without curvature, all places count as equally good."""
    found: list[Candidate] = []
    searches = 0
    for first in starts(f, like):
        if start == "random":
            factor = curvature(f, first, preconditioner)
            if factor is None or bool(factor.isfinite().all()):
                return Candidate(0.0, 0.0, first, factor)
            continue
        path = climb(f, first)
        if preconditioner == "none":
            return Candidate(0.0, 0.0, path[-1], None)
        searches += 1
        if preconditioner == "diagonal" and len(first) > MOST_WHOLE:
            found += at_end(f, path[-1])
            break
        mode = at_mode(f, path[-1], preconditioner)
        if mode is not None and mode.gap <= farthest:
            found.append(mode)
        else:
            found += best_of_path(f, path if mode is None else [*path, mode.point], preconditioner)
        if searches == SEARCHES:
            break
    if found:
        return found[int(Categorical(logits=evidences(found)).sample())]
    if searches:
        raise Unsupported("no point on the way to a mode has a finite Hessian; use family.preconditioner=none.")
    raise Unsupported(
        f"no point of {TRIES} drawn from (-2, 2) in unconstrained space has a finite log density and gradient; check "
        "the model's scales, or standardise the data."
    )


def evidences(found: list[Candidate]) -> Tensor:
    """Return the log evidence around each place, finite: replicates take places by their share of the evidence."""
    values = [candidate.elbo + (candidate.gap if math.isfinite(candidate.gap) else 0.0) for candidate in found]
    return torch.tensor(values).nan_to_num(nan=-1e300, neginf=-1e300)


def moved(f: LogDensity, candidate: Candidate) -> Candidate:
    """Return a place at the mode of a density close to the one in which it was found; A stays."""
    factor = torch.ones_like(candidate.point) if candidate.factor is None else candidate.factor
    last = climb(partial(_around, f, candidate.point, factor), torch.zeros_like(candidate.point))[-1]
    return candidate._replace(point=candidate.point + _times(factor, last))


def at_mode(f: LogDensity, last: Tensor, preconditioner: str) -> Candidate | None:
    """Return the mode next to the end of a search, or None where there is none.

    Newton steps in the coordinates v of u = last + A v: each step moves the origin, and multiplies A by the factor of
    the Hessian in v, until that is −1 and the gradient 0.
    """
    hessian = differences(f, last)
    if not bool(hessian.isfinite().all()):
        return None
    point, factor, origin = last, scaled(hessian, "full"), torch.zeros_like(last)
    for _ in range(NEWTON_STEPS):
        around = partial(_around, f, point, factor)
        curved, slope = -differences(around, origin), gradient(around, origin[None])[0]
        if not bool(curved.isfinite().all()) or float(torch.linalg.eigvalsh(curved)[0]) <= LEAST_CURVATURE:
            return None
        step, unit = torch.linalg.solve(curved, slope), torch.eye(len(last)).to(last)
        if bool(slope.abs().max() < SETTLED and (curved - unit).abs().max() < SETTLED):
            return with_elbo(f, point + factor @ step, factor @ scaled(-curved, "full"), preconditioner)
        with torch.no_grad():
            gain = around(step[None]) - around(origin[None])
        if not bool(gain > -SETTLED):
            return None
        point, factor = point + factor @ step, factor @ scaled(-curved, "full")
    return None


def at_end(f: LogDensity, last: Tensor) -> list[Candidate]:
    """Return the end of a search with the curvature along each coordinate, 2 D gradients; [] where that is not finite.

    The whole Hessian of thousands of coordinates would take more time and memory than the fit.
    """
    own = diagonal(f, last)
    if not bool(own.isfinite().all()):
        return []
    factor = inverse_root(own)
    return [Candidate(float(log_weights(f, last, factor, noise_like(last)).mean()), 0.0, last, factor)]


def _around(f: LogDensity, point: Tensor, factor: Tensor, v: Tensor) -> Tensor:
    return f(point + _times(factor, v))


def _times(factor: Tensor, v: Tensor) -> Tensor:
    """Return A v for A or its diagonal, and v (..., D)."""
    return v * factor if factor.dim() == 1 else v @ factor.mT


def with_elbo(f: LogDensity, point: Tensor, factor: Tensor, preconditioner: str) -> Candidate:
    """Return Laplace's approximation with covariance A Aᵀ at a mode, and A as the preconditioner has it."""
    log_w = log_weights(f, point, factor, noise_like(point))
    elbo, evidence = log_w.mean(), log_w.logsumexp(dim=0) - math.log(DRAWS)
    root = torch.linalg.solve_triangular(factor, torch.eye(len(point)).to(factor), upper=False)
    own = root.norm(dim=0).reciprocal() if preconditioner == "diagonal" else factor
    gap = float((evidence - elbo).nan_to_num(nan=torch.inf))
    return Candidate(float(elbo.nan_to_num(nan=-torch.inf)), gap, point, own)


def gradient(f: LogDensity, u: Tensor) -> Tensor:
    """Return ∂ log p/∂u at each of S points, (S, D)."""
    with torch.enable_grad():
        u = u.detach().requires_grad_()
        (slope,) = torch.autograd.grad(f(u).sum(), u)
    return slope


def climb(f: LogDensity, first: Tensor) -> list[Tensor]:
    """Return the points that L-BFGS passes on its way up from one point, (D,) each; the highest last."""
    from scipy.optimize import minimize  # slow to import, and needed once

    path = [first]

    def downhill(u: np.ndarray) -> tuple[float, np.ndarray]:
        point = torch.from_numpy(u).to(first).requires_grad_()
        with torch.enable_grad():
            value = f(point[None]).sum()
            (slope,) = torch.autograd.grad(value, point)
        finite = bool(value.isfinite()) and bool(slope.isfinite().all())
        return (-value.item(), -slope.double().cpu().numpy()) if finite else (np.inf, np.zeros_like(u))

    def note(u: np.ndarray) -> None:
        path.append(torch.from_numpy(u.copy()).to(first))

    most = EVALUATIONS + EVALUATIONS_EACH * len(first)
    options = {"maxiter": most, "maxfun": most, "ftol": 1e-12, "gtol": 1e-8, "maxcor": 20}
    minimize(downhill, first.double().cpu().numpy(), jac=True, method="L-BFGS-B", callback=note, options=options)
    return path


def differences(f: LogDensity, u: Tensor) -> Tensor:
    """Return the Hessian (D, D) of log p at u (D,) by central differences of 2 D gradients, in one call."""
    rows = hessian_rows(f, u, torch.arange(len(u), device=u.device))
    return 0.5 * (rows + rows.mT)


def diagonal(f: LogDensity, u: Tensor) -> Tensor:
    """Return the diagonal (D,) of the same Hessian, some rows at a time."""
    pieces = torch.arange(len(u), device=u.device).split(ROWS_AT_ONCE)
    return torch.cat([hessian_rows(f, u, piece).gather(1, piece[:, None]).squeeze(1) for piece in pieces])


def hessian_rows(f: LogDensity, u: Tensor, which: Tensor) -> Tensor:
    """Return the rows `which` (n,) of the Hessian of log p at u (D,), (n, D), by central differences of gradients."""
    step = torch.finfo(u.dtype).eps ** 0.25 * (1 + u[which].abs())
    moves = u.new_zeros(len(which), len(u)).scatter(1, which[:, None], step[:, None])
    up, down = gradient(f, torch.cat([u + moves, u - moves])).chunk(2)
    return (up - down) / (2 * step[:, None])


def curvature(f: LogDensity, u: Tensor, preconditioner: str) -> Tensor | None:
    """Return A at a point, or its diagonal, or None for no preconditioner; not finite where the Hessian is not."""
    if preconditioner == "none":
        return None
    hessian = differences(f, u)
    return scaled(hessian, preconditioner) if bool(hessian.isfinite().all()) else hessian


def scaled(hessian: Tensor, preconditioner: str) -> Tensor:
    """Return the lower triangular A with A Aᵀ = U |Λ|⁻¹ Uᵀ, or the diagonal |h_ii|^(−½)."""
    if preconditioner == "diagonal":
        return inverse_root(hessian.diagonal())
    values, vectors = torch.linalg.eigh(hessian)
    triangular = torch.linalg.qr((vectors * inverse_root(values)).mT).R.mT
    return triangular * triangular.diagonal().sign()


def inverse_root(curvatures: Tensor) -> Tensor:
    """Return |λ|^(−½), with small |λ| raised to a fraction of the largest; ones where there is no curvature at all."""
    size = curvatures.abs()
    return size.clamp_min(LEAST_CURVATURE * size.max()).rsqrt() if bool(size.any()) else torch.ones_like(size)


def noise_like(u: Tensor) -> Tensor:
    """Draw standard Normals (DRAWS, D) for a point (D,)."""
    return torch.randn(DRAWS, len(u), dtype=u.dtype, device=u.device)


def log_weights(f: LogDensity, u: Tensor, factor: Tensor, noise: Tensor) -> Tensor:
    """Return log p − log q of draws u + A ε of a Normal, (S,), for noise ε (S, D)."""
    log_det = (factor if factor.dim() == 1 else factor.diagonal()).log().sum()
    with torch.no_grad():
        density = _around(f, u, factor, noise)
    return torch.where(density.isnan(), -torch.inf, density) + log_det + 0.5 * noise.square().sum(dim=-1)


def best_of_path(f: LogDensity, path: list[Tensor], preconditioner: str) -> list[Candidate]:
    """Return the best Laplace approximation along a path, by its ELBO from the same draws for all; [] for none."""
    places = sorted({round(i) for i in np.linspace(0, len(path) - 1, CANDIDATES)})
    noise, found = noise_like(path[0]), []
    for u in (path[i] for i in places):
        hessian = differences(f, u)
        if bool(hessian.isfinite().all()):
            factor = scaled(hessian, preconditioner)
            found.append(Candidate(float(log_weights(f, u, factor, noise).mean()), torch.inf, u, factor))
    return [max(found, key=lambda candidate: candidate.elbo)] if found else []
