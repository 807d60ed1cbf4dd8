"""Reading of a finished run from its folder: configuration, history, summary, model and fitted q.

run = vi_core.load("outputs/bbvi/2026-01-31_12-00-00-000000")
run.q.moments()["mu"]        # posterior mean and deviation per replicate
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from vi_core.errors import DataError
from vi_core.families.base import VariationalDistribution
from vi_core.models.bayesian.file import FileModel
from vi_core.problem import Problem, assemble
from vi_core.renamed import modernised
from vi_core.training import checkpoint
from vi_core.training.history import History, read_history

MODEL_IN_A_FILE = f"{FileModel.__module__}.{FileModel.__qualname__}"


@dataclass(frozen=True)
class Archive:
    """A finished run.

    Attributes:
        config: The resolved configuration.
        summary: The content of summary.json.
        trace: The history in trace.csv.
        problem: Data, model, family and step, with the parameters of the last checkpoint, on the CPU.
    """

    config: dict[str, Any]
    summary: dict[str, Any]
    trace: History
    problem: Problem

    @property
    def q(self) -> VariationalDistribution:
        """The fitted q(z), for families without an encoder; with one, call `problem.family` on data."""
        with torch.no_grad():
            return self.problem.family.distribution(self.problem.family.variational())


def read_config(folder: Path) -> dict[str, Any]:
    """Return the configuration that a run wrote to its folder, with present names in place of earlier ones."""
    with (folder / "config.yaml").open() as file:  # a file, so that yaml's errors name it
        config = modernised(yaml.safe_load(file))
    model = config.get("model") if isinstance(config, dict) else None
    if isinstance(model, dict) and model.get("_target_") == MODEL_IN_A_FILE:
        config["model"] = model | {"path": str(folder / model["path"])}  # of the run's own copy
    return config


def read_run(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return configuration and summary of a finished run; raise `DataError` in one line where there is none."""
    try:
        config = read_config(folder)
        summary = json.loads((folder / "summary.json").read_text())
    except FileNotFoundError as error:
        missing = Path(error.filename).name
        raise DataError(f"{folder} is not the folder of a finished run: {missing} is missing.") from error
    except (yaml.YAMLError, ValueError) as error:
        raise DataError(f"{folder} is damaged ({error}).") from error
    if "environment" not in summary:
        raise DataError(f"{folder} holds a run that ended as {summary.get('status')}: {summary.get('error')}")
    return config, summary


def load(run: str | Path) -> Archive:
    """Read a run's folder and rebuild its problem, on the CPU, with the parameters of the last checkpoint.

    Args:
        run: The folder.

    Raises:
        DataError: Where a file is missing or damaged, or the folder holds a study or a run that failed.
    """
    folder = Path(run)
    config, summary = read_run(folder)
    if config.get("study") is not None:
        raise DataError(f"{folder} holds a study, which has no fit; read its summary.json and records.npz.")
    content = checkpoint.load(folder / "checkpoint.pt")
    dtype = getattr(torch, summary["environment"]["dtype"])
    previous = torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtype)
        with torch.random.fork_rng(devices=[]):
            problem = assemble(config, torch.device("cpu"), dtype, torch.Generator())
    finally:
        torch.set_default_dtype(previous)
    problem.step.load_state_dict(content["step"])
    return Archive(config, summary, read_history(folder / "trace.csv"), problem)
