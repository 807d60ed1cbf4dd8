"""Pathfinder: a Normal from the gradients along one L-BFGS search for a mode of log p(u).

With steps s_l = u_l − u_(l−1) and changes y_l = g_(l−1) − g_l of the gradient g of log p, a matrix Σ with Σ y = s has
the inverse curvature along s. The BFGS update is the symmetric one that is closest to the Σ before it,

    Σ ← (I − s yᵀ/b) Σ (I − y sᵀ/b) + s sᵀ/b,   b = yᵀs > 0,

and keeps it positive definite. At each point of the path it is made for the last J steps, the oldest first, and begins
from a diagonal α, which changes along the path: the diagonal of the same update of the inverse of Σ = (b/a) α, in whose
scale yᵀΣy = b, is

    1/α_i ← (a/b)/α_i − (a/b) s_i²/(α_i² c) + y_i²/b,   a = Σ α_i y_i²,   c = Σ s_i²/α_i.

The Normal of a point is N(u_l + Σ_l g_l, Σ_l), after a Newton step. Of all points, at most 200, it is taken that has
the highest ELBO, which ten draws estimate, the same noise at each. On a path that falls into a funnel it is one from
before the fall. Zhang, Carpenter, Gelman, Vehtari 2022; the diagonal is that of Gilbert, Lemaréchal 1989.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vi_core.algorithms.whitening import TRIES, LogDensity, climb, density, gradient, log_weights, starts
from vi_core.errors import Unsupported
from vi_core.families.base import HasCoordinates
from vi_core.models.base import Model

MOST_POINTS = 200  # of a path, spread evenly
DRAWS = 10  # for the ELBO of a point
LEAST_SLOPE = 1e-12  # smallest sᵀy/yᵀy of a step that says something of the curvature


class PathNormal(NamedTuple):
    """A Normal of a path.

    Attributes:
        elbo: In nats, up to a constant.
        mean: (D,).
        root: Of the covariance, lower triangular, (D, D).
    """

    elbo: float
    mean: Tensor
    root: Tensor


def find_paths(family: HasCoordinates, model: Model, x: Any, memory: int) -> int:
    """Set origin and factor of each replicate to the best Normal of a path of its own.

    Args:
        family: Which takes them.
        model: The target.
        x: All data, as `Model.summarize` returns them.
        memory: J.

    Returns:
        Evaluations of the density, of which those on the path have a gradient, for the replicate that took most.
    """
    found, most = [], 0
    for replicate in range(len(family.origin)):
        f = density(family, model, replicate, lambda: [(x, 1.0)])
        found.append(best_normal(f, family.origin[0, 0], memory))
        most = max(most, f.count)
    family.place(
        torch.stack([each.mean for each in found])[:, None], torch.stack([each.root for each in found])[:, None]
    )
    return most


def best_normal(f: LogDensity, like: Tensor, memory: int) -> PathNormal:
    """Return the best Normal of a path from a point that torch's default stream draws.

    A path without any is followed by another, up to five.

    Args:
        f: The log density.
        like: (D,), whose type and device are those of the result.
        memory: J.

    Raises:
        Unsupported: Where no path has a Normal with a finite ELBO.
    """
    for first in starts(f, like):
        path = torch.stack(climb(f, first))
        noise = torch.randn(DRAWS, len(like), dtype=like.dtype, device=like.device)
        candidates = normals(path, gradient(f, path), memory)
        found = [PathNormal(float(log_weights(f, *each, noise).mean()), *each) for each in candidates]
        best = max(found, key=lambda normal: normal.elbo, default=None)
        if best is not None and best.elbo > -torch.inf:
            return best
    raise Unsupported(
        f"family=pathfinder found no Normal with a finite ELBO on {TRIES} paths from (-2, 2) in unconstrained space; "
        "check the model's scales, or use family=full_rank_normal."
    )


def normals(path: Tensor, slopes: Tensor, memory: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield mean and root of the Normal of each point but the first, at most 200; those that have no root are left out.

    Args:
        path: Points, (L, D).
        slopes: Gradients of log p at them, (L, D).
        memory: J.
    """
    steps, diagonal = deque[tuple[Tensor, Tensor]](maxlen=memory), torch.ones_like(path[0])
    chosen = set(np.linspace(1, len(path) - 1, min(len(path) - 1, MOST_POINTS)).round().astype(int).tolist())
    for i in range(1, len(path)):
        s, y = path[i] - path[i - 1], slopes[i - 1] - slopes[i]
        if bool(s @ y > LEAST_SLOPE * (y @ y)):
            steps.append((s, y))
            diagonal = updated_diagonal(diagonal, s, y)
        if i in chosen:
            covariance = inverse_curvature(diagonal, steps)
            mean, (root, failed) = path[i] + covariance @ slopes[i], torch.linalg.cholesky_ex(covariance)
            if not bool(failed) and bool(mean.isfinite().all()):
                yield mean, root


def updated_diagonal(diagonal: Tensor, s: Tensor, y: Tensor) -> Tensor:
    """Return α (D,) after a step s and a change y of the gradient."""
    a, b, c = diagonal @ y.square(), s @ y, (s.square() / diagonal).sum()
    return 1 / (a / b * (1 / diagonal - (s / diagonal).square() / c) + y.square() / b)


def inverse_curvature(diagonal: Tensor, steps: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Return Σ (D, D) after BFGS updates of diag(α) by steps s and changes y of the gradient, the oldest first."""
    covariance = torch.diag(diagonal)
    for s, y in steps:
        b, moved = s @ y, covariance @ y
        crossed = torch.outer(s, moved) / b
        covariance = covariance - crossed - crossed.T + (1 + y @ moved / b) / b * torch.outer(s, s)
    return covariance
