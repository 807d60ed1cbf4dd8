"""Densities of q beside those of the exact posterior, on grids: what the figure of the posterior is drawn from.

A marginal whose quantile function F⁻¹ the family knows has the density Δp/ΔF⁻¹(p) between neighbouring levels p. Others
are estimated from draws, positive ones from their logarithms, by a Gaussian kernel of the width
h = 0.9 min(sd, IQR/1.34) n^(−1/5), after Silverman 1986. The kernel alone would widen them: draws are moved towards
their mean by √(1 + h²/sd²), so that the estimate has the deviation of the draws (Jones 1991).
"""

import math
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor
from torch.distributions import Distribution

from vi_core.diagnostics.marginals import MOST_NUMBERS, draw_up_to, reports, scalars
from vi_core.distributions import supports
from vi_core.families.base import Family, VariationalDistribution
from vi_core.models.base import HasExactMarginals, Model

POINTS = 201  # of a marginal's grid
PLANE = 81  # of each axis of the plane
BINS = 1024  # that draws are counted in
DRAWS = 4000  # of each replicate
MOST = 8  # scalars
MOST_REPLICATES = 256
REACH = 4.0  # exact deviations that a grid holds at least
LEVELS = torch.special.ndtr(torch.linspace(-4.5, 4.5, 241, dtype=torch.float64)).numpy()  # of the quantiles
ENDS = torch.special.ndtr(torch.tensor([-3.0, 3.0], dtype=torch.float64)).numpy()  # levels where a grid ends


class Curve(NamedTuple):
    """Marginal densities of a scalar: `grid` (G,), those of each replicate's q (G, R), and the exact one (G,)."""

    grid: ndarray
    q: ndarray
    exact: ndarray | None


Column = tuple[str, tuple[float, float], Callable[[ndarray], ndarray]]
"""Name of a scalar, where q ends on both sides, and the function from a grid (G,) to the densities of q, (G, R)."""


class Plane(NamedTuple):
    """Joint densities of two scalars: grids x (X,) and y (Y,), q (R, Y, X), and the exact posterior (Y, X)."""

    names: tuple[str, ...]
    x: ndarray
    y: ndarray
    q: ndarray
    exact: ndarray | None


class Densities(NamedTuple):
    """Marginals by name of the scalar, and the plane of a model with two scalar latents."""

    curves: dict[str, Curve]
    plane: Plane | None


def densities(model: Model, family: Family, x: Any, exact_x: Any, alive: ndarray) -> Densities | None:
    """Return the densities of the first scalars of the final q; None for latents of data points, too many of them, or
    a point mass.

    Args:
        model, family: The fitted problem.
        x: All data as the model sees them.
        exact_x: The same as they were read, for exact answers; None where they are not at hand.
        alive: Replicates that count, (R,).
    """
    latents = model.latents.values()
    numbers = len(LEVELS) * len(alive) * sum(math.prod(latent.shape) for latent in latents)
    discrete = any(latent.support.discrete for latent in latents)
    if model.has_local or not family.has_scores or discrete or not alive.any() or numbers > MOST_NUMBERS:
        return None
    laws, evidence = dict[str, Distribution](), math.nan
    if isinstance(model, HasExactMarginals) and exact_x is not None:
        laws, evidence = model.exact_marginals(exact_x), model.exact(exact_x).get("log_evidence", math.nan)
    with torch.no_grad():
        q = family.distribution(family.variational())
        columns: Iterator[Column] = islice(_columns(model, family, q, x), MOST)
        curves = {name: _curve(ends, density, laws.get(name)) for name, ends, density in columns}
        plane = _plane(model, q, curves, exact_x if laws else None, evidence, alive)
    return Densities({name: curve._replace(q=curve.q[:, alive]) for name, curve in curves.items()}, plane)


def _columns(model: Model, family: Family, q: VariationalDistribution, x: Any) -> Iterator[Column]:
    """Yield each scalar, from quantiles where they are known and else from draws."""
    known = q.quantiles(tuple(LEVELS.tolist())) if model.reports_latents else {}
    complete = known.keys() >= model.latents.keys() and not reports(model)
    rest = {} if complete else draw_up_to(model, family, x, DRAWS)
    for name in [*known, *(name for name in rest if name not in known)]:
        values = _host(torch.stack(known[name]) if name in known else rest[name]).squeeze(2)
        latent = model.latents.get(name)
        logarithms = latent is not None and latent.support == supports.positive
        density = _between if name in known else partial(_smoothed, logarithms=logarithms)
        rows, replicates = values.shape[:2]
        ends = np.searchsorted(LEVELS, ENDS) / (rows - 1) if name in known else ENDS
        for scalar, column in scalars(name, values.reshape(rows * replicates, *values.shape[2:])):
            numbers = column.reshape(rows, replicates)
            low, high = np.nanmedian(np.quantile(numbers, ends, axis=0), axis=1).tolist()
            yield scalar, (low, high), partial(density, columns=numbers.T)


