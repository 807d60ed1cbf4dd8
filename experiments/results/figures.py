"""Figures of a run: which kinds apply to its model and data, and what each is drawn from.

`task=plot run=<folder>` draws those of a finished run, study or benchmark again, from its files.
"""

import itertools
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from omegaconf import DictConfig

from vi_core.diagnostics.densities import Densities
from vi_core.diagnostics.network import markov_blanket
from vi_core.models.base import HasPredictive, Model, Network
from vi_core.plots.density import counts_figure, density_figure, map_figure
from vi_core.plots.images import image_figure, noise_figure, plane_figure, reverse_figure, terms_figure
from vi_core.plots.network import network_figure
from vi_core.plots.predictive import predictive_figure
from vi_core.plots.trajectories import bound_figure, epochs_figure, trajectories_figure
from vi_core.problem import Problem
from vi_core.schema import Config, construct
from vi_core.storage.archive import read_archive, read_run
from vi_core.storage.arrays import Arrays, read_arrays
from vi_core.storage.reading import damaged
from vi_core.training.history import History

from ..config.places import benchmark_module
from . import posteriors
from .drawing import write
from .latents import Plane, plane
from .mixtures import Scene, scene
from .predictive import Pair, replicated_by_fit
from .summary import network_of, results_of

log = logging.getLogger(__name__)
IMAGES = {
    "test",
    "reconstruction",
    "generated",
    "grey",
    "interpolation",
    "data",
}  # arrays whose elements are like data points
GRID = 400  # points at which densities are drawn
INTERPOLATED = 3  # pairs of images, each with a row
MOST_PANELS = 12  # trajectories in one figure; trace.csv has them all


@dataclass(frozen=True)
class Finished:
    """A finished run, in memory or read back from its folder.

    Attributes:
        summary: Content of summary.json.
        trace: The run's history.
        samples: Content of samples.npz.
        data: Univariate data, (N,), or None for others.
        model: The fitted model, on the CPU.
        scene: Arrays of a mixture of places and counts, or None for other models.
        predictive: Observed and replicated data by name, of a model of prior and likelihood.
        posterior: Densities of q and of the exact posterior, or None where there are none.
        network: The model's Bayesian network, where it is to be drawn.
        latents: Images in the plane of two latents, of an autoencoder whose data have classes.
        steps_per_epoch: How many steps see all data once.
    """

    summary: dict[str, Any]
    trace: History
    samples: dict[str, np.ndarray]
    data: np.ndarray | None
    model: Model
    scene: Scene | None = None
    predictive: dict[str, Pair] = field(default_factory=dict)
    posterior: Densities | None = None
    network: Network | None = None
    latents: Plane | None = None
    steps_per_epoch: int = 1

    @classmethod
    def of(
        cls,
        problem: Problem,
        dataset: Config,
        summary: dict[str, Any],
        trace: History,
        samples: dict[str, np.ndarray],
        with_network: bool,
    ) -> "Finished":
        """Return what the figures of a trained problem need; `dataset` are the settings of its data."""
        train = problem.data.train
        kept, best = results_of(problem, problem.step.alive.cpu().numpy())
        return cls(
            summary,
            trace,
            samples,
            data=train.cpu().double().numpy() if train.dim() == 1 else None,
            scene=scene(problem, best),
            predictive=replicated_by_fit(problem, samples, summary["final"]["values"]),
            posterior=posteriors.posterior(problem, kept),
            network=network_of(problem) if with_network else None,
            latents=plane(problem, construct(dataset, "dataset")),
            steps_per_epoch=problem.batches.steps_per_epoch,
            model=problem.model.cpu(),
        )


