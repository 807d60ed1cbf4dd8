"""`task=fit`: compose a problem, train it in the common loop, write what it found."""

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from vi_core.errors import LabError, NonFinite
from vi_core.execution.choice import Execution
from vi_core.models.autoencoders.protocols import GeneratesImages
from vi_core.models.diffusion.protocols import HasDenoisingTerms
from vi_core.problem import Problem, assemble
from vi_core.schema import construct, locate
from vi_core.training import checkpoint
from vi_core.training.history import History
from vi_core.training.loop import Loop
from vi_core.training.recorder import Recorder
from vi_core.training.trainer import Plan, Trainer

from ..config.identity import config_hash
from ..config.messages import keys_of, part_defaults
from ..config.validate import PARTS, plain, validate
from ..results import diffusion, expectations, likelihood, mixtures, summary, table
from ..results.files import write_json, write_npz, write_text, yaml_text
from .interrupt import Interrupt
from .process import compiled_folder, describe_environment, prepare
from .progress import Progress

log = logging.getLogger(__name__)
DRAWS = 500
IMAGES = 64


class Occupied(LabError):
    """The folder holds another run, in which nothing may be written."""


@dataclass
class Job:
    """A run in its folder: what was asked, and how far it has come."""

    cfg: DictConfig
    folder: Path
    overrides: list[str]
    swept: list[str]
    in_sweep: bool = False
    resume: bool = False
    diagnostics: dict[str, Any] = field(default_factory=dict)
    """What was measured before training."""
    batch: dict[str, Any] | None = None
    """What it shared its training with, in a batched sweep."""


def fit(job: Job) -> dict[str, Any]:
    """Train and write the run's files; return its summary. Raises `LabError` for what the user can mend."""
    started = time.perf_counter()
    check_folder(job)
    config = settle(job)
    trainer: Trainer = construct(config["trainer"], "trainer")
    device, dtype, generator = set_up(job.cfg, config)
    problem = assemble(config, device, dtype, generator)
    likelihood.check(problem, trainer.likelihood_samples)
    plan = trainer.plan(problem.batches.steps_per_epoch, config["replicates"])
    measure_gradient(job, problem, trainer, "start")  # a resumed run begins with the same parameters and stream
    with Interrupt() as interrupt:
        loop = build_loop(job, problem, trainer, plan, device, interrupt)
        config = write_config(job, config)
        status = run_loop(job, loop, plan)
        result = write_results(job, config, problem, trainer, loop, status, device, started)
    interrupt.leave()
    return result


def set_up(cfg: DictConfig, config: dict[str, Any]) -> tuple[torch.device, torch.dtype, torch.Generator]:
    """Set the process up for a run with these settings."""
    return prepare(cfg, images=locate(config["dataset"]["_target_"], "dataset").images)


def settle(job: Job) -> dict[str, Any]:
    """Return the resolved settings of a job that can run, in plain dicts."""
    plain(job.cfg)  # every interpolation resolves, or this raises
    drop_foreign_settings(job)
    config = plain(job.cfg)
    validate(config)
    return config


def write_config(job: Job, config: dict[str, Any]) -> dict[str, Any]:
    """Write the resolved settings of the run to its folder, and return them: with what was overridden and chosen."""
    job.cfg.overrides = job.overrides
    config = config | {"overrides": job.overrides, "threads": job.cfg.threads}
    write_text(job.folder / "config.yaml", yaml_text(config))
    return config


def measure_gradient(job: Job, problem: Problem, trainer: Trainer, when: str) -> None:
    """Note the noise of the gradient at the present parameters, where it is asked for."""
    if trainer.gradient_draws:
        from ..results import gradient_noise  # scipy, only where it is used

        alive = problem.step.alive.cpu().numpy()
        noted = job.diagnostics.setdefault("gradient", {"draws": trainer.gradient_draws})
        noted[when] = gradient_noise.measure(problem, trainer.gradient_draws, alive)


def check_folder(job: Job) -> None:
    """Refuse a folder that holds another run, and a sweep to go on with where there is none."""
    if not job.resume and any((job.folder / name).exists() for name in ("summary.json", "checkpoint.pt")):
        raise Occupied(
            f"{job.folder} already holds a run; choose another hydra.run.dir, or go on with resume={job.folder}."
        )
    if job.in_sweep or job.resume:
        return
    if job.cfg.sweep.resume:
        raise LabError(f"sweep.resume={job.cfg.sweep.resume} goes on with a sweep: add -m and what it sweeps.")
    if job.cfg.sweep.batched:
        raise LabError("sweep.batched=true trains the jobs of a sweep together: add -m and what it sweeps.")


