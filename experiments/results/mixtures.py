"""Results that only mixtures have: entries `recovery` and `misfit` of summary.json, and the arrays of their figures.

Components have no order of their own, so the generating values are renumbered before they are compared with estimates.
Everything here is about one replicate, the best.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from vi_core.diagnostics.clustering import adjusted_rand_index, renumbering
from vi_core.models.base import HasAssignments, HasCounts
from vi_core.problem import Problem

SCORED = 100_000  # points whose responsibilities are in memory at once
SHOWN = 5_000  # largest number of points of a map


@dataclass(frozen=True)
class Scene:
    """Arrays that the figures of a mixture of places and counts are drawn from.

    Attributes:
        points: Places, (B, 2).
        shares: Responsibilities of the components for them, (B, K).
        centres: Posterior means of the components' centres, (K, 2).
        deviations: Posterior standard deviations of the centres, (K, 2).
        spread: Standard deviation of a place around its centre.
        counts: Observed counts, (N,).
        probabilities: Posterior predictive of the counts 0, ..., G − 1, (G,).
        misfit: Statistics of observed and predicted counts.
        columns: Names of the two coordinates and of the count; empty where they have none.
    """

    points: ndarray
    shares: ndarray
    centres: ndarray
    deviations: ndarray
    spread: float
    counts: ndarray
    probabilities: ndarray
    misfit: dict[str, float]
    columns: tuple[str, ...]


def best_replicate(values: ndarray, kept: ndarray) -> int:
    """Return the number of the replicate with the highest final bound, (R,), among those that are `kept`, (R,)."""
    return int(np.where(kept, values, -np.inf).argmax())


def moments(problem: Problem, replicate: int) -> dict[str, tuple[ndarray, ndarray]]:
    """Return posterior mean and deviation by latent, each (*event), of one replicate."""
    with torch.no_grad():
        found = problem.family.distribution(problem.family.variational()).moments()
    return {name: (_host(mean[replicate, 0]), _host(std[replicate, 0])) for name, (mean, std) in found.items()}


def _host(value: Tensor) -> ndarray:
    return value.detach().cpu().numpy()


def renumbered_truth(problem: Problem, replicate: int) -> dict[str, float]:
    """Return the generating values by name, those of a mixture in the numbering of a replicate's q.

    They are {} where the data have no truth, or another number of components than the model.
    """
    truth = problem.data.truth
    if not isinstance(problem.model, HasAssignments) or not truth:
        return truth
    means = {name: mean.reshape(len(mean), -1) for name, (mean, _) in moments(problem, replicate).items()}
    names = {name: [f"{name}[{i}]" for i in range(mean.size)] for name, mean in means.items()}
    if set(truth) != {name for group in names.values() for name in group}:
        return {}  # another number of components than the data have
    true = {name: np.array([truth[key] for key in names[name]]).reshape(mean.shape) for name, mean in means.items()}
    order = renumbering(*(np.concatenate([*group.values()], axis=1) for group in (means, true)))
    return {key: float(value) for name in names for key, value in zip(names[name], true[name][order].flat, strict=True)}


def responsibilities(problem: Problem, points: Tensor, replicate: int) -> ndarray:
    """Return the components' responsibilities for stored `points` (B, 3) under a replicate's q, (B, K)."""
    assert isinstance(problem.model, HasAssignments)
    with torch.no_grad():
        shares = problem.model.responsibilities(problem.family.variational(), points, problem.batches.full)
    return shares[replicate].cpu().numpy()


def recovery(problem: Problem, replicate: int) -> dict[str, float]:
    """Return the entry `recovery`: how well labels and parameters of the true mixture were found; {} if unknown."""
    data = problem.data
    if not isinstance(problem.model, HasAssignments) or data.labels is None:
        return {}
    pieces = data.train.split(SCORED)
    labels = np.concatenate([responsibilities(problem, points, replicate).argmax(axis=1) for points in pieces])
    found = {"adjusted_rand_index": adjusted_rand_index(labels, data.labels.cpu().numpy())}
    truth = renumbered_truth(problem, replicate)
    if truth:
        errors = []
        for name, (mean, std) in moments(problem, replicate).items():
            true = np.array([truth[f"{name}[{i}]"] for i in range(mean.size)])
            errors.append(np.abs(mean.ravel() - true) / std.ravel())
        found["largest_error_in_deviations"] = float(np.concatenate(errors).max())
    return found


def misfit(problem: Problem, replicate: int) -> dict[str, float]:
    """Return the entry `misfit`: the model's statistics of observed against predicted counts; {} for other models."""
    if not isinstance(problem.model, HasCounts):
        return {}
    with torch.no_grad():
        found = problem.model.misfit(problem.family.variational(), problem.batches.full)
    return {name: float(value[replicate]) for name, value in found.items()}


def scene(problem: Problem, replicate: int) -> Scene | None:
    """Return the arrays of the map and of the figure of counts; None for other models."""
    if not isinstance(problem.model, HasCounts) or not isinstance(problem.model, HasAssignments):
        return None
    train = problem.data.train
    shown = train[:: max(1, len(train) // SHOWN)][:SHOWN]
    centres, deviations = moments(problem, replicate)["epicentre"]
    grid = torch.arange(int(train[:, 2].max()) + 1, dtype=train.dtype, device=train.device)
    with torch.no_grad():
        mass = problem.model.count_probabilities(problem.family.variational(), grid)[replicate]
    return Scene(
        points=shown[:, :2].cpu().numpy(),
        shares=responsibilities(problem, shown, replicate),
        centres=centres,
        deviations=deviations,
        spread=float(problem.model.place_scale()[replicate]),
        counts=train[:, 2].cpu().numpy(),
        probabilities=mass.cpu().numpy(),
        misfit=misfit(problem, replicate),
        columns=problem.data.columns,
    )
