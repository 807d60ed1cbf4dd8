"""Reference answers beside a run's estimates; `task=truth run=<folder>` computes them once and keeps them.

From then on every fit of the same model to the same data has them in summary.json, on the terminal and on its page,
where the model knows no exact answer.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from vi_core.errors import DataError
from vi_core.fits import truth
from vi_core.problem import Problem
from vi_core.schema import Config
from vi_core.storage.archive import read_archive

from .files import write_json
from .table import report

log = logging.getLogger(__name__)
Summary = dict[str, Any]


def run(cfg: DictConfig, folder: Path) -> None:
    """Compute the reference of a finished run, unless it is kept already, and write it into its summary.json."""
    archive = read_archive(folder)
    name = truth.key(archive.config, archive.problem.checksum)
    found = truth.recall(name)
    if found is None:
        log.info("sampling the posterior of %s", archive.config["name"])
        found = truth.reference(archive.problem, seed=archive.config["seed"])
        log.info("reference %s", truth.keep(name, found))
    words = f"{truth.CHAINS} chains, R-hat {found.rhat:.3f}, {found.effective:.0f} effective draws"
    log.info("%s, %d divergent, %d gradients each, %.0f s", words, found.divergent, found.gradients, found.seconds)
    summary = archive.summary | beside(archive.summary, found)
    write_json(folder / "summary.json", summary)
    log.info("%s", report(summary, []))


def kept(config: Config, problem: Problem, result: Mapping[str, Any]) -> Summary:
    """Return the entries of a summary that a kept reference adds to, {} where none is kept; a damaged one is told."""
    try:
        found = truth.recall(truth.key(config, problem.checksum))
    except DataError as error:
        log.warning("%s", error)
        return {}
    return {} if found is None else beside(result, found)


def beside(result: Mapping[str, Any], found: truth.Reference) -> Summary:
    """Return `estimates` and `final` with the reference where no exact answer stands.

    Args:
        result: A summary.
        found: The reference.
    """
    rows = dict(result["estimates"])
    for name, row in rows.items():
        known = found.quantities.get(name)
        if known is not None and row["exact"] is None:
            rows[name] = row | {
                "reference": known.mean,
                "reference_sd": known.sd,
                "reference_error": known.error,
            }
    final = dict(result["final"])
    if final["log_evidence"] is None:
        final |= {"reference_log_evidence": found.log_evidence, "reference_error": found.evidence_error}
    return {"estimates": rows, "final": final}
