"""`task=predict run=<run> path=<file>`: what a fitted model expects of the rows of another file.

predictions/<file>.csv has a line for each number that is observed in a row: mean, deviation and quantiles of draws from
the posterior predictive law, and the number itself where the file holds it.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vi_core.datasets.base import Dataset
from vi_core.diagnostics.marginals import scalars
from vi_core.errors import DataError, require
from vi_core.fits.fitted import Fit
from vi_core.models.bayesian.base import BayesianModel
from vi_core.schema import construct
from vi_core.storage.archive import load

from .files import csv_text, write_text

log = logging.getLogger(__name__)
DRAWS = 4000  # of each new observation
LEVELS = (0.05, 0.5, 0.95)
HEADER = ("row", "variable", "mean", "sd", "q05", "median", "q95", "observed")
Line = tuple[Any, ...]  # as in HEADER


def run(folder: Path, path: Path) -> None:
    """Write the file of predictions into the folder of a run; equal calls write equal numbers.

    Raises:
        DataError: Where the folder holds no run of a model of prior and likelihood, or the file is not like its data.
    """
    require(path.is_file(), f"path={path} is no file; name one with the columns that the run was fitted to.")
    fit = load(folder)
    model = fit.problem.model
    if not isinstance(fit, Fit) or not isinstance(model, BayesianModel):
        raise DataError(
            f"{folder} holds a run of {type(model).__name__}; task=predict is for models of prior and "
            "likelihood, which draw new observations."
        )
    dataset: Dataset = construct(fit.run.config["dataset"], "dataset")
    rows = dataset.new_rows(path)
    torch.manual_seed(fit.run.config["seed"])
    found: Any = fit.predict(rows, DRAWS)
    draws = found if isinstance(found, dict) else {min(model.observables): found}
    lines = [line for name, value in draws.items() for line in predictions(name, value, rows.get(name))]
    target = folder / "predictions" / f"{path.name.partition('.')[0]}.csv"
    target.parent.mkdir(exist_ok=True)
    write_text(target, csv_text([HEADER, *lines]))
    log.info("%s", said(fit, model, rows, lines))
    log.info("predictions %s", target)


def predictions(name: str, draws: Tensor, observed: Tensor | None) -> Iterator[Line]:
    """Yield a line for each number of an observed variable.

    Args:
        name: Of the variable.
        draws: (S, B, *shape).
        observed: (B, *shape), or None where the file has none.
    """
    known = None if observed is None else dict(scalars(name, observed.cpu().numpy()))
    for row in range(draws.shape[1]):
        for variable, values in scalars(name, draws[:, row].double().cpu().numpy()):
            value = "" if known is None else known[variable][row]
            numbers = (values.mean(), values.std(), *np.quantile(values, LEVELS))
            yield (row + 1, variable, *(float(f"{number:.6g}") for number in numbers), value)


def said(fit: Fit, model: BayesianModel, rows: dict[str, Tensor], lines: list[Line]) -> str:
    """Return the lines for the terminal: how many rows, and how well what the file holds was predicted."""
    count = lines[-1][0]
    text = f"{count} rows predicted by {DRAWS} draws; {fit.verdict}"
    if not model.observables <= rows.keys():
        return text
    inside = sum(low <= observed <= high for *_, low, _, high, observed in lines)
    text += f"\n{inside} of {len(lines)} observed numbers lie between the 5 % and 95 % quantiles"
    if not model.pointwise:
        return text
    density = fit.log_predictive(rows)
    return f"{text}; log predictive density {float(density.mean()):.4f} nats a row"
