"""Densities of q beside the exact posterior: arrays and figure of a run, and of the jobs of a sweep side by side."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vi_core.diagnostics.densities import Densities, densities
from vi_core.problem import Problem, default_dtype
from vi_core.storage.archive import Archive, read_archive

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_JOBS = 7  # of a sweep that stand in one figure


def posterior(problem: Problem, alive: np.ndarray) -> Densities | None:
    """Return the densities of a fitted problem; equal calls draw equally, and leave every random stream as it was."""
    batches = problem.batches
    with torch.random.fork_rng(), default_dtype(problem.step.witness.dtype):
        torch.manual_seed(0)
        return densities(problem.model, problem.family, batches.whole(problem.model), batches.exact, alive)


def figure(found: Mapping[str, Densities], estimates: Mapping[str, Any] | None, title: str) -> "Figure":
    """Draw densities by label of the fit; `estimates` of a single one say how wide it is."""
    from vi_core.plots.marginals import marginals_figure

    first = next(iter(found.values()))
    marginals: dict[str, Any] = {}
    for name in first.curves:
        curve = max((each.curves[name] for each in found.values()), key=lambda one: float(np.ptp(one.grid)))
        fitted = {label: (each.curves[name].grid, each.curves[name].q) for label, each in found.items()}
        marginals[name] = (fitted, None if curve.exact is None else (curve.grid, curve.exact))
    joint = None
    if first.plane is not None:
        planes = {label: each.plane[1:4] for label, each in found.items() if each.plane is not None}
        joint = (planes, first.plane.exact)
    return marginals_figure(marginals, notes=widths(estimates or {}), joint=joint, title=title)


def widths(estimates: Mapping[str, Any]) -> dict[str, str]:
    """Return by scalar how wide q is beside the exact posterior, where both deviations are known."""
    pairs = {name: (row.get("sd"), row.get("exact_sd")) for name, row in estimates.items()}
    return {name: f"sd of q / exact sd = {sd / exact:.3f}" for name, (sd, exact) in pairs.items() if sd and exact}


def beside(groups: Mapping[str, list[Path]], title: str) -> "Figure | None":
    """Return the figure of one job of each group, where all have one exact posterior; else None."""
    if not 2 <= len(groups) <= MOST_JOBS:
        return None
    archives = {label: read_archive(folders[0]) for label, folders in groups.items()}
    exact = [answers(archive) for archive in archives.values()]
    if not exact[0] or any(other != exact[0] for other in exact):
        return None
    found = {label: posterior(each.problem, each.alive) for label, each in archives.items()}
    kept = {label: each for label, each in found.items() if each is not None}
    return figure(kept, None, title) if kept else None


def answers(archive: Archive) -> dict[str, Any]:
    """Return the exact deviations of a run's scalars, where they are known."""
    rows = archive.summary["estimates"]
    return {name: row["exact_sd"] for name, row in rows.items() if row.get("exact_sd") is not None}