def run(cfg: DictConfig, folder: Path) -> None:
    """Redraw the figures of the run in `folder` with the plot settings of `cfg`.

    Raises:
        DataError: Where the folder is not that of a finished run, or a file in it is damaged.
    """
    config, _ = read_run(folder)
    if config.get("benchmark") is not None:
        paths = benchmark_module("task").redraw(cfg, folder)
    elif config.get("study") is not None:
        from ..run.study import redraw as redraw_study

        paths = redraw_study(cfg, folder, config)
    else:
        paths = redraw_fit(cfg, folder)
    for path in paths:
        log.info("figure  %s", path)


def redraw_fit(cfg: DictConfig, folder: Path) -> list[Path]:
    """Redraw the figures of a fit, from its checkpoint, trace.csv and samples.npz; return their paths."""
    archived = read_archive(folder)
    samples = read_arrays(folder / "samples.npz")
    check_samples(samples, archived.problem, folder / "samples.npz")
    dataset, network = archived.config["dataset"], cfg.plot.network
    finished = Finished.of(archived.problem, dataset, archived.summary, archived.trace, samples, network)
    return draw(finished, folder / "plots", cfg.plot)


def check_samples(samples: Arrays, problem: Problem, path: Path) -> None:
    """Raise `DataError` unless the draws have the shapes that figures rely on.

    Those of latents that all data share are (R, draws, *event), images (N, rows, columns) or (N, rows, columns, 3), and
    the states of a diffusion model (steps, N, *event).
    """
    latents = {} if problem.model.has_local else problem.model.latents
    shapes = {name: samples[name].shape for name in latents} | {name: array.shape for name, array in samples.items()}
    event, images = problem.data.image_shape or problem.data.train.shape[1:], samples.keys() & IMAGES - latents.keys()
    fits = {
        name: len(shapes[name]) > 1 and shapes[name] == (problem.family.replicates, shapes[name][1], *latent.shape)
        for name, latent in latents.items()
    }
    fits |= {name: shapes[name][1:] == tuple(event) for name in images}
    if "reverse" in samples:
        steps = samples["reverse_t"].shape
        fits["reverse"] = shapes["reverse"][:1] == steps and shapes["reverse"][2:] == tuple(event) and len(steps) == 1
    wrong = [name for name, fit in fits.items() if not fit]
    if wrong:
        raise damaged(path, f"the shape of '{wrong[0]}' is {shapes[wrong[0]]}, which is not that of this run's")


def draw(run: Finished, folder: Path, plot: Any) -> list[Path]:
    """Write every figure that applies to the run into `folder`, with the settings `plot`; return their paths."""
    return write(figures(run, plot.smoothing, plot.blanket), folder, plot)


