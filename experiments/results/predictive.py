"""Observed data beside replicated ones, of models of prior and likelihood: arrays of the predictive figures."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from vi_core.models.base import Model
from vi_core.models.bayesian.base import BayesianModel, Values
from vi_core.problem import Problem, default_dtype

SETS = 100  # replicated data sets
MOST_POINTS = 5_000  # of a replicated set
Pair = tuple[np.ndarray, np.ndarray]  # observed (N,), replicated (S, N)


def replicated(model: Model, data: object, draws: Mapping[str, Tensor], sets: int = SETS) -> dict[str, Pair]:
    """Return observed and replicated numbers by name; {} for other models, and without one number for each point.

    Args:
        model: The model.
        data: All data as the model sees them.
        draws: Values of latents, (S, *event); other names are ignored.
        sets: How many of them are used, the first ones.
    """
    if not isinstance(model, BayesianModel) or not isinstance(data, dict):
        return {}
    rows = shortened(data, model.num_points) if model.has_points else data
    chosen = {name: draws[name][:sets] for name in model.latents}
    names = [name for name in sorted(model.observables) if rows[name].dim() == 1]
    found = model.predictive(chosen, rows) if names else {}
    return {name: (_host(rows[name]), _host(found[name])) for name in names}


def shortened(data: Values, num_points: int) -> Values:
    """Return the first `MOST_POINTS` rows of columns, and constants as they are."""
    return {n: v[:MOST_POINTS] if v.dim() and len(v) == num_points else v for n, v in data.items()}


def replicated_by_fit(
    problem: Problem, samples: Mapping[str, np.ndarray], bounds: Sequence[float | None]
) -> dict[str, Pair]:
    """Return what `replicated` does for draws (R, S, *event) of the q with the highest bound; equal calls draw equally.

    Args:
        problem: The fitted problem.
        samples: Content of samples.npz.
        bounds: Final bound of each replicate; None or NaN where it diverged.
    """
    values = np.array(bounds, dtype=float)
    if not isinstance(problem.model, BayesianModel) or not np.isfinite(values).any():
        return {}
    train, best = problem.data.train, int(np.nanargmax(values))
    dtype = train.dtype if train.is_floating_point() else torch.get_default_dtype()
    with torch.random.fork_rng(), default_dtype(dtype):
        torch.manual_seed(0)
        draws = {name: torch.from_numpy(samples[name][best]).to(train.device) for name in problem.model.latents}
        return replicated(problem.model, problem.batches.whole(problem.model), draws)


def _host(value: Tensor) -> np.ndarray:
    return value.cpu().double().numpy()
