"""What a run reports of a mixture: the truth in the numbering of q, recovered labels, the misfit of counts, the map.

Components have no order of their own, so the truth is renumbered before it stands beside an estimate. Everything here
is of one replicate, the best.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy import ndarray

from vi_core.diagnostics.clustering import adjusted_rand_index, renumbering
from vi_core.models.mixtures.protocols import HasAssignments, HasCounts
from vi_core.problem import Problem

SCORED = 100_000
"""Points whose responsibilities are held at once."""
SHOWN = 5_000
"""Points of a map."""


@dataclass(frozen=True)
class Scene:
    """A mixture of places and counts as its figures need it."""

    points: ndarray
    """(B, 2)"""
    shares: ndarray
    """(B, K), responsibilities."""
    centres: ndarray
    """(K, 2)"""
    deviations: ndarray
    """(K, 2), posterior standard deviations of the centres."""
    spread: float
    """Standard deviation of a place around its centre."""
    counts: ndarray
    """(N,)"""
    probabilities: ndarray
    """(G,), posterior predictive of the counts 0, ..., G − 1."""
    misfit: dict[str, float]
    columns: tuple[str, ...]


def best_replicate(values: ndarray, kept: ndarray) -> int:
    """Return the kept replicate with the highest final bound."""
    return int(np.where(kept, values, -np.inf).argmax())


def moments(problem: Problem, replicate: int) -> dict[str, tuple[ndarray, ndarray]]:
    """Return posterior mean and deviation by latent, each (*event), of one replicate."""
    with torch.no_grad():
        found = problem.family.distribution(problem.family.variational()).moments()
    return {
        name: (mean[replicate, 0].detach().cpu().numpy(), std[replicate, 0].detach().cpu().numpy())
        for name, (mean, std) in found.items()
    }


def renumbered_truth(problem: Problem, replicate: int) -> dict[str, float]:
    """Return the generating values by name, those of a mixture in the numbering of a replicate's q."""
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


def responsibilities(problem: Problem, points: torch.Tensor, replicate: int) -> ndarray:
    """Return (B, K) of stored `points` under a replicate's q."""
    assert isinstance(problem.model, HasAssignments)
    with torch.no_grad():
        shares = problem.model.responsibilities(problem.family.variational(), points, problem.batches.full)
    return shares[replicate].cpu().numpy()


def recovery(problem: Problem, replicate: int) -> dict[str, float]:
    """Return how well the generating mixture was found, {} where it is not known."""
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
    """Return the model's own statistics of observed against predicted counts, {} where it has none."""
    if not isinstance(problem.model, HasCounts):
        return {}
    with torch.no_grad():
        found = problem.model.misfit(problem.family.variational(), problem.batches.full)
    return {name: float(value[replicate]) for name, value in found.items()}


def scene(problem: Problem, replicate: int) -> Scene | None:
    """Return what the map and the counts' figure are drawn from, None for other models."""
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