def drop_foreign_settings(job: Job) -> None:
    """Undo what an experiment sets of a part that the command line replaces: the new part has values of its own.

    `python run.py optimizer=sgd` replaces the optimizer of experiment=bbvi, whose learning rate was chosen for Adam.
    What the user sets by hand stays.
    """
    chosen = {expectations.chosen_key(text) for text in job.overrides}
    for part in (part for part in PARTS if part in chosen and part != "trainer" and job.cfg[part]):
        own = part_defaults(part, str(job.cfg.parts.get(part)))
        settings = [key for key in job.cfg[part] if not OmegaConf.is_dict(job.cfg[part][key])]  # no parts
        mine = [key for key in settings if f"{part}.{key}" not in chosen]
        changes = {
            key: own.get(key)
            for key in mine
            if key in keys_of(f"{part}.") and own and job.cfg[part][key] != own.get(key)
        }
        for key in changes:
            with open_dict(job.cfg):
                if key in own:
                    job.cfg[part][key] = own[key]
                else:
                    del job.cfg[part][key]
        if changes:
            log.info("%s=%s keeps its own %s", part, job.cfg.parts[part], ", ".join(changes))


def build_loop(
    job: Job, problem: Problem, trainer: Trainer, plan: Plan, device: torch.device, interrupt: Interrupt
) -> Loop:
    """Return the loop at its beginning, or where the run's checkpoint left it."""
    path = job.folder / "checkpoint.pt"
    content = checkpoint.load(path) if job.resume else None
    rows = len(content["recorder"]["steps"]) if content else 0
    trainer.stopping.bind(problem.step.moving, problem.family.replicates)
    trainer.stopping.to(device)
    folder = compiled_folder() / "steps"
    loop = Loop(
        step=problem.step,
        batches=problem.batches,
        recorder=Recorder(problem.step, rows + plan.rows),
        stopping=trainer.stopping,
        plan=plan,
        execution=Execution(trainer.execution, problem.step, plan, problem.batches, folder),
        checkpoint_path=path,
        on_nonfinite=trainer.on_nonfinite,
        evaluate=problem.held_out,
        interrupted=interrupt.requested,
        device=device,
        checksum=problem.checksum,
    )
    if content:
        loop.load(content)
    return loop


def run_loop(job: Job, loop: Loop, plan: Plan) -> str:
    """Drive the loop to its end or interruption, with a sign of life; when it diverges, keep the trace up to there."""
    progress = Progress(plan.steps, job.cfg.name, loop.done)
    try:
        return loop.run(progress)
    except NonFinite:
        loop.recorder.trace().write(job.folder / "trace.csv")
        raise
    finally:
        progress.close()


def write_results(
    job: Job,
    config: dict[str, Any],
    problem: Problem,
    trainer: Trainer,
    loop: Loop,
    status: str,
    device: torch.device,
    started: float,
) -> dict[str, Any]:
    """Write trace, samples, figures and at last the summary; show the result table."""
    trace, samples = loop.recorder.trace(), draw_samples(problem)
    trace.write(job.folder / "trace.csv")
    write_npz(job.folder / "samples.npz", samples)
    result = summarize(job, config, problem, trainer, loop, trace, status, device)
    figures = draw_figures(job, problem, result, trace, samples)
    result["timing"]["total_s"] = time.perf_counter() - started
    write_json(job.folder / "summary.json", result)
    log.info("%s", table.report(result, figures))
    return result


def summarize(
    job: Job,
    config: dict[str, Any],
    problem: Problem,
    trainer: Trainer,
    loop: Loop,
    trace: History,
    status: str,
    device: torch.device,
) -> dict[str, Any]:
    """Return the content of summary.json but for the total time."""
    exact, bias = summary.exact_answers(problem), summary.gradient_bias(problem)
    measure_gradient(job, problem, trainer, "final")
    alive, replicates = problem.step.alive.cpu().numpy(), problem.family.replicates
    kept, best = results_of(problem, alive)
    result = heading(job, config, describe_parts(job.cfg, replicates, bias), status) | {
        "bias": bias,
        "replicates": replicates,
        "diverged_replicates": int((~alive).sum()),
        "objective": summary.objective(trace, "data point" if problem.model.has_local else "", kept),
        "best_replicate": best if kept.sum() < alive.sum() else None,
        "estimates": summary.estimates(problem, mixtures.renumbered_truth(problem, best), exact, kept),
        "final": summary.final_bound(problem, trainer.final_samples, exact, kept),
        "epoch_bound": summary.epoch_bounds(trace, problem.batches),
        "diagnostics": summary.diagnostics(problem, trainer.final_samples, kept)
        | summary.blankets(problem)
        | likelihood.measure(problem, 0 if status == "interrupted" else trainer.likelihood_samples)
        | job.diagnostics,
        "recovery": mixtures.recovery(problem, best),
        "misfit": mixtures.misfit(problem, best),
        "data": {
            "provenance": problem.data.provenance,
            "checksum": problem.checksum,
            "points": len(problem.data.train),
        },
        "timing": summary.timing(loop, replicates),
        "environment": describe_environment(job.cfg, device),
    }
    shared = {} if job.batch is None else {"batch": job.batch}
    return result | shared | judge(job, config, result, trace)


