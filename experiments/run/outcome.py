"""What is written of a run that has been trained: draws, summary and figures; and of one that failed."""

import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vi_core.diagnostics.marginals import draw
from vi_core.errors import LabError, NonFinite, Unwritable
from vi_core.models.base import GeneratesImages, HasDenoisingTerms, Model
from vi_core.models.files import located
from vi_core.problem import Problem
from vi_core.run import Run
from vi_core.schema import Config
from vi_core.storage.archive import MODELS_IN_FILES
from vi_core.storage.files import replacing
from vi_core.training.callbacks import Callback
from vi_core.training.history import History
from vi_core.training.loop import Loop
from vi_core.types import Latents

from ..config.hydra_adapter import yaml_text
from ..config.schema import config_hash
from ..results import (
    diagnostics,
    diffusion,
    expectations,
    mixtures,
    summary,
    table,
    trust,
    truth,
)
from ..results.files import write_json, write_npz, write_text
from .jobs import Job, Summary
from .owner import Occupied
from .process import describe_environment

log = logging.getLogger(__name__)
DRAWS = 500  # from q, of each latent
PAIRS, BETWEEN = 3, 10  # interpolations, and images of each
IMAGES = 64  # test images, reconstructions and generated ones


class ConfigWriter(Callback):
    """Writes the resolved settings when a run starts, which is after a resumed one has accepted its checkpoint."""

    def on_start(self, loop: Loop, config: Mapping[str, Any], folder: Path | None) -> None:
        if folder is not None:
            content = dict(config)
            if (content.get("model") or {}).get("_target_") in MODELS_IN_FILES:
                content["model"] = dict(content["model"]) | {"path": copy_model(content["model"]["path"], folder)}
            write_text(folder / "config.yaml", yaml_text(content))


def copy_model(path: str, folder: Path) -> str:
    """Copy the file of a model into the folder of a run, unless it is there; return its path as seen from there."""
    file, name = located(path)
    copy = folder / file.name
    if not copy.exists():
        with replacing(copy) as unfinished:
            unfinished.write_bytes(file.read_bytes())
    return f"{copy.name}:{name}" if name else copy.name


def write_results(job: Job, started: float, run: Run) -> Summary:
    """Write samples, figures and at last the summary; show the result table.

    Args:
        job: The request.
        started: When the run began, by `time.perf_counter`.
        run: Trained; its other files are written.

    Returns:
        The content of summary.json, which docs/outputs.md describes.
    """
    history, samples = run.history, draw_samples(run.problem)
    write_npz(job.folder / "samples.npz", samples)
    result = summarize(job, run, history)
    figures = [] if job.batch is not None else draw_figures(job, run, result, history, samples)
    result["timing"]["total_s"] = time.perf_counter() - started
    write_json(job.folder / "summary.json", result)
    log.info("%s", table.report(result, figures))
    return result


def summarize(job: Job, run: Run, history: History) -> Summary:
    """Return the content of summary.json but for the total time."""
    problem, trainer, config = run.problem, run.trainer, run.config
    exact, bias = summary.exact_answers(problem), summary.gradient_bias(problem)
    measure_gradient(problem, trainer.gradient_draws, run.diagnostics, "final")
    alive, replicates, status = run.alive, problem.family.replicates, run.loop.status
    kept, best = summary.results_of(problem, alive)
    samples = 0 if status == "interrupted" else trainer.likelihood_samples
    result = heading(job, config, describe_parts(config["parts"], replicates, bias), str(status)) | {
        "bias": bias,
        "up_to": problem.model.lacks,
        "trained": not problem.family.fixed,
        "replicates": replicates,
        "diverged_replicates": int((~alive).sum()),
        "objective": summary.objective(history, "data point" if problem.model.has_local else "", kept),
        "best_replicate": best if kept.sum() < alive.sum() else None,
        "estimates": summary.estimates(problem, history, mixtures.renumbered_truth(problem, best), exact, kept),
        "final": summary.final_bound(problem, trainer.final_samples, exact, kept),
        "epoch_bound": summary.epoch_bounds(history, problem.batches),
        "diagnostics": summary.diagnostics(problem, trainer.final_samples, kept)
        | summary.blankets(problem)
        | diagnostics.likelihood(problem, samples)
        | diagnostics.held_out(problem, kept)
        | run.diagnostics,
        "recovery": mixtures.recovery(problem, best),
        "misfit": mixtures.misfit(problem, best),
        "data": summary.data(problem),
        "timing": summary.timing(run.loop, replicates, run.gradients),
        "environment": describe_environment(config["seed"], run.device),
    }
    result |= truth.kept(config, problem, result)
    result["verdict"] = trust.entry(run, kept, result["final"]["kl_to_posterior"])
    if config["combine"] == "evidence":
        result["estimates"] = trust.estimates_of_mixture(run, result["estimates"], result["verdict"]["modes"])
    shared = {} if job.batch is None else {"batch": job.batch}
    return result | shared | judge(job, config, result, history)


def heading(job: Job, config: Config, subtitle: str, status: str) -> Summary:
    """Return what every summary begins with."""
    return {
        "schema": summary.SCHEMA,
        "experiment": config["name"],
        "subtitle": subtitle,
        "note": config["note"],
        "status": status,
        "run": str(job.folder),
        "config_hash": config_hash(config),
        "overrides": job.overrides,
    }


