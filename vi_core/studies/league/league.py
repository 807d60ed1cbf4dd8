"""The league: posteriors with reference draws, fitted by several methods from several seeds.

Each replicate of each fit is a row: its distance to the reference for the quantities that the reference names, on
their own scale, the verdict, gradient evaluations and seconds. Rows are written after each fit, so that a league that
was interrupted goes on with what is left.
"""

import logging
from collections.abc import Mapping
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy import ndarray

from vi_core.diagnostics.importance import smoothed_weights
from vi_core.diagnostics.verdict import Weighed, judge
from vi_core.errors import ConfigError, DataError, LabError, require
from vi_core.fits.fitted import Fit
from vi_core.fits.fitting import fit
from vi_core.fits.trust import weigh
from vi_core.models.stan.model import StanModel
from vi_core.studies.base import Figures, Finding, Quantity, Records, Study
from vi_core.studies.league.posteriordb import Database, Posterior
from vi_core.studies.league.scores import score
from vi_core.studies.league.table import FITTED, Key, Row, read_rows, share, write_rows

log = logging.getLogger(__name__)
TABLE = "league.csv"
DRAWS = 4000  # of q for each replicate, for its distance to the reference


class League(Study):
    """Fits of the posteriors of a clone of posteriordb.

    Args:
        root: Folder of the clone.
        methods: Arguments of `vi_core.fit` by name of the method.
        compared: Names of the methods that are run; all if empty.
        only: Posteriors; all with reference draws if empty.
        without: Posteriors that are left out.
        apart: Posteriors whose rows stand in the table and do not count in the shares of good fits.
        seeds: How many runs of each method, with the seed of the whole and those that follow it.
        replicates: Fits of a run.
    """

    def __init__(
        self,
        *,
        root: str | None,
        methods: dict[str, Any],
        compared: list[str],
        only: list[str],
        without: list[str],
        apart: list[str],
        seeds: int = 1,
        replicates: int = 4,
    ):
        if root is None:
            raise DataError("study.root is not set; give a clone of https://github.com/stan-dev/posteriordb.")
        require(seeds >= 1 and replicates >= 1, f"study.seeds={seeds} and study.replicates={replicates} start at 1.")
        for name in compared:
            require(name in methods, f"study.compared={name} is none of {', '.join(methods)}.")
        methods = {name: methods[name] for name in compared or methods}
        check_installed(methods)
        self.database, self.methods, self.seeds, self.replicates = Database(Path(str(root))), methods, seeds, replicates
        self.only, self.without, self.apart = only, without, apart

    def run(self) -> Finding:
        rows = read_rows(self.folder / TABLE) if self.folder and (self.folder / TABLE).is_file() else []
        done = {row.key for row in rows}
        names, first = self.database.chosen(self.only, self.without), torch.initial_seed()
        for i, name in enumerate(names):
            posterior = self.database.read(name)
            for method, settings in self.methods.items():
                for seed in range(first, first + self.seeds):
                    if (name, method, seed) not in done:
                        rows += self._rows(posterior, method, settings, seed)
                        if self.folder:
                            write_rows(rows, self.folder / TABLE)
            log.info("%s (%d of %d): %s", name, i + 1, len(names), self._line(rows, name))
        return Finding(self._quantities(rows), records(rows))

    def _line(self, rows: list[Row], name: str) -> str:
        """Return the number of good fits of each method on one posterior."""
        counts = {
            method: [r.good for r in rows if r.posterior == name and r.method == method] for method in self.methods
        }
        return ", ".join(f"{method} {sum(good)}/{len(good)}" for method, good in counts.items())

    def _rows(self, posterior: Posterior, method: str, settings: Mapping[str, Any], seed: int) -> list[Row]:
        """Fit a posterior by one method from one seed; an error of the fit is rows without numbers."""
        key = (posterior.name, method, seed)
        model = StanModel(path=str(posterior.program), transformed_parameters=True)
        try:
            found = fit(model, posterior.data, seed=seed, replicates=self.replicates, **settings)
        except LabError as error:
            return [Row(*key, replicate, str(error)) for replicate in range(self.replicates)]
        return judged_rows(found, posterior, key)

    def _quantities(self, rows: list[Row]) -> dict[str, Quantity]:
        """Return counts and shares by method, and the error rates of the verdict over all methods."""
        counted = [row for row in rows if row.posterior not in self.apart]
        found: dict[str, Quantity] = {}
        for method in self.methods:
            own = [row for row in counted if row.method == method]
            count = share(own)
            found |= {
                f"{method}_fits": Quantity(float(count.fits)),
                f"{method}_good": Quantity(ratio(count.good, count.fits)),
            }
            found |= {f"{method}_ended": Quantity(ratio(sum(row.fitted for row in own), count.fits))}
            found |= {f"{method}_gradients": Quantity(float(max((row.gradients for row in own), default=0)))}
        every = share(rows)
        trusted, corrected = every.trusted_good + every.trusted_bad, every.corrected_good + every.corrected_bad
        return found | {
            "trusted_fits": Quantity(float(trusted)),
            "corrected_fits": Quantity(float(corrected)),
            "refused_good_fits": Quantity(float(every.refused_good)),
            "refused_bad_fits": Quantity(float(every.refused_bad)),
            "trusted_bad": Quantity(ratio(every.trusted_bad, trusted)),
            "corrected_bad": Quantity(ratio(every.corrected_bad, corrected)),
            "good_and_believed": Quantity(1 - ratio(every.refused_good, every.good)),
        }

    def figures(self, records: Records) -> Figures:
        from vi_core.plots.league import league_figure

        return {"league": league_figure(records)}