def figures(run: Finished, smoothing: int, blanket: str | None = None) -> Iterator[tuple[str, Figure]]:
    """Yield (name, figure) for every kind of figure that applies to the run.

    Args:
        run: Its arrays are on the host.
        smoothing: Window of the moving average of the bound, in steps.
        blanket: Node whose Markov blanket is marked in the network; None for the first latent.
    """
    title = f"{run.summary['experiment']} — {run.summary['subtitle']}"
    yield "bound", _bound(run, smoothing, title)
    if run.summary["epoch_bound"]:
        yield "epochs", _epochs(run, title)
    expectations = run.trace.expectations()
    parameters = {name: values for name, values in run.trace.columns.items() if "." in name}
    if expectations:
        yield "expectations", _trajectories(run, {f"E[{name}]": values for name, values in expectations.items()}, title)
    if parameters:
        yield "parameters", _trajectories(run, parameters, title)
    if run.posterior is not None:
        yield "posterior", posteriors.figure({"q": run.posterior}, run.summary["estimates"], title)
    if run.data is not None and isinstance(run.model, HasPredictive) and expectations:
        yield "density", _density(run, run.data, run.model, title)
    if run.predictive:
        yield "predictive", predictive_figure(run.predictive, title=f"{title}, replicated data")
    if run.scene is not None:
        yield "map", _map(run.scene, title)
        yield "counts", _counts(run.scene, title)
    if run.network is not None:
        yield "network", _network(run.network, blanket, run.summary["experiment"])
    if "reconstruction" in run.samples:
        yield "reconstructions", image_figure(_reconstructions(run.samples), title=title)
        yield "generated", _images_from_noise(run)
        if "interpolation" in run.samples:
            title = f"{run.summary['experiment']}: from one test image to another, linearly in z"
            images = run.samples["interpolation"]
            yield "interpolation", noise_figure(images, columns=len(images) // INTERPOLATED, title=title)
    if run.latents is not None:
        yield "latents", _latents(run.latents, run.summary["experiment"])
    if "denoising" in run.summary["diagnostics"]:
        yield "terms", _terms(run, title)
    if "reverse" in run.samples:
        yield from _generated(run)


def _network(found: Network, blanket: str | None, name: str) -> Figure:
    """Draw the Bayesian network of the model, with one Markov blanket: that of the first latent for an unknown node."""
    chosen = next((node for node in found.parents if node not in found.observed), "")
    if blanket in found.parents:
        chosen = blanket
    elif blanket is not None:
        log.warning("plot.blanket=%s is no node of the network; these are %s", blanket, ", ".join(found.parents))
    marked = markov_blanket(found.parents, chosen)
    edges: dict[str, Any] = {key: getattr(found, key) for key in ("observed", "plates", "dotted", "back")}
    return network_figure(found.parents, chosen=chosen, blanket=marked, title=f"{name}: the model", **edges)


def _terms(run: Finished, title: str) -> Figure:
    """Draw the terms L_t of a diffusion model's bound over the steps t, in nats or in bits per dimension."""
    found = run.summary["diagnostics"]["denoising"]
    columns = (np.array(found["by_step"][name], dtype=float) for name in ("nats", "se", "affine"))
    size = math.prod(run.samples["generated"].shape[1:])
    return terms_figure(*columns, size=size, units=found["units"], title=title)


def _generated(run: Finished) -> Iterator[tuple[str, Figure]]:
    """Yield the figures of images or points of the plane that a diffusion model generated, with intermediate states."""
    frames, steps, name = run.samples["reverse"], run.samples["reverse_t"].tolist(), run.summary["experiment"]
    if frames.ndim > 3:
        rows = {f"t = {step}": images for step, images in zip(steps, frames, strict=True)}
        yield "reverse", image_figure({**rows, "held out": run.samples["data"]}, title=f"{name}: from noise to images")
        yield "generated", _images_from_noise(run)
    elif frames.shape[-1] == 2:
        yield "reverse", reverse_figure(frames, steps, run.samples["data"], title=f"{name}: from noise to data")


def _reconstructions(samples: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return rows of images: as stored, and as seen where that differs, their reconstructions, and samples."""
    seen, generated = samples["test"], samples["generated"]
    grey = samples.get("grey", seen)
    rows = {"test image": seen} if np.allclose(grey, seen) else {"test image": grey, "as seen, 0 or 1": seen}
    rows |= {"reconstruction, mean": samples["reconstruction"], "from noise, mean": generated}
    return rows | ({"from noise, rounded": generated.round()} if len(rows) == 4 else {})


def _images_from_noise(run: Finished) -> Figure:
    return noise_figure(run.samples["generated"], title=f"{run.summary['experiment']}: images from noise, pixel means")


def _latents(found: Plane, name: str) -> Figure:
    which = "" if found.total == 2 else f", the two of {found.total} latents whose means vary most"
    images = f"{len(found.points):,} {'test' if found.held_out else 'training'} images"
    title = f"{name}: posterior means of {images}{which}"
    first, second = (f"posterior mean of {latent}" for latent in found.names)
    return plane_figure(found.points, found.classes, labels=(first, second), title=title)


def _epochs(run: Finished, title: str) -> Figure:
    """Draw the averages over epochs, and held-out values at the ends of those that were evaluated."""
    averages, held_out = np.array(run.summary["epoch_bound"]), run.trace.columns.get("held_out")
    points = None
    if held_out is not None and (seen := np.isfinite(held_out[:, 0])).any():
        points = (run.trace.step[seen] / run.steps_per_epoch, held_out[seen, 0])
    label = "training, mean over the epoch"
    return epochs_figure({label: averages[:, None]}, name=_bound_name(run), title=title, held_out=points)


def _bound_name(run: Finished) -> str:
    per = run.summary["objective"]["per"]
    return (run.model.objective or run.trace.bound.upper()) + (f" per {per} (nats)" if per else " (nats)")


def _bound(run: Finished, smoothing: int, title: str) -> Figure:
    """Draw the bound (T, R) over the steps, in nats; held-out values are points, and the log evidence is a line."""
    step, columns, points = run.trace.step, run.trace.columns, None
    evidence = run.summary["final"]["log_evidence"]
    if (held_out := columns.get("held_out")) is not None:
        seen = np.isfinite(held_out).any(axis=1)
        points = (step[seen], held_out[seen])
    return bound_figure(
        step,
        columns[run.trace.bound],
        name=_bound_name(run),
        window=max(1, smoothing // (int(step[1] - step[0]) if len(step) > 1 else 1)),
        references={} if evidence is None else {"log evidence": evidence},
        title=title,
        held_out=points,
        noisy=bool(run.summary["objective"]["per"]),
    )


def _trajectories(run: Finished, series: dict[str, np.ndarray], title: str) -> Figure:
    """Draw series (T, R) by name over the steps, with truth and exact answers as lines.

    Of restarts the best alone is drawn.
    """
    rows, best = run.summary["estimates"], run.summary["best_replicate"]
    if best is not None:  # restarts number their components each in its own way
        series = {name: values[:, best : best + 1] for name, values in series.items()}
    if len(series) > MOST_PANELS:
        title += f" (the first {MOST_PANELS} of {len(series)})"
        series = dict(itertools.islice(series.items(), MOST_PANELS))
    truth, exact = (
        {f"E[{name}]": row[kind] for name, row in rows.items() if row[kind] is not None} for kind in ("truth", "exact")
    )
    scales = {f"E[{name}]": row["sd"] for name, row in rows.items() if row.get("sd")}
    solved = "exact posterior" if any(row.get("exact_sd") for row in rows.values()) else "exact optimum"
    known: dict[str, Any] = {"truth": truth, "exact": exact, "solved": solved, "scales": scales}
    return trajectories_figure(run.trace.step, series, title=title, **known)


def _map(scene: Scene, title: str) -> Figure:
    horizontal, vertical = scene.columns[:2] or ("horizontal", "vertical")
    arrays = (scene.points, scene.shares, scene.centres, scene.deviations)
    return map_figure(*arrays, spread=scene.spread, xlabel=horizontal, ylabel=vertical, title=title)


def _counts(scene: Scene, title: str) -> Figure:
    name = scene.columns[2] if scene.columns else "strength"
    return counts_figure(scene.counts, scene.probabilities, scene.misfit, xlabel=name, title=title)


def _density(run: Finished, data: np.ndarray, model: HasPredictive, title: str) -> Figure:
    """Draw the posterior predictive density of each replicate: p(x | z) averaged over draws z ~ q."""
    margin = 0.1 * float(np.ptp(data) or abs(data[0]) or 1.0)  # equal points have no range
    grid = np.linspace(data.min() - margin, data.max() + margin, GRID)
    points = torch.from_numpy(grid)
    fitted = model.log_density(points, {name: torch.from_numpy(draws) for name, draws in run.samples.items()})
    curves = {"posterior predictive": fitted.exp().mean(dim=2).numpy()}
    truth = {name: row["truth"] for name, row in run.summary["estimates"].items()}
    if all(value is not None for value in truth.values()):
        generating = model.log_density(points, {name: torch.tensor(value) for name, value in truth.items()})
        curves["generating density"] = generating.exp().numpy()
    return density_figure(data, grid, curves, title=title)
