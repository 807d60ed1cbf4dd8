"""The settings of a run, resolved once, before anything is built: references, replaced parts, threads."""

import logging
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict

from vi_core.errors import ConfigError, LabError
from vi_core.models.files import checksum_of
from vi_core.schema import keyword_arguments, locate
from vi_core.storage.archive import MODELS_IN_FILES

from ..config.hydra_adapter import part_settings, replaced
from ..config.messages import keys_of
from ..config.schema import Report
from ..config.validate import PARTS, plain_values, use_present_names, validate
from ..results.expectations import chosen_key
from .jobs import Job
from .owner import refuse_results
from .process import faster_threads, sees_images

log = logging.getLogger(__name__)


def check_folder(job: Job) -> None:
    """Refuse a folder that holds another run, and settings of a sweep for a single run.

    Raises:
        Occupied: Where a new run would mix its files with those of another.
        LabError: For sweep.resume or sweep.batched without -m.
    """
    if not job.resume:
        refuse_results(job.folder)
    if job.in_sweep or job.resume:
        return
    if job.cfg.sweep.resume:
        raise LabError(f"sweep.resume={job.cfg.sweep.resume} goes on with a sweep: add -m and what it sweeps.")
    if job.cfg.sweep.batched:
        raise LabError("sweep.batched=true trains the jobs of a sweep together: add -m and what it sweeps.")


def resolved(job: Job) -> dict[str, Any]:
    """Return the settings of a job that can run, in plain dicts: adapted, checked, with a number of threads.

    `threads=auto` becomes a number here, so that a resumed run sums in the same order: one for small problems, where
    threads wait for each other more than they work, and for images whatever a matrix product finds faster.

    Raises:
        LabError: In one line, where the settings cannot run.
    """
    config = adapted(job)
    validate(config)
    if config["threads"] == "auto":
        config["threads"] = faster_threads() if sees_images(config) else 1
    return config | {"overrides": job.overrides, "changes": []}


def adapted(job: Job) -> dict[str, Any]:
    """Return the settings of a job in plain dicts, without those that are not for its parts; `job.cfg` loses them.

    Raises:
        ConfigError: Where the command line sets a part that a study or the benchmark does not have.
        OmegaConfBaseException: For a reference that leads nowhere.
    """
    plain_values(job.cfg)  # every interpolation resolves, or this raises
    if job.cfg.study is not None or job.cfg.benchmark is not None:
        drop_parts(job)
    elif not job.resume:
        drop_unknown(job)
        drop_foreign_settings(job)
        drop_background(job)
        note_model_file(job)
    use_present_names(job.cfg, {chosen_key(text) for text in job.overrides})
    return plain_values(job.cfg)


def note_model_file(job: Job) -> None:
    """Fill in the checksum of a model in a file, by which a run knows it."""
    model = job.cfg.model
    if model is None or model.get("_target_") not in MODELS_IN_FILES or not model.get("path"):
        return
    if model.checksum is None:
        model.checksum = checksum_of(model.path)


def drop_background(job: Job) -> None:
    """Leave out what an experiment says of its own problem where the command line gives it another one.

    These are the expected numbers, the note, and the place in the reports.
    """
    choices = HydraConfig.get().runtime.choices
    if replaced(choices, job.overrides):
        job.cfg.expected, job.cfg.note, job.cfg.report = [], "", OmegaConf.structured(Report)


def drop_parts(job: Job) -> None:
    """Leave out the parts of a fit, which studies and the benchmark have none of; refuse to set them.

    The benchmark keeps the data set, whose folder says where images are.

    Args:
        job: With a `study` or a `benchmark`; its `cfg` is changed in place.

    Raises:
        ConfigError: For a setting of a part on the command line.
    """
    benchmark = job.cfg.benchmark is not None
    kept, allowed = ("dataset", "dataset.root") if benchmark else ("study", "study")
    what = "experiment=benchmark" if benchmark else f"study={job.cfg.parts['study']}, which trains nothing"
    for key in map(chosen_key, job.overrides):
        if key.split(".")[0] in (*PARTS, "replicates", "callback", "callbacks") and key != allowed:
            own = "benchmark" if benchmark else "study"
            raise ConfigError(f"{key} is not a setting of {what}; its settings are {own}.*.")
    for part in PARTS:
        if part != kept:
            job.cfg[part] = None
    job.cfg.parts = {kept: job.cfg.parts[kept]}


def drop_unknown(job: Job) -> None:
    """Leave out what a sweep over parts sets for those that have it, where the part of this job does not."""
    if not job.in_sweep:
        return
    by_hand = {chosen_key(text) for text in job.overrides}
    for part in (part for part in PARTS if part in by_hand and f"++{part}." in " ".join(job.overrides)):
        accepted = keyword_arguments(locate(job.cfg[part]["_target_"], part))
        others = {*keys_of(f"{part}.")} - accepted.keys()
        with open_dict(job.cfg[part]):
            for key in (key for key in others if f"{part}.{key}" in by_hand and key in job.cfg[part]):
                del job.cfg[part][key]
                log.info("%s=%s has no %s, and leaves it out", part, job.cfg.parts[part], key)


def drop_foreign_settings(job: Job) -> None:
    """Undo what an experiment sets of a part that the command line replaces: the new part has values of its own.

    `python run.py optimizer=sgd` replaces the optimizer of experiment=bbvi, whose learning rate was chosen for Adam.
    What the user sets by hand stays.
    """
    by_hand = {chosen_key(text) for text in job.overrides}
    chosen = {part: name for part, name in job.cfg.parts.items() if name and part in by_hand and part in PARTS}
    for part, name in chosen.items():
        node = job.cfg[part]
        own = part_settings(part, name)
        known = {*own, *keys_of(f"{part}.")}  # others are mistakes, of which the user hears
        dropped = [
            key
            for key, value in node.items()
            if not OmegaConf.is_dict(value) and f"{part}.{key}" not in by_hand and key in known
            if value != own.get(key)
        ]
        with open_dict(node):
            for key in dropped:
                if key in own:
                    node[key] = own[key]
                else:
                    del node[key]
        if dropped:
            log.info("%s=%s keeps its own %s", part, name, ", ".join(dropped))
