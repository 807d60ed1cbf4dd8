"""Marginals of q: mean, deviation, 5 % and 95 % quantile of each scalar, and the Monte Carlo error of the mean.

Mean and deviation of a latent are those of the family, in closed form or by its quadrature, and so are the quantiles
where the family knows them. Other quantiles, and all numbers of a model's `quantities`, are those of draws z ~ q: with
n draws the 5 % quantile of a Normal is off by 2.1 deviations/√n.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from vi_core.families.base import Family
from vi_core.models.base import HasColumns, Model
from vi_core.types import Latents

LEVELS = (0.05, 0.95)
DRAWS = 4000  # of each replicate, for what is not known in closed form
MOST_NUMBERS = 20_000_000  # of all draws together
LATE = 0.75  # share of the steps before the iterates that count


class Marginal(NamedTuple):
    """Mean, deviation and quantiles of a scalar under the q of each replicate, each (R,).

    `draws` is the number of draws of which the mean is the average; 0 where the family knows it.
    """

    mean: ndarray
    sd: ndarray
    q05: ndarray
    q95: ndarray
    draws: int = 0


def marginals(model: Model, family: Family, x: Any, draws: int = DRAWS) -> dict[str, Marginal]:
    """Return the marginal of each scalar of latents that all data share, and of the model's quantities, by name.

    Args:
        model: The model, whose `quantities` count where it has some.
        family: The fitted family.
        x: The data as the model sees them, which quantities may read.
        draws: Draws of each replicate, from torch's default stream; fewer where the numbers would not fit in memory.
    """
    with torch.no_grad():
        q = family.distribution(family.variational())
        moments, quantiles = (q.moments(), q.quantiles(LEVELS)) if model.reports_latents else ({}, {})
        sampled = {}
        if quantiles.keys() < moments.keys() or reports(model):
            sampled = draw_up_to(model, family, x, draws)
    found = {}
    for name, (mean, sd) in moments.items():
        levels = quantiles[name] if name in quantiles else empirical(sampled[name])
        found |= _by_scalar(name, (mean, sd, *levels))
    for name in [name for name in sampled if name not in moments] if reports(model) else ():
        value = sampled[name].to(torch.get_default_dtype())
        found |= _by_scalar(name, (value.mean(dim=0), value.std(dim=0), *empirical(value)), len(value))
    return found


def reports(model: Model) -> bool:
    """Whether results describe functions of the latents, beside them or in their place."""
    return isinstance(model, HasColumns) and (model.has_quantities or not model.reports_latents)


def draw(model: Model, family: Family, x: Any, draws: int) -> Latents:
    """Return draws of q by name, (S, R, 1, *event), as the model's results describe them."""
    with torch.no_grad():
        z = family.distribution(family.variational()).sample(draws)
        return model.reported(z, x) if isinstance(model, HasColumns) else z


def draw_up_to(model: Model, family: Family, x: Any, draws: int) -> Latents:
    """Return draws as `draw` does, fewer where the numbers would not fit in memory."""
    size = sum(value.numel() for value in draw(model, family, x, 1).values())
    return draw(model, family, x, max(2, min(draws, MOST_NUMBERS // size)))


def empirical(value: Tensor) -> tuple[Tensor, ...]:
    """Return the quantiles of draws (S, *shape), each (*shape)."""
    return tuple(torch.from_numpy(np.quantile(value.cpu().numpy(), LEVELS, axis=0)))


def _by_scalar(name: str, numbers: Sequence[Tensor], draws: int = 0) -> dict[str, Marginal]:
    """Return the marginals of each scalar from numbers (R, 1, *event)."""
    columns = [dict(scalars(name, value.squeeze(1).detach().cpu().double().numpy())) for value in numbers]
    mean, sd, q05, q95 = columns
    return {scalar: Marginal(mean[scalar], sd[scalar], q05[scalar], q95[scalar], draws) for scalar in mean}


def scalars(name: str, values: ndarray) -> Iterator[tuple[str, ndarray]]:
    """Yield name and numbers (N,) of each scalar of values (N, *event): elements are numbered row by row."""
    if values.ndim == 1:
        yield name, values
        return
    for i, column in enumerate(values.reshape(len(values), -1).T):
        yield f"{name}[{i}]", column


def mc_error(marginal: Marginal, alive: ndarray, step: ndarray, iterates: ndarray | None) -> float | None:
    """Return the Monte Carlo error of the mean, averaged over replicates, or None where nothing tells it.

    With several replicates it is the deviation of their means/√R. With one it is the deviation of the means that its
    parameters implied over the last quarter of the steps: the last of them is reported, and the others are as good.
    Of an average of n draws whose course was not recorded, it is the error of the draws alone, sd/√n.

    Args:
        marginal: Of each replicate.
        alive: Replicates that count, (R,).
        step: (T,) recorded steps.
        iterates: (T, R) recorded means; None where they were not recorded.
    """
    count = int(alive.sum())
    if count > 1:
        return float(marginal.mean[alive].std(ddof=1)) / math.sqrt(count)
    if count == 1 and iterates is not None and (step > LATE * step[-1]).sum() > 1:
        return float(iterates[step > LATE * step[-1]][:, alive].std(ddof=1))
    return float(marginal.sd[alive][0]) / math.sqrt(marginal.draws) if count and marginal.draws else None
