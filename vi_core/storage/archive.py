"""Reading of a finished run from its folder: configuration, history, summary, model and fitted q.

run = vi_core.load("outputs/bbvi/2026-01-31_12-00-00-000000")
run.q.moments()["mu"]        # posterior mean and deviation per replicate
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vi_core.errors import ConfigError, DataError
from vi_core.models.bayesian.file import FileModel
from vi_core.models.stan.model import StanModel
from vi_core.problem import Problem, assemble, default_dtype
from vi_core.storage.layout import Failure, Finding, FitFinding, FitSettings, Settings, fault
from vi_core.storage.reading import damaged, read_json, read_yaml
from vi_core.storage.renamed import ESTIMATES, modernised
from vi_core.training import checkpoint
from vi_core.training.history import History, read_history

SHOWN = 6  # estimates in the text of a run
FIT_ONLY = frozenset(("replicates", "objective", "final", "diagnostics"))  # keys of summary.json
MODELS_IN_FILES = {f"{model.__module__}.{model.__qualname__}" for model in (FileModel, StanModel)}


@dataclass(frozen=True, repr=False)
class Archive:
    """A finished run, as its files have it; one whose data points share their latents is described by a `Fit` of it.

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
    def entries(self) -> dict[str, Any]:
        """The content of summary.json, under the name that it has in a `Fit`."""
        return self.summary

    @property
    def history(self) -> History:
        """The history, under the name that it has in a run."""
        return self.trace

    @property
    def gradients(self) -> int:
        """Gradients of the density that each replicate has taken; 0 of a version that did not count them."""
        return self.summary["timing"].get("gradients", 0)

    @property
    def alive(self) -> np.ndarray:
        """(R,) which replicates have not diverged."""
        return self.problem.step.alive.cpu().numpy()

    def __repr__(self) -> str:
        found, final = self.summary, self.summary["final"]
        rows = list(found["estimates"].items())
        lines = [f"  {name}: mean {shown(row['mean'])}, sd {shown(row.get('sd'))}" for name, row in rows[:SHOWN]]
        more = [f"  ... and {len(rows) - SHOWN} more"] if len(rows) > SHOWN else []
        head = f"{found['experiment']}: {found['status']} after {int(self.trace.step[-1])} steps"
        bound = f"  final {final['name']}: {shown(final['mean'])} nats"
        return "\n".join([head, f"  {found['subtitle']}", *lines, *more, bound])


def shown(value: float | None) -> str:
    """Return a number with six digits."""
    return "unknown" if value is None else f"{value:.6g}"


def read_config(folder: Path) -> dict[str, Any]:
    """Return the configuration that a run wrote to its folder, with present names in place of earlier ones.

    Raises:
        DataError: In one line, where config.yaml is missing, damaged, or lacks what every run has.
    """
    path = folder / "config.yaml"
    config = modernised(read_yaml(path))
    alone = config.get("study") is not None or config.get("benchmark") is not None
    wrong = fault(config, Settings if alone else FitSettings)
    infinite = [item["quantity"] for item in config["expected"] if not numbers_of(item)] if not wrong else []
    if wrong or infinite:
        raise damaged(path, wrong or f"the expected {infinite[0]} is no finite number")
    if (config.get("model") or {}).get("_target_") in MODELS_IN_FILES:
        config["model"] = config["model"] | {"path": str(folder / config["model"]["path"])}  # of the run's own copy
    return config


def numbers_of(item: dict[str, Any]) -> bool:
    """Whether value and tolerance of an expected number are finite."""
    return math.isfinite(item["value"]) and math.isfinite(item["tolerance"])


def read_summary(folder: Path) -> dict[str, Any]:
    """Return the summary that a run wrote to its folder, of a fit, a study, a benchmark, or a job that failed.

    Raises:
        DataError: In one line, where summary.json is missing, damaged, or lacks what such a run has.
    """
    path = folder / "summary.json"
    summary = in_schema_2(read_json(path))
    fitted = not FIT_ONLY.isdisjoint(summary)
    wrong = fault(summary, Failure if "error" in summary else FitFinding if fitted else Finding)
    if not wrong and fitted and "error" not in summary:
        replicates, best = summary["replicates"], summary["best_replicate"]
        if len(summary["final"]["values"]) != replicates or not (best is None or 0 <= best < replicates):
            wrong = "final.values and best_replicate are not those of its replicates"
    if wrong:
        raise damaged(path, wrong)
    return summary