def _curve(ends: tuple[float, float], density: Callable[[ndarray], ndarray], law: Distribution | None) -> Curve:
    """Return the curve of a scalar from where q ends, its densities on a grid, and its exact law."""
    low, high = ends
    if law is not None and math.isfinite(reach := REACH * float(law.stddev)):
        least = float(getattr(law.support, "lower_bound", -math.inf)) + 1e-6 * reach
        low, high = min(low, max(float(law.mean) - reach, least)), max(high, float(law.mean) + reach)
    grid = np.linspace(low, high, POINTS)
    return Curve(grid, density(grid), None if law is None else _host(law.log_prob(torch.from_numpy(grid)).exp()))


def _between(grid: ndarray, columns: ndarray) -> ndarray:
    """Return densities (G, R) on the grid from quantiles at `LEVELS`, (R, L)."""
    middles, gaps = (columns[:, 1:] + columns[:, :-1]) / 2, np.maximum(np.diff(columns), 1e-300)
    rows = zip(middles, np.diff(LEVELS) / gaps, strict=True)
    return np.stack([np.interp(grid, middle, density, left=0.0, right=0.0) for middle, density in rows], axis=1)


def _smoothed(grid: ndarray, columns: ndarray, logarithms: bool) -> ndarray:
    """Return densities (G, R) on the grid from draws (R, S)."""
    if not logarithms:
        return np.stack([kernel_density(grid, draws) for draws in columns], axis=1)
    safe = np.maximum(grid, 1e-300)
    return np.stack([kernel_density(np.log(safe), draws) / safe for draws in np.log(columns)], axis=1)


def kernel_density(places: ndarray, draws: ndarray) -> ndarray:
    """Return the density at places (G,) from draws (S,), by a Gaussian kernel that keeps their deviation."""
    mean, sd, (low, high) = draws.mean(), draws.std(), np.quantile(draws, [0.25, 0.75])
    width = 0.9 * min(sd, (high - low) / 1.34) * len(draws) ** -0.2
    if not width > 0:
        return np.zeros_like(places)
    counts, edges = np.histogram(mean + (draws - mean) / math.hypot(1, width / sd), BINS, density=True)
    step = edges[1] - edges[0]
    half = math.ceil(4 * width / step)
    kernel = np.exp(-0.5 * (np.arange(-half, half + 1) * step / width) ** 2)
    density = np.convolve(counts, kernel / kernel.sum())
    centres = edges[0] + step * (np.arange(len(density)) - half + 0.5)
    return np.interp(places, centres, density, left=0.0, right=0.0)


def _plane(
    model: Model, q: VariationalDistribution, curves: Mapping[str, Curve], x: Any, evidence: float, alive: ndarray
) -> Plane | None:
    """Return the plane of a model whose latents are two scalars; None for others."""
    two = len(model.latents) == 2 and all(latent.shape == () for latent in model.latents.values())
    if not two or len(alive) > MOST_REPLICATES or not model.latents.keys() <= curves.keys():
        return None
    names = tuple(model.latents)
    axes = [np.linspace(curves[name].grid[0], curves[name].grid[-1], PLANE) for name in names]
    places = [torch.from_numpy(place.reshape(-1, 1, 1)) for place in np.meshgrid(*axes)]
    z, drawn = dict(zip(names, places, strict=True)), q.sample(1)
    fitted = q.log_prob({name: value.to(drawn[name]).expand(-1, len(alive), 1) for name, value in z.items()})
    planes, exact = np.exp(_host(fitted)[..., 0].T).reshape(-1, PLANE, PLANE), None
    if x is not None:
        log_joint = deepcopy(model).to("cpu", torch.float64).log_joint(z, x)
        exact = np.exp(_host(log_joint).reshape(PLANE, PLANE) - evidence)
    return Plane(names, axes[0], axes[1], planes[alive], exact)


def _host(value: Tensor) -> ndarray:
    return value.detach().cpu().double().numpy()