def heading(job: Job, config: dict[str, Any], subtitle: str, status: str) -> dict[str, Any]:
    """Return what every summary begins with."""
    return {
        "schema": summary.SCHEMA,
        "experiment": job.cfg.name,
        "subtitle": subtitle,
        "note": job.cfg.note,
        "status": status,
        "run": str(job.folder),
        "config_hash": config_hash(config),
        "overrides": job.overrides,
    }


def results_of(problem: Problem, alive: np.ndarray) -> tuple[np.ndarray, int]:
    """Return (R,) which replicates are results, and the best of them; the first where no ELBO is in closed form."""
    bounds = summary.closed_form_elbo(problem)
    if bounds is None:
        return alive, int(alive.argmax())
    kept = problem.step.kept(bounds).cpu().numpy()
    return kept, mixtures.best_replicate(bounds.cpu().numpy(), kept)


def judge(job: Job, config: dict[str, Any], result: dict[str, Any], trace: History | None) -> dict[str, Any]:
    """Return the checks that apply, or why none does."""
    expected = config["expected"]
    conditions = [key for item in expected for key in item["when"]]
    changed = expectations.changed_settings(job.overrides, [*job.swept, *conditions])
    if not expected:
        return {"checks": [], "checks_skipped": ""}
    if changed:
        return {"checks": [], "checks_skipped": f"settings differ from the experiment's ({', '.join(changed)})"}
    if result["status"] == "interrupted":
        return {"checks": [], "checks_skipped": "the run was interrupted"}
    wanted = {item["when"].get("data.checksum") for item in expected} - {None}
    if wanted and result["data"]["checksum"] not in wanted:
        return {"checks": [], "checks_skipped": "the data are others than those of the expected numbers"}
    return {"checks": expectations.check(expected, result, config, trace), "checks_skipped": ""}


def describe_parts(cfg: DictConfig, replicates: int, bias: str) -> str:
    """Return the parts of a run by their names, for titles, with a label where the gradient is biased."""
    names = {part: cfg.parts[part] for part in ("family", "estimator", "optimizer") if part in cfg.parts}
    if bias and "estimator" in names:
        names["estimator"] += " (biased)"
    return ", ".join([*names.values(), f"{replicates} replicates" if replicates > 1 else "1 run"])


def draw_samples(problem: Problem) -> dict[str, np.ndarray]:
    """Return draws from q by latent, (R, draw, *event); for image models test images, reconstructions and new ones.

    For a diffusion model data, generated points and the states on their way.
    """
    if not problem.model.has_local:
        with torch.no_grad():
            q = problem.family.distribution(problem.family.variational())
        return {name: z.squeeze(2).movedim(0, 1).cpu().numpy() for name, z in q.sample(DRAWS).items()}
    if isinstance(problem.model, HasDenoisingTerms):
        return diffusion.generated(problem, problem.model)
    if not isinstance(problem.model, GeneratesImages) or problem.data.image_shape is None:
        return {}
    stored = problem.data.train if problem.data.test is None else problem.data.test
    images = problem.data.decode(stored[:IMAGES])
    with torch.no_grad():
        z = problem.family.distribution(problem.family.variational(images)).sample(1)
        found = {
            "test": images,
            "reconstruction": problem.model.pixel_means(z),
            "generated": problem.model.pixel_means(problem.model.sample_prior(IMAGES)),
        }
    return {name: value.reshape(-1, *problem.data.image_shape).cpu().numpy() for name, value in found.items()}


def draw_figures(
    job: Job, problem: Problem, result: dict[str, Any], trace: History, samples: dict[str, np.ndarray]
) -> list[str]:
    """Draw the run's figures where they are wanted, for a job of a batch later; return their paths."""
    if not job.cfg.plot.enabled or job.batch is not None:
        return []
    from ..results.figures import Finished, draw  # matplotlib, only where something is drawn

    train_data = problem.data.train
    data = train_data.cpu().double().numpy() if train_data.dim() == 1 else None
    scene = mixtures.scene(problem, results_of(problem, problem.step.alive.cpu().numpy())[1])
    finished = Finished(result, trace, samples, data, problem.model.cpu(), scene)
    return [str(path) for path in draw(finished, job.folder / "plots", job.cfg.plot)]


def failed_summary(job: Job, error: Exception) -> None:
    """Write a summary that says that a job failed, and why; never over another run's, nor for a refused resume."""
    path = job.folder / "summary.json"
    refused = isinstance(error, Occupied) or (job.resume and not isinstance(error, NonFinite))
    if refused or not job.folder.is_dir() or path.exists():
        return
    resolvable = not isinstance(error, OmegaConfBaseException)
    write_json(
        path,
        {
            "schema": summary.SCHEMA,
            "experiment": job.cfg.name,
            "status": "diverged" if isinstance(error, NonFinite) else "failed",
            "error": str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {error}",
            "error_type": type(error).__name__,
            "overrides": job.overrides,
            "config_hash": config_hash(OmegaConf.to_container(job.cfg, resolve=resolvable)),
        },
    )
