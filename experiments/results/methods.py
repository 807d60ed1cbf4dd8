"""Figures of a sweep whose jobs solve one problem by several methods: estimates, bounds, averages of epochs, paths."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vi_core.models.base import HasFisher
from vi_core.problem import default_dtype
from vi_core.storage.archive import read_archive
from vi_core.training.history import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from vi_core.plots.methods import Landscape

Traced = tuple[dict[str, Any], History]  # summary of a job with its folder, and what it recorded
MOST = 4  # quantities in one figure
MOST_GROUPS = 7  # as there are colours
GRID = 120  # points of each axis of a likelihood
MARKED = (0, 15, 30, 75, 150)  # steps at which the Fisher metric is drawn


def figures(
    groups: Mapping[str, Sequence[Traced]], *, title: str, by: str, first: int | None, smoothing: int
) -> dict[str, "Figure"]:
    """Return the figures that apply to jobs in groups, by name.

    Args:
        groups: Jobs by label; each group has one or more.
        title: Of the figures.
        by: The setting that the groups differ in.
        first: The step at which a linear axis of the beginning ends; None for none.
        smoothing: Window of moving averages, in steps.
    """
    jobs = [job for group in groups.values() for job, _ in group]
    if not 2 <= len(groups) <= MOST_GROUPS:
        return {}
    leading = {label: group[0] for label, group in groups.items()}
    found = _records(leading, title=title, by=by, smoothing=smoothing)
    if len({(job["data"]["checksum"], tuple(job["estimates"])) for job in jobs}) > 1:
        return found
    if jobs[0]["estimates"]:
        found["methods"] = _methods(leading, title=title, by=by, first=first)
    if (land := landscape(leading)) is not None:
        found["paths"] = _paths(land, leading, title=title)
    return found | _bounds(groups, leading, title=title, by=by)


def _records(leading: Mapping[str, Traced], *, title: str, by: str, smoothing: int) -> dict[str, "Figure"]:
    """Draw the bound of the first replicate of each group as it was recorded; {} for bounds without noise."""
    from vi_core.plots.drawing.panels import ascends
    from vi_core.plots.trajectories import records_figure

    bounds = {label: (trace.step, trace.columns[trace.bound][:, 0]) for label, (_, trace) in leading.items()}
    usable = all(len(step) > 1 and np.isfinite(values).all() for step, values in bounds.values())
    noisy = usable and not all(ascends(values[:, None]) for _, values in bounds.values())
    if not noisy or len(bounds) > MOST:
        return {}
    runs = {f"{by} = {label}": bound for label, bound in bounds.items()}
    windows = {label: max(1, smoothing // int(step[1] - step[0])) for label, (step, _) in runs.items()}
    job, trace = next(iter(leading.values()))
    per = f" per {job['objective']['per']}" if job["objective"]["per"] else ""
    return {"records": records_figure(runs, name=f"{trace.bound.upper()}{per} (nats)", windows=windows, title=title)}


def _methods(leading: Mapping[str, Traced], *, title: str, by: str, first: int | None) -> "Figure":
    """Draw expectations of the leading job of each group, and its bound, or what is minimised where that is a NLL."""
    from vi_core.plots.methods import methods_figure

    job, history = next(iter(leading.values()))
    expectations, sign, bound = list(history.expectations())[: MOST - 1], 1.0, history.bound.upper()
    if maximises_likelihood(job):
        sign, bound = -1.0, "NLL per point"
    series = {
        f"E[{name}]": {label: (trace.step, trace.expectations()[name]) for label, (_, trace) in leading.items()}
        for name in expectations
    }
    series[bound] = {label: (trace.step, sign * trace.columns[trace.bound]) for label, (_, trace) in leading.items()}
    known = {
        f"E[{name}]": {
            word: row[key] for key, word in (("exact", "exact"), ("truth", "true")) if row.get(key) is not None
        }
        for name, row in job["estimates"].items()
    }
    return methods_figure(series, known=known, first=first, title=title, legend_title=by)


def maximises_likelihood(job: Mapping[str, Any]) -> bool:
    """Whether a job has point estimates, under the flat prior that the models of this program have for them."""
    return job["final"]["log_evidence"] is None and not any(row.get("sd") for row in job["estimates"].values())


def _bounds(
    groups: Mapping[str, Sequence[Traced]], leading: Mapping[str, Traced], *, title: str, by: str
) -> dict[str, "Figure"]:
    """Return the figures of bounds without noise, and of averages over epochs."""
    from vi_core.plots.drawing.panels import ascends
    from vi_core.plots.methods import shortfall_figure
    from vi_core.plots.trajectories import epochs_figure

    found, (job, history) = {}, next(iter(leading.values()))
    bounds = {label: (trace.step, trace.columns[trace.bound]) for label, (_, trace) in leading.items()}
    per = f" per {job['objective']['per']}" if job["objective"]["per"] else ""
    if not per and all(ascends(values) for _, values in bounds.values()):
        quantity = "log-likelihood" if job["estimates"] and maximises_likelihood(job) else history.bound.upper()
        name = f"{quantity}{per} (nats)"
        found["convergence"] = shortfall_figure(bounds, name=name, title=title, legend_title=by)
    if all(job["epoch_bound"] for group in groups.values() for job, _ in group):
        epochs = {}
        for label, group in groups.items():
            averages = [job["epoch_bound"] for job, _ in group]
            epochs[label] = np.array([row[: min(map(len, averages))] for row in averages]).T
        found["epochs"] = epochs_figure(epochs, name=f"training bound{per} (nats)", title=title, legend_title=by)
    return found


def landscape(leading: Mapping[str, Traced]) -> "Landscape | None":
    """Evaluate the likelihood of two parameters around the paths, and its Fisher information on one of them."""
    from vi_core.plots.methods import Landscape

    job, history = next(iter(leading.values()))
    names = list(history.expectations())
    if len(names) != 2 or not maximises_likelihood(job):
        return None
    archive = read_archive(job["folder"])
    x, model, start = archive.problem.batches.exact, archive.problem.model, archive.config["family"].get("values")
    if not isinstance(model, HasFisher) or start is None:
        return None
    start = np.array(start, dtype=float)

    def log_likelihood(points: Tensor) -> Tensor:
        return model.log_joint({name: points[..., i, None] for i, name in enumerate(names)}, x).squeeze(-1)

    with default_dtype(torch.float64):
        every = np.concatenate([start[None], *(_path(trace, names) for _, trace in leading.values())])
        low, high = every.min(axis=0), every.max(axis=0)
        margin = 0.12 * (high - low)
        axes = [np.linspace(max(a, 0.02 * b), b, GRID) for a, b in zip(low - margin, high + margin, strict=True)]
        grid = torch.from_numpy(np.stack(np.meshgrid(*axes), axis=-1))
        values = log_likelihood(grid.reshape(-1, 1, 2)).reshape(GRID, GRID).numpy()
        centre = torch.from_numpy(start).reshape(1, 1, 2).requires_grad_()
        (slope,) = torch.autograd.grad(log_likelihood(centre).sum(), centre)
        path = np.concatenate([start[None], _path(list(leading.values())[-1][1], names)])
        points = path[[step for step in MARKED if step < len(path)]]
        matrices = model.fisher({name: torch.from_numpy(points[:, i]) for i, name in enumerate(names)}, x).numpy()
    gradient = slope.flatten().numpy()
    first = {"gradient": gradient, "F⁻¹ gradient": np.linalg.solve(matrices[0], gradient)}
    top = float(values.max())
    pair = (names[0], names[1])
    return Landscape(axes[0], axes[1], values - top, pair, start, first, points, matrices)


def _path(trace: History, names: Sequence[str]) -> np.ndarray:
    """Return the points (T, 2) of the first replicate."""
    return np.stack([trace.expectations()[name][:, 0] for name in names], axis=1)


def _paths(land: "Landscape", leading: Mapping[str, Traced], *, title: str) -> "Figure":
    from vi_core.plots.methods import paths_figure

    job, _ = next(iter(leading.values()))
    exact = [job["estimates"][name].get("exact") for name in land.names]
    optimum = None if None in exact else (exact[0], exact[1])
    return paths_figure(land, {k: _path(t, land.names) for k, (_, t) in leading.items()}, optimum=optimum, title=title)
