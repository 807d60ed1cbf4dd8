"""`task=prior_predictive`: draws from the prior, and data from them, beside the observed ones; nothing is fitted."""

import logging
import math
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vi_core.diagnostics.marginals import LEVELS, scalars
from vi_core.errors import Unsupported
from vi_core.files import remove_leftovers
from vi_core.models.bayesian.base import BayesianModel
from vi_core.models.bayesian.file import FileModel
from vi_core.problem import load_data
from vi_core.schema import construct, locate

from ..config.hydra_adapter import yaml_text
from ..results import table
from ..results.drawing import drawing, write
from ..results.files import write_json, write_npz, write_text
from ..results.predictive import Pair, replicated
from .jobs import Job, Summary
from .outcome import heading
from .process import describe_environment, prepare
from .settings import check_folder, resolved

log = logging.getLogger(__name__)
DRAWS = 2000  # from the prior


def prior_predictive(job: Job) -> Summary:
    """Write draws, figure and summary of the prior; return the summary. Raises `LabError` for the user's mistakes."""
    started = time.perf_counter()
    if job.resume:
        raise Unsupported(f"{job.folder} holds draws from a prior, with nothing to go on with; start a new run.")
    check_folder(job)
    remove_leftovers(job.folder)
    config = resolved(job)
    device, dtype, _ = prepare(config)
    model = model_of(config)
    loaded = load_data(config, device, dtype)
    with torch.device(device):
        data = loaded.data.decode(loaded.data.train)
        model.observe(data, len(loaded.data.train))
        draws = prior_draws(model, data)
        pairs = replicated(model, data, draws)
    write_text(job.folder / "config.yaml", yaml_text(config))
    write_npz(job.folder / "prior.npz", {name: value.cpu().numpy() for name, value in draws.items()})
    result = heading(job, config, f"the prior, {DRAWS} draws", "completed") | {
        "estimates": {name: row for latent, value in draws.items() for name, row in rows(latent, value).items()},
        "checks": [],
        "checks_skipped": "",
        "timing": {"total_s": time.perf_counter() - started},
        "environment": describe_environment(config["seed"], device),
    }
    write_json(job.folder / "summary.json", result)
    figures = draw(job, pairs) if job.cfg.plot.enabled else []
    log.info("%s", table.prior_report(result, figures))
    return result


def model_of(config: dict[str, Any]) -> BayesianModel:
    """Return the model of a configuration; raise `Unsupported` where it has no prior to draw from."""
    kind = locate(config["model"]["_target_"], "model")
    if not issubclass(kind, (BayesianModel, FileModel)):
        raise Unsupported(
            f"task=prior_predictive is for models of prior and likelihood, and {kind.__name__} is none; "
            "choose one, such as model=eight_schools."
        )
    model = construct(config["model"], "model")
    return model.own if isinstance(model, FileModel) else model


def prior_draws(model: BayesianModel, data: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return draws of latents and quantities from the prior, (S, *event) by name."""
    drawn = [model.prior_draw() for _ in range(DRAWS)]
    latents = {name: torch.stack([values[name] for values in drawn]) for name in model.latents}
    if not model.has_quantities:
        return latents
    found = model.quantities_at({name: value[:, None, None] for name, value in latents.items()}, data)
    return latents | {name: value[:, 0, 0] for name, value in found.items()}


def rows(latent: str, draws: Tensor) -> dict[str, Any]:
    """Return entries of `estimates` by scalar, from draws (S, *event)."""
    found = {}
    for name, values in scalars(latent, draws.double().cpu().numpy()):
        sd, (low, high) = float(values.std(ddof=1)), np.quantile(values, LEVELS)
        found[name] = {
            "mean": float(values.mean()), "sd": sd, "q05": float(low), "q95": float(high),
            "mc_error": sd / math.sqrt(len(values)), "truth": None, "exact": None, "exact_sd": None,
        }  # fmt: skip
    return found


def draw(job: Job, pairs: dict[str, Pair]) -> list[str]:
    """Draw replicated against observed data, where the observed are numbers; return the path."""
    from vi_core.plots.predictive import predictive_figure

    if not pairs:
        return []
    title = f"{job.cfg.name} — data drawn from the prior"
    with drawing(job.cfg.plot):
        figures = {"prior_predictive": predictive_figure(pairs, title=title)}
        return [str(path) for path in write(figures.items(), job.folder / "plots", job.cfg.plot)]
