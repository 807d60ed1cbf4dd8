"""`task=export run=<run>`: write `posterior.nc`, the draws of a run in ArviZ's schema."""

import logging
from pathlib import Path

import torch
from omegaconf import DictConfig

from vi_core.errors import DataError
from vi_core.fits.fitted import Fit
from vi_core.storage.archive import load
from vi_core.storage.files import replacing

log = logging.getLogger(__name__)
NAME = "posterior.nc"


def run(cfg: DictConfig, folder: Path) -> None:
    """Write the file into the folder of a run; equal calls write equal draws.

    Raises:
        DataError: Where the folder holds no run, or each data point has latents of its own.
    """
    fit = load(folder)
    if not isinstance(fit, Fit):
        raise DataError(
            f"{folder} holds a run of {type(fit.problem.model).__name__}, whose points have latents of their own, and "
            "task=export is for latents that all share; its draws are in samples.npz."
        )
    torch.manual_seed(cfg.seed)
    found = fit.to_arviz()
    with replacing(folder / NAME) as unfinished:
        found.to_netcdf(str(unfinished), engine="h5netcdf")
    log.info("draws   %s", folder / NAME)