def in_schema_2(summary: dict[str, Any]) -> dict[str, Any]:
    """Return a summary of schema 1 with the names of schema 2, without quantiles; others as they are."""
    rows = summary.get("estimates", {})
    if summary.get("schema") != 1 or not isinstance(rows, dict):
        return summary
    renamed = {
        name: {ESTIMATES.get(key, key): value for key, value in row.items()} if isinstance(row, dict) else row
        for name, row in rows.items()
    }
    return summary | {"schema": 2} | ({"estimates": renamed} if "estimates" in summary else {})


def read_run(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return configuration and summary of a finished run; raise `DataError` in one line where there is none."""
    config, summary = read_config(folder), read_summary(folder)
    if "error" in summary:
        raise DataError(f"{folder} holds a run that ended as {summary['status']}: {summary['error']}")
    return config, summary


def load(run: str | Path, model: Any = None, data: Any = None, **parts: Any) -> Any:
    """Reopen a run from its folder, or a fit from the file that `Fit.save` wrote, on the CPU.

    Args:
        run: The folder, whose problem is rebuilt with the parameters of the last checkpoint; or the .npz file.
        model: With a file, the model of the fit; None with a folder, which has its own.
        data: With a file, the data of the fit, as `vi_core.fit` takes them.
        parts: With a file, `family`, `bound`, `estimator` or `optimizer`, where the fit was made with an object of a
            class that is not this library's.

    Returns:
        A `Fit`, as `vi_core.fit` returns it; of a model with a latent for each data point, such as an autoencoder, an
        `Archive`.

    Raises:
        DataError: Where a file is missing or damaged, the folder holds a study or a run that failed, or model or data
            are not those of the fit in the file.
        ConfigError: For model and data that are missing, or that a folder has already.
    """
    if not isinstance(run, (str, Path)):
        raise ConfigError(f"load needs the folder of a run, or a file, not {type(run).__name__}.")
    path = Path(run)
    if path.suffix == ".npz" and not path.is_dir():
        from vi_core.fits.saved import load_fit

        return load_fit(path, model, data, parts)
    if model is not None or data is not None or parts:
        raise ConfigError(f"{run} is the folder of a run, with a model and data of its own; use vi_core.load('{run}').")
    archive = read_archive(path)
    if archive.problem.model.has_local:
        return archive
    from vi_core.fits.fitted import Fit

    return Fit.of(archive)


def read_archive(folder: Path) -> Archive:
    """Return the run in a folder as its files have it; raise like `load`."""
    config, summary = read_run(folder)
    if config.get("study") is not None:
        raise DataError(f"{folder} holds a study, which has no fit; read its summary.json and records.npz.")
    content, trace = checkpoint.load(folder / "checkpoint.pt"), read_history(folder / "trace.csv")
    if trace.columns[trace.bound].shape[1] != summary["replicates"]:
        raise damaged(folder / "trace.csv", f"its replicates are not the {summary['replicates']} of summary.json")
    if content["done"] != trace.step[-1]:
        wrong = f"the checkpoint that is left is of step {content['done']}, and the run ended at {trace.step[-1]}"
        raise damaged(folder / "checkpoint.pt", wrong)
    dtype = getattr(torch, summary["environment"]["dtype"])
    with torch.random.fork_rng(devices=[]), default_dtype(dtype):
        problem = assemble(config, torch.device("cpu"), dtype, torch.Generator(), begin=False)
    try:
        problem.step.load_state_dict(content["step"])
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise damaged(folder / "checkpoint.pt", f"it does not fit config.yaml: {str(error).splitlines()[0]}") from error
    return Archive(config, summary, trace, problem)
