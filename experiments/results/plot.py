"""`task=plot run=<folder>`: draw a finished run's figures again, from its files."""

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
    """Redraw the figures of the run in `folder` with the plot settings of `cfg`."""
    config, _ = read_run(folder)
    if config.get("benchmark") is not None:
        for path in benchmark_module("task").redraw(cfg, folder):
            log.info("figure  %s", path)
        return
    if config.get("study") is not None:
        from ..run.study import redraw

        for path in redraw(cfg, folder, config):
            log.info("figure  %s", path)
        return
    archived = load(folder)
    with np.load(folder / "samples.npz") as arrays:
        samples = dict(arrays)
    train = archived.problem.data.train
    data = train.double().numpy() if train.dim() == 1 else None
    best = archived.summary["best_replicate"]
    scene = mixtures.scene(archived.problem, best or 0)
    finished = Finished(archived.summary, archived.trace, samples, data, archived.problem.model, scene)
    for path in draw(finished, folder / "plots", cfg.plot):
        log.info("figure  %s", path)
