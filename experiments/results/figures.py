"""From what a run wrote to its figures."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from vi_core.models.base import HasPredictive, Model
from vi_core.plots.bound import bound_figure
from vi_core.plots.counts import counts_figure
from vi_core.plots.denoising import reverse_figure, terms_figure
from vi_core.plots.density import density_figure
from vi_core.plots.drawing.save import save
from vi_core.plots.images import image_figure, noise_figure
from vi_core.plots.map import map_figure
from vi_core.plots.trajectories import trajectories_figure
from vi_core.training.history import History

from .mixtures import Scene

GRID = 400
MOST_PANELS = 12
"""Trajectories in one figure; the trace has them all."""


@dataclass(frozen=True)
class Finished:
    """What figures are drawn from, in memory or read back from a run's folder."""

    summary: dict[str, Any]
    trace: History
    samples: dict[str, np.ndarray]
    data: np.ndarray | None
    """(N,) univariate data, else None."""
    model: Model
    scene: Scene | None = None
    """Of a mixture of places and counts."""


def draw(run: Finished, folder: Path, plot: Any) -> list[Path]:
    """Write every figure that applies to `folder`; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    return [save(figure, folder / f"{name}.{plot.format}") for name, figure in figures(run, plot.smoothing)]


def figures(run: Finished, smoothing: int) -> Iterator[tuple[str, Figure]]:
    """Yield (name, figure) for every kind of figure that applies to the run."""
    title = f"{run.summary['experiment']} — {run.summary['subtitle']}"
    yield "bound", _bound(run, smoothing, title)
    expectations = run.trace.expectations()
    parameters = {name: values for name, values in run.trace.columns.items() if "." in name}
    if expectations:
        yield "expectations", _trajectories(run, {f"E[{name}]": values for name, values in expectations.items()}, title)
    if parameters:
        yield "parameters", _trajectories(run, parameters, title)
    if run.data is not None and isinstance(run.model, HasPredictive) and expectations:
        yield "density", _density(run, run.data, run.model, title)
    if run.scene is not None:
        yield "map", _map(run.scene, title)
        yield "counts", _counts(run.scene, title)
    if "reconstruction" in run.samples:
        rows = {"test image": run.samples["test"], "reconstruction": run.samples["reconstruction"]}
        yield "reconstructions", image_figure(rows, title=title)
        yield (
            "generated",
            noise_figure(run.samples["generated"], title=f"{run.summary['experiment']}: images from noise"),
        )
    if "denoising" in run.summary["diagnostics"]:
        yield "terms", _terms(run, title)
    if "reverse" in run.samples:
        yield from _generated(run)


def _terms(run: Finished, title: str) -> Figure:
    found = run.summary["diagnostics"]["denoising"]
    columns = (np.array(found["by_step"][name], dtype=float) for name in ("nats", "se", "affine"))
    size = math.prod(run.samples["generated"].shape[1:])
    return terms_figure(*columns, size=size, units=found["units"], title=title)


def _generated(run: Finished) -> Iterator[tuple[str, Figure]]:
    """Images or points of the plane that a diffusion model generated, and the states on their way."""
    frames, steps, name = run.samples["reverse"], run.samples["reverse_t"].tolist(), run.summary["experiment"]
    if frames.ndim == 4:
        rows = {f"t = {step}": images for step, images in zip(steps, frames, strict=True)}
        yield "reverse", image_figure({**rows, "held out": run.samples["data"]}, title=f"{name}: from noise to images")
        yield "generated", noise_figure(run.samples["generated"], title=f"{name}: images from noise")
    elif frames.shape[-1] == 2:
        yield "reverse", reverse_figure(frames, steps, run.samples["data"], title=f"{name}: from noise to data")


def references(summary: dict[str, Any]) -> dict[str, float]:
    """Return the horizontal lines that the bound is measured against."""
    evidence = summary["final"]["log_evidence"]
    return {} if evidence is None else {"log evidence": evidence}


def _bound(run: Finished, smoothing: int, title: str) -> Figure:
    step, values = run.trace.step, run.trace.columns[run.trace.bound]
    interval = int(step[1] - step[0]) if len(step) > 1 else 1
    held_out = run.trace.columns.get("held_out")
    points = None
    if held_out is not None:
        seen = np.isfinite(held_out).any(axis=1)
        points = (step[seen], held_out[seen])
    per = run.summary["objective"]["per"]
    name = run.trace.bound.upper() + (f" per {per} (nats)" if per else " (nats)")
    window = max(1, smoothing // interval)
    return bound_figure(
        step, values, name=name, window=window, references=references(run.summary), title=title, held_out=points
    )


def _trajectories(run: Finished, series: dict[str, np.ndarray], title: str) -> Figure:
    rows, best = run.summary["estimates"], run.summary["best_replicate"]
    if best is not None:  # restarts number their components each in its own way
        series = {name: values[:, best : best + 1] for name, values in series.items()}
    if len(series) > MOST_PANELS:
        title += f" (the first {MOST_PANELS} of {len(series)})"
        series = dict(itertools.islice(series.items(), MOST_PANELS))
    truth = {f"E[{name}]": row["truth"] for name, row in rows.items() if row["truth"] is not None}
    exact = {f"E[{name}]": row["exact"] for name, row in rows.items() if row["exact"] is not None}
    return trajectories_figure(run.trace.step, series, truth=truth, exact=exact, title=title)


def _map(scene: Scene, title: str) -> Figure:
    horizontal, vertical = scene.columns[:2] or ("horizontal", "vertical")
    return map_figure(
        scene.points,
        scene.shares,
        scene.centres,
        scene.deviations,
        spread=scene.spread,
        xlabel=horizontal,
        ylabel=vertical,
        title=title,
    )


def _counts(scene: Scene, title: str) -> Figure:
    name = scene.columns[2] if scene.columns else "strength"
    return counts_figure(scene.counts, scene.probabilities, scene.misfit, xlabel=name, title=title)


def _density(run: Finished, data: np.ndarray, model: HasPredictive, title: str) -> Figure:
    """The posterior predictive density of each replicate: p(x | z) averaged over draws z ~ q."""
    margin = 0.1 * float(np.ptp(data))
    grid = np.linspace(data.min() - margin, data.max() + margin, GRID)
    points = torch.from_numpy(grid)
    fitted = model.log_density(points, {name: torch.from_numpy(draws) for name, draws in run.samples.items()})
    curves = {"posterior predictive": fitted.exp().mean(dim=2).numpy()}
    truth = {name: row["truth"] for name, row in run.summary["estimates"].items()}
    if all(value is not None for value in truth.values()):
        generating = model.log_density(points, {name: torch.tensor(value) for name, value in truth.items()})
        curves["generating density"] = generating.exp().numpy()
    return density_figure(data, grid, curves, title=title)
