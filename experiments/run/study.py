"""`task=fit` for an experiment with a `study`: compute what it computes, and write it as a run does."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig
from torch.linalg import LinAlgError  # pyright: ignore[reportAttributeAccessIssue]

from vi_core.errors import LabError
from vi_core.schema import check_part, construct
from vi_core.storage.arrays import PLAIN, read_arrays
from vi_core.storage.files import remove_leftovers
from vi_core.storage.reading import damaged
from vi_core.studies.base import Finding, Study, misfit

from ..config.hydra_adapter import yaml_text
from ..results import table
from ..results.drawing import drawing, write
from ..results.files import write_json, write_npz, write_text
from .jobs import Job, Summary
from .outcome import heading, judge
from .process import describe_environment, prepare
from .settings import check_folder, resolved

log = logging.getLogger(__name__)
RECORDS = "records.npz"


def study(job: Job) -> Summary:
    """Run the study and write the run's files: settings, records.npz, figures, summary.

    Returns:
        The content of summary.json.

    Raises:
        LabError: For what the user can mend, also where the arithmetic overflows or a matrix is singular at these
            settings.
    """
    started = time.perf_counter()
    check_folder(job)
    remove_leftovers(job.folder)
    config = resolved(job)
    computation: Study = construct(config["study"], "study")
    device, _, _ = prepare(config)
    computation.folder = job.folder
    try:
        finding = computation.run()
    except (ArithmeticError, LinAlgError) as error:  # of settings that are finite, and whose powers are not
        raise LabError(f"study={config['name']} cannot be computed with these settings ({error}).") from error
    write_text(job.folder / "config.yaml", yaml_text(config))
    write_npz(job.folder / RECORDS, finding.records)
    figures = draw(computation, finding.records, job.folder, job.cfg.plot) if job.cfg.plot.enabled else []
    result = summarize(job, config, finding)
    result["timing"] = {"total_s": time.perf_counter() - started}
    result["environment"] = describe_environment(config["seed"], device)
    write_json(job.folder / "summary.json", result)
    log.info("%s", table.study_report(result, [str(path) for path in figures]))
    return result


def summarize(job: Job, config: dict[str, Any], finding: Finding) -> Summary:
    """Return the content of summary.json but for time and environment.

    Args:
        job: The request.
        config: Its resolved settings, whose `expected` numbers are checked.
        finding: What was computed; each quantity becomes an entry of `estimates`.
    """
    rows = {
        name: {"mean": q.value, "mc_error": q.se, "error": q.error, "z": q.z, "truth": None, "exact": q.exact}
        for name, q in finding.quantities.items()
    }
    result = heading(job, config, "", "completed") | {"estimates": rows}
    return result | judge(job, config, result, None)


def draw(computation: Study, records: Mapping[str, np.ndarray], folder: Path, plot: Any) -> list[Path]:
    """Write every figure of the study to `<folder>/plots`; return their paths.

    Args:
        computation: The study, with its settings.
        records: Arrays by name, as the study found them or as they were read back.
        folder: Of the run.
        plot: The node `plot` of the settings, which has the format of the files.
    """
    with drawing(plot):
        return write(computation.figures(records).items(), folder / "plots", plot)


def redraw(cfg: DictConfig, folder: Path, config: dict[str, Any]) -> list[Path]:
    """Draw the figures of a finished study again, from its records.

    Args:
        cfg: Settings of the present command, for the format.
        folder: Of the run.
        config: The run's own settings.

    Raises:
        ConfigError: Where they name no study.
        DataError: Where records.npz is missing or damaged.
    """
    check_part(config["study"], "study", Study)
    computation: Study = construct(config["study"], "study")
    records = read_arrays(folder / RECORDS, PLAIN)
    if wrong := misfit(records, computation.forms()):
        raise damaged(folder / RECORDS, wrong)
    return draw(computation, records, folder, cfg.plot)