def judge(job: Job, config: Config, result: Summary, history: History | None) -> Summary:
    """Return the checks of an experiment's expected numbers that apply, or why none does.

    Args:
        job: The request, whose overrides decide whether the numbers are still those of the experiment.
        config: Resolved settings, with `expected`.
        result: The summary so far.
        history: For expected numbers that are in a column of it; None for a study.
    """
    expected, skipped = config["expected"], ""
    conditions = [key for item in expected for key in item["when"]]
    changed = expectations.changed_settings(job.overrides, [*job.swept, *conditions])
    wanted = {item["when"].get("data.checksum") for item in expected} - {None}
    if expected and changed:
        skipped = f"settings differ from the experiment's ({', '.join(changed)})"
    elif expected and result["status"] == "interrupted":
        skipped = "the run was interrupted"
    elif wanted and result["data"]["checksum"] not in wanted:
        skipped = "the data are others than those of the expected numbers"
    checks = [] if skipped else expectations.check(expected, result, config, history)
    return {"checks": checks, "checks_skipped": skipped}


def measure_gradient(problem: Problem, draws: int, found: dict[str, Any], when: str) -> None:
    """Note the noise of the gradient at the present parameters, from `draws` estimates; 0 for none."""
    if draws:
        noted = found.setdefault("gradient", {"draws": draws})
        noted[when] = diagnostics.gradient_noise(problem, draws, problem.step.alive.cpu().numpy())


def describe_parts(parts: dict[str, str], replicates: int, bias: str) -> str:
    """Return the parts of a run by their names, for titles, with a label where the gradient is biased."""
    names = {part: parts[part] for part in ("family", "estimator", "optimizer") if part in parts}
    if bias and "estimator" in names:
        names["estimator"] += " (biased)"
    return ", ".join([*names.values(), f"{replicates} replicates" if replicates > 1 else "1 run"])


def draw_samples(problem: Problem) -> dict[str, np.ndarray]:
    """Return draws from q by latent and quantity, (R, draw, *event); of image models images, seen, rebuilt and new.

    For a diffusion model data, generated points and the states on their way.
    """
    model, family, data = problem.model, problem.family, problem.data
    if not model.has_local:
        found = draw(model, family, problem.batches.whole(model), DRAWS)
        return {name: z.squeeze(2).movedim(0, 1).cpu().numpy() for name, z in found.items()}
    if isinstance(model, HasDenoisingTerms):
        return diffusion.generated(problem, model)
    if not isinstance(model, GeneratesImages) or data.image_shape is None:
        return {}
    stored = (data.train if data.test is None else data.test)[:IMAGES]
    images = data.decode(stored)
    with torch.no_grad():
        q = family.distribution(family.variational(images))
        found = {
            "test": images,
            "reconstruction": model.pixel_means(q.sample(1)),
            "generated": model.pixel_means(model.sample_prior(IMAGES)),
            "grey": stored.to(images) / data.train.max().to(images),
            **interpolated(model, {name: mean for name, (mean, _) in q.moments().items()}),
        }
    return {name: value.reshape(-1, *data.image_shape).cpu().numpy() for name, value in found.items()}


def interpolated(model: Model, means: Latents) -> dict[str, torch.Tensor]:
    """Return images of points between the latents of images 0 and 1, 2 and 3, and 4 and 5; {} for discrete latents."""
    count = min(PAIRS, min(mean.shape[1] for mean in means.values()) // 2)
    if not count or any(latent.support.discrete for latent in model.latents.values()):
        return {}
    between = {}
    for name, mean in means.items():  # (1, B, *event)
        share = torch.linspace(0, 1, BETWEEN, dtype=mean.dtype, device=mean.device).reshape(
            -1, *(1,) * (mean.dim() - 2)
        )
        pairs = [(1 - share) * mean[0, 2 * i] + share * mean[0, 2 * i + 1] for i in range(count)]
        between[name] = torch.cat(pairs)[None, None]
    assert isinstance(model, GeneratesImages)
    return {"interpolation": model.pixel_means(between)}


def draw_figures(job: Job, run: Run, result: Summary, history: History, samples: dict[str, np.ndarray]) -> list[str]:
    """Draw the run's figures where they are wanted; return their paths."""
    if not job.cfg.plot.enabled:
        return []
    from ..results.figures import Finished, draw  # matplotlib, only where something is drawn

    network = job.cfg.plot.network
    finished = Finished.of(run.problem, run.config["dataset"], result, history, samples, network)
    return [str(path) for path in draw(finished, job.folder / "plots", job.cfg.plot)]


def failed_summary(job: Job, error: Exception) -> None:
    """Write a summary that says that a job failed, and why; never over another run's, nor for a refused resume.

    Args:
        job: The request, whose settings need not be resolvable.
        error: What ended it. A run that diverged has a status of its own.
    """
    path = job.folder / "summary.json"
    refused = isinstance(error, Occupied) or (job.resume and not isinstance(error, NonFinite))
    if refused or not job.folder.is_dir() or path.exists():
        return
    resolvable = not isinstance(error, OmegaConfBaseException)
    failed = {
        "schema": summary.SCHEMA,
        "experiment": job.cfg.name,
        "status": "diverged" if isinstance(error, NonFinite) else "failed",
        "error": str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {error}",
        "error_type": type(error).__name__,
        "overrides": job.overrides,
        "config_hash": config_hash(OmegaConf.to_container(job.cfg, resolve=resolvable)),
    }
    with suppress(Unwritable):  # the line on the terminal has to do
        write_json(path, failed)
