"""The origin and the preconditioner of families on unconstrained space: a mode of p, and the curvature there.

At a mode u* of log p(u) = log p(T(u)) + log|det ∂T/∂u|, with Hessian −UΛUᵀ, the preconditioner is the lower triangular
A with A Aᵀ = U |Λ|⁻¹ Uᵀ: in coordinates v of u = u* + A v the curvature is one in all directions, and N(0, I) there is
Laplace's approximation. The Hessian is taken by central differences of gradients, which every model has. Where the
search ends at no mode, or at one whose Laplace approximation is far from p, because the density is unbounded or a
funnel, it begins again elsewhere, and the point of the paths whose approximation has the highest ELBO takes the mode's
place (Zhang, Carpenter, Gelman, Vehtari 2022).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vi_core.errors import Unsupported
from vi_core.families.base import HasCoordinates
from vi_core.models.base import Model

TRIES = 5  # points that are drawn for a replicate, until one has a finite density and gradient
SEARCHES = 2  # ways up for a replicate, where the first ends at no useful mode
LEAST_CURVATURE = 1e-10  # smallest |eigenvalue| that counts, relative to the largest
CANDIDATES = 8  # points of a path whose Laplace approximations are compared
DRAWS = 64  # for the ELBO of a candidate
FAR = 2.0  # nats between ELBO and log evidence of Laplace's approximation at a mode, beyond which others are tried
EVALUATIONS, EVALUATIONS_EACH = 300, 30  # of a search at most, and for each coordinate

LogDensity = Callable[[Tensor], Tensor]  # coordinates (S, D) -> log p (S,)


class Counted:
    """A log density that counts the points at which it is evaluated."""

    def __init__(self, f: LogDensity):
        self.f, self.count = f, 0

    def __call__(self, u: Tensor) -> Tensor:
        self.count += len(u)
        return self.f(u)


class Candidate(NamedTuple):
    """A place for the origin: its ELBO by Laplace's approximation, the point (D,), and A or its diagonal."""

    elbo: float
    point: Tensor
    factor: Tensor


def whiten(family: HasCoordinates, model: Model, x: Any) -> int:
    """Set the coordinates of a family, a replicate at a time, from points that torch's default stream draws.

    Args:
        family: Whose `start` and `preconditioner` say what is wanted.
        model: The target.
        x: All data, as `Model.summarize` returns them.

    Returns:
        Evaluations of the density, most of them with a gradient, for the replicate that took most.

    Raises:
        Unsupported: Where no starting point has a finite density and gradient.
    """

    def log_density(u: Tensor) -> Tensor:
        z, log_det = family.point(u[:, None, None])
        return (model.log_joint(z, x) + log_det).flatten()

    like, most, found = family.origin, 0, []
    for _ in range(len(like)):
        counted = Counted(log_density)
        found.append(place(counted, like.shape[-1], like, family.start, family.preconditioner))
        most = max(most, counted.count)
    origins, factors = zip(*found, strict=True)
    factor = None if factors[0] is None else torch.stack(factors).unsqueeze(1)
    family.place(torch.stack(origins).unsqueeze(1), factor)
    return most


def place(f: LogDensity, size: int, like: Tensor, start: str, preconditioner: str) -> tuple[Tensor, Tensor | None]:
    """Return the origin (D,) of one replicate, and A, its diagonal, or None for no preconditioner."""
    found: list[Candidate] = []
    searches = 0
    for _ in range(TRIES):
        first = torch.rand(size, dtype=like.dtype, device=like.device) * 4 - 2
        if searches == SEARCHES:
            break
        if not bool(gradient(f, first[None]).isfinite().all()):
            continue
        if start == "random":
            factor = curvature(f, first, preconditioner)
            if factor is None or bool(factor.isfinite().all()):
                return first, factor
            continue
        path = climb(f, first)
        if preconditioner == "none":
            return path[-1], None
        searches += 1
        mode = at_mode(f, path[-1], preconditioner)
        if mode is not None and mode.elbo > -FAR:
            return mode.point, mode.factor
        found += best_of_path(f, path if mode is None else [*path, mode.point], preconditioner)
    if found:
        best = max(found, key=lambda candidate: candidate.elbo)
        return best.point, best.factor
    if searches:
        raise Unsupported("no point on the way to a mode has a finite Hessian; use family.preconditioner=none.")
    raise Unsupported(
        f"no point of {TRIES} drawn from (-2, 2) in unconstrained space has a finite log density and gradient; check "
        "the model's scales, or standardise the data."
    )


def at_mode(f: LogDensity, last: Tensor, preconditioner: str) -> Candidate | None:
    """Return the mode next to the end of a search, or None where there is none.

    In place of the ELBO it has the ELBO of Laplace's approximation with the whole curvature, less the log evidence by
    the same draws.
    """
    hessian = differences(f, last)
    if not bool(hessian.isfinite().all()):
        return None
    values, slope = torch.linalg.eigvalsh(-hessian), gradient(f, last[None])[0]
    if values[0] <= LEAST_CURVATURE * values[-1] or slope.abs().max() >= 1e-2 * values[-1].sqrt():
        return None
    newton = last - torch.linalg.solve(hessian, slope)  # the search ends at rounding of f
    log_w = log_weights(f, newton, scaled(hessian, "full"), noise_like(last))
    gap = log_w.mean() - (log_w.logsumexp(dim=0) - math.log(DRAWS))
    return Candidate(float(gap.nan_to_num(nan=-torch.inf)), newton, scaled(hessian, preconditioner))


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
    step = torch.finfo(u.dtype).eps ** 0.25 * (1 + u.abs())
    moves = torch.diag(step)
    slopes = gradient(f, torch.cat([u + moves, u - moves]))
    rows = (slopes[: len(u)] - slopes[len(u) :]) / (2 * step[:, None])
    return 0.5 * (rows + rows.mT)


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
    diagonal = factor.dim() == 1
    spread = noise * factor if diagonal else noise @ factor.mT
    log_det = (factor if diagonal else factor.diagonal()).log().sum()
    with torch.no_grad():
        density = f(u + spread)
    return torch.where(density.isnan(), -torch.inf, density) + log_det + 0.5 * noise.square().sum(dim=-1)


def best_of_path(f: LogDensity, path: list[Tensor], preconditioner: str) -> list[Candidate]:
    """Return the best Laplace approximation along a path, by its ELBO from the same draws for all; [] for none."""
    places = sorted({round(i) for i in np.linspace(0, len(path) - 1, CANDIDATES)})
    noise, found = noise_like(path[0]), []
    for u in (path[i] for i in places):
        hessian = differences(f, u)
        if bool(hessian.isfinite().all()):
            factor = scaled(hessian, preconditioner)
            found.append(Candidate(float(log_weights(f, u, factor, noise).mean()), u, factor))
    return [max(found, key=lambda candidate: candidate.elbo)] if found else []
