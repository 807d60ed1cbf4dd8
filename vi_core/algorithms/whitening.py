"""The origin and the preconditioner of families on unconstrained space: a mode of p, and the curvature there.

At a mode u* of log p(u) = log p(T(u)) + log|det ∂T/∂u|, with Hessian −UΛUᵀ, the preconditioner is the lower triangular
A with A Aᵀ = U |Λ|⁻¹ Uᵀ: in coordinates v of u = u* + A v the curvature is one in all directions, and N(0, I) there is
Laplace's approximation. The Hessian is taken by central differences of gradients, which every model has. Where the
search ends at no mode, because the density has none or is a funnel, the point of its path whose Laplace approximation
has the highest ELBO takes its place (Zhang, Carpenter, Gelman, Vehtari 2022).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vi_core.errors import Unsupported
from vi_core.families.base import HasCoordinates
from vi_core.models.base import Model

TRIES = 5  # starting points for a replicate, before the search is given up
LEAST_CURVATURE = 1e-10  # smallest |eigenvalue| that counts, relative to the largest
CANDIDATES = 12  # points of a path whose Laplace approximations are compared
DRAWS = 64  # for the ELBO of a candidate
MOST_ITERATIONS = 1000

LogDensity = Callable[[Tensor], Tensor]  # coordinates (S, D) -> log p (S,)


def whiten(family: HasCoordinates, model: Model, x: Any) -> None:
    """Set the coordinates of a family, a replicate at a time, from points that torch's default stream draws.

    Args:
        family: Whose `start` and `preconditioner` say what is wanted.
        model: The target.
        x: All data, as `Model.summarize` returns them.

    Raises:
        Unsupported: Where no starting point has a finite density and gradient.
    """

    def log_density(seen: Any, u: Tensor) -> Tensor:
        z, log_det = family.point(u[:, None, None])
        return (model.log_joint(z, seen) + log_det).flatten()

    like = family.origin
    densities = [partial(log_density, model.seen_by(replicate, x)) for replicate in range(len(like))]
    found = [place(density, like.shape[-1], like, family.start, family.preconditioner) for density in densities]
    origins, factors = zip(*found, strict=True)
    factor = None if factors[0] is None else torch.stack(factors).unsqueeze(1)
    family.place(torch.stack(origins).unsqueeze(1), factor)


def place(f: LogDensity, size: int, like: Tensor, start: str, preconditioner: str) -> tuple[Tensor, Tensor | None]:
    """Return the origin (D,) of one replicate, and A, its diagonal, or None for no preconditioner."""
    for _ in range(TRIES):
        first = torch.rand(size, dtype=like.dtype, device=like.device) * 4 - 2
        with torch.no_grad():
            density = f(first[None])
        if not bool(density.isfinite().all() and gradient(f, first[None]).isfinite().all()):
            continue
        if start == "random":
            factor = curvature(f, first, preconditioner)
            if factor is None or bool(factor.isfinite().all()):
                return first, factor
            continue
        path = climb(f, first)
        last, peaked = path[-1], False
        if preconditioner == "none":
            return last, None
        hessian = differences(f, last)
        if bool(hessian.isfinite().all()):
            values = torch.linalg.eigvalsh(-hessian)
            peaked = bool(values[0] > LEAST_CURVATURE * values[-1]) and bool(
                gradient(f, last[None]).abs().max() < 1e-2 * values[-1].sqrt()
            )
        if not peaked:
            return best_of_path(f, path, preconditioner)
        newton = last - torch.linalg.solve(hessian, gradient(f, last[None])[0])  # the search ends at rounding of f
        return newton, scaled(hessian, preconditioner)
    raise Unsupported(
        f"no point of {TRIES} drawn from (-2, 2) in unconstrained space has a finite log density and gradient; check "
        "the model's scales, or standardise the data."
    )


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

    options = {"maxiter": MOST_ITERATIONS, "maxfun": 4 * MOST_ITERATIONS, "ftol": 1e-12, "gtol": 1e-8, "maxcor": 20}
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


def best_of_path(f: LogDensity, path: list[Tensor], preconditioner: str) -> tuple[Tensor, Tensor]:
    """Return point and A of the best Laplace approximation along a path, by its ELBO from the same draws for all."""
    places = sorted({round(i) for i in np.linspace(0, len(path) - 1, CANDIDATES)})
    noise = torch.randn(DRAWS, len(path[0]), dtype=path[0].dtype, device=path[0].device)
    best, found = -torch.inf, None
    for u in (path[i] for i in places):
        hessian = differences(f, u)
        if not bool(hessian.isfinite().all()):
            continue
        factor = scaled(hessian, preconditioner)
        spread = noise * factor if factor.dim() == 1 else noise @ factor.mT
        with torch.no_grad():
            log_det = (factor if factor.dim() == 1 else factor.diagonal()).log().sum()
            elbo = float(f(u + spread).nan_to_num(nan=-torch.inf).mean() + log_det)
        if found is None or elbo > best:
            best, found = elbo, (u, factor)
    if found is None:
        raise Unsupported("no point on the way to a mode has a finite Hessian; use family.preconditioner=none.")
    return found