def check_installed(methods: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise `ConfigError` where a method is a flow and zuko, which it needs, is not installed."""
    flows = [name for name, settings in methods.items() if settings.get("family") == "flow"]
    if flows and find_spec("zuko") is None:
        others = ",".join(name for name in methods if name not in flows)
        raise ConfigError(
            f"study.methods.{flows[0]} needs zuko, which is not installed; pip install 'vi-lab[flows]' adds it, and "
            f"study.compared=[{others}] does without."
        )


def judged_rows(found: Fit, posterior: Posterior, key: Key) -> list[Row]:
    """Return a row for each replicate of a fit."""
    problem, alive = found.run.problem, torch.from_numpy(found.run.alive)
    weighed = weigh(problem, DRAWS)
    draws = quantities(found, weighed, list(posterior.reference))
    reference = np.stack(list(posterior.reference.values()), axis=1)
    rows = []
    for r, elbo in enumerate(found.elbo):
        if not np.isfinite(elbo):
            rows.append(Row(*key, r, "diverged"))
            continue
        own, log_w = draws[:, r], weighed.log_w[:, r]
        verdict = judge(weighed, alive, torch.arange(len(alive)) == r)
        plain = score(own, reference)
        mended = score(own, reference, smoothed_weights(log_w).numpy()) if bool(log_w.isfinite().all()) else plain
        read = {name: getattr(verdict, name) for name in ("k_hat", "kl_gap", "ess", "shift", "stretch")}
        told = {name: value for name, value in read.items() if value is not None}
        told |= {"trust": verdict.trust, "gradients": found.gradients, "seconds": found.seconds}
        close = {**plain._asdict(), "good": plain.good, "corrected_good": mended.good}
        rows.append(Row(*key, r, FITTED, float(elbo), **close, **told))
    return rows


def quantities(found: Fit, weighed: Weighed, names: list[tuple[str, tuple[int, ...]]]) -> ndarray:
    """Return draws (S, R, D) of the scalars that a reference names, by latent and index."""
    z = {name: value.unsqueeze(2) for name, value in weighed.z.items()}
    with torch.no_grad():
        values = found.model.reported(z, found.data)
    absent = sorted({latent for latent, _ in names} - values.keys())
    if absent:
        raise DataError(f"the reference names {absent[0]}, which the program does not declare.")
    return np.stack([values[latent][:, :, 0][(..., *index)].numpy() for latent, index in names], axis=-1)


def ratio(count: float, total: float) -> float:
    """Return count/total; 0 where nothing was counted."""
    return count / total if total else 0.0


def records(rows: list[Row]) -> dict[str, ndarray]:
    """Return the columns of the table as arrays (N,)."""
    return {column.name: np.array([getattr(row, column.name) for row in rows]) for column in fields(Row)}
