"""`task=plot run=<folder>`: draw the figures of a finished run, study or benchmark again, from its files."""

import logging
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from vi_core.archive import load, read_run

from ..config.places import benchmark_module
from . import mixtures
from .figures import Finished, draw

log = logging.getLogger(__name__)


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
    with np.load(folder / "samples.npz") as arrays:
        samples = dict(arrays)
    train = archived.problem.data.train
    data = train.double().numpy() if train.dim() == 1 else None
    scene = mixtures.scene(archived.problem, archived.summary["best_replicate"] or 0)
    finished = Finished(archived.summary, archived.trace, samples, data, archived.problem.model, scene)
    return draw(finished, folder / "plots", cfg.plot)
