"""`task=plot run=<folder>`: draw the figures of a finished run, study or benchmark again, from its files."""

import logging
from pathlib import Path

from omegaconf import DictConfig

from vi_core.archive import load, read_run
from vi_core.arrays import Arrays, read_arrays
from vi_core.problem import Problem
from vi_core.reading import damaged

from ..config.places import benchmark_module
from . import mixtures
from .figures import Finished, draw

log = logging.getLogger(__name__)
IMAGES = {"test", "reconstruction", "generated", "data"}  # arrays whose elements are like data points


def run(cfg: DictConfig, folder: Path) -> None:
    """Redraw the figures of the run in `folder` with the plot settings of `cfg`; `DataError` for other folders."""
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
    archived = load(folder)
    samples = read_arrays(folder / "samples.npz")
    check_samples(samples, archived.problem, folder / "samples.npz")
    train = archived.problem.data.train
    data = train.double().numpy() if train.dim() == 1 else None
    scene = mixtures.scene(archived.problem, archived.summary["best_replicate"] or 0)
    finished = Finished(archived.summary, archived.trace, samples, data, archived.problem.model, scene)
    return draw(finished, folder / "plots", cfg.plot)


def check_samples(samples: Arrays, problem: Problem, path: Path) -> None:
    """Raise `DataError` unless the draws have the shapes that figures rely on.

    Those of latents that all data share are (R, draws, *event), images (N, rows, columns), and the states of a
    diffusion model (steps, N, *event).
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
