"""`task=prior_predictive`: draws from the prior, and data from them, beside the observed ones; nothing is fitted."""

import logging
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vi_core.diagnostics.marginals import LEVELS, scalars
from vi_core.errors import Unsupported
from vi_core.models.bayesian.base import BayesianModel
from vi_core.models.bayesian.file import FileModel
from vi_core.problem import load_data
from vi_core.schema import construct, locate
from vi_core.storage.files import remove_leftovers

from ..config.hydra_adapter import yaml_text
from ..results import summary, table
from ..results.drawing import drawing, write
from ..results.files import write_json, write_npz, write_text
from ..results.predictive import Pair, replicated
from .jobs import Job, Summary
from .outcome import heading
from .process import describe_environment, prepare
from .settings import check_folder, resolved

NOTHING = dict.fromkeys(("mean", "mc_error", "truth", "exact"))  # what an estimate of a prior has none of
log = logging.getLogger(__name__)
DRAWS = 2000  # from the prior
SETS = 500  # data sets from the prior predictive law
STATISTICS = {"min": np.min, "mean": np.mean, "sd": np.std, "max": np.max}  # of a data set


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
        pairs = replicated(model, data, draws, SETS)
    write_text(job.folder / "config.yaml", yaml_text(config))
    write_npz(job.folder / "prior.npz", {name: value.cpu().numpy() for name, value in draws.items()})
    result = heading(job, config, f"the prior, {DRAWS} draws", "completed") | {
        "estimates": {name: row for latent, value in draws.items() for name, row in rows(latent, value).items()},
        "observed": {name: row for each, pair in pairs.items() for name, row in beside_observed(each, *pair).items()},
        "data": summary.described(loaded.data) | {"checksum": loaded.checksum},
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
    """Return entries of `estimates` by scalar, from draws (S, *event); they have no mean, as a prior may have none."""
    return {name: NOTHING | quantiles(values) for name, values in scalars(latent, draws.double().cpu().numpy())}


def quantiles(values: np.ndarray) -> dict[str, float | None]:
    """Return median, 5 % and 95 % quantile of the finite values."""
    finite = values[np.isfinite(values)]
    found = np.quantile(finite, (0.5, *LEVELS)).tolist() if len(finite) else (None,) * 3
    return dict(zip(("median", "q05", "q95"), found, strict=True))


def beside_observed(name: str, observed: np.ndarray, drawn: np.ndarray) -> dict[str, Any]:
    """Return statistics of observed numbers (N,) with their quantiles over data sets (S, N) from the prior."""
    with np.errstate(over="ignore", invalid="ignore"):  # of draws from a law with heavy tails
        return {
            f"{words} of {name}": {"observed": float(statistic(observed)), **quantiles(statistic(drawn, axis=1))}
            for words, statistic in STATISTICS.items()
        }


def draw(job: Job, pairs: dict[str, Pair]) -> list[str]:
    """Draw replicated against observed data, where the observed are numbers; return the path."""
    from vi_core.plots.predictive import predictive_figure

    if not pairs:
        return []
    title = f"{job.cfg.name} — data drawn from the prior"
    with drawing(job.cfg.plot):
        figures = {"prior_predictive": predictive_figure(pairs, title=title)}
        return [str(path) for path in write(figures.items(), job.folder / "plots", job.cfg.plot)]
