"""A fitted model: the posterior q, draws, predictions, the verdict, and tables and files of them."""

import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from vi_core.datasets.columns import named_columns, rows_first
from vi_core.diagnostics.marginals import scalars
from vi_core.diagnostics.verdict import Mode, Verdict, Weighed
from vi_core.errors import ConfigError, DataError, Unsupported, did_you_mean, require
from vi_core.families.base import VariationalDistribution
from vi_core.fits.parts import name_of
from vi_core.fits.rows import as_in_the_fit, unseen_levels_named
from vi_core.fits.tables import Table
from vi_core.fits.trust import (
    Corrected,
    can_judge,
    combined,
    corrected,
    draws_for,
    reweighted,
    verdict,
    verdict_on_mixture,
    weigh,
    weigh_mixture,
)
from vi_core.models.base import Model, require_points
from vi_core.models.bayesian.base import BayesianModel
from vi_core.models.stan.model import StanModel
from vi_core.problem import Problem, default_dtype
from vi_core.schema import conforms, shown
from vi_core.storage.archive import Archive
from vi_core.storage.files import replacing
from vi_core.training.history import History
from vi_core.types import Latents, detached

Combine = Literal["none", "evidence"]
COMBINATIONS: tuple[str, ...] = get_args(Combine)
DRAWS = 2000  # of q, for quantiles
QUANTILES = (0.05, 0.95)


@dataclass(eq=False, repr=False)
class Fit:
    """A fitted model whose latents all data share: of `vi_core.fit`, or a run or a saved fit that was reopened.

    Any such model is described by draws of q, its bound and its history. `verdict` needs a q with a density; `predict`
    and `log_predictive` need a `BayesianModel`.

    Attributes:
        run: The trained `Run`, or what was read of it from a folder or a file: problem and history.
        settings: Names of family and estimator, for `repr`.
        seconds: What the fit took.
        data: All data as the model saw them, by name; of a model without names what it computes of them.
        replicate: Whose q the methods describe; None for that with the highest ELBO.
        combine: `evidence` describes, in place of one replicate, the mixture of the modes in which replicates ended.
    """

    run: Any
    settings: dict[str, Any]
    seconds: float
    data: Any
    replicate: int | None = None
    combine: Combine = "none"

    @classmethod
    def of(cls, archive: Archive) -> "Fit":
        """Return the fit that a folder holds."""
        config, problem = archive.config, archive.problem
        parts = config.get("parts") or {}
        names = {noun: parts.get(noun) or name_of(noun, config[noun]) for noun in ("family", "estimator")}
        seconds, data = archive.summary["timing"]["total_s"], problem.batches.whole(problem.model)
        return cls(archive, names, seconds, data, combine=config.get("combine", "none"))

    @property
    def problem(self) -> Problem:
        """Data, parts and parameters."""
        return self.run.problem

    @property
    def model(self) -> Model:
        """The model."""
        return self.problem.model

    @property
    def config(self) -> dict[str, Any]:
        """The parts by group; all settings where a run was reopened."""
        return self.run.config

    @property
    def trace(self) -> History:
        """The history, under the name of a run's file."""
        return self.history

    @property
    def q(self) -> VariationalDistribution:
        """The fitted q(z) of all replicates."""
        family = self.run.problem.family
        return family.distribution(detached(family.variational()))

    @property
    def gradients(self) -> int:
        """Gradients of the density that each replicate has taken, those of its start included."""
        return self.run.gradients

    @property
    def history(self) -> History:
        """What was recorded over the steps."""
        return self.run.history

    @cached_property
    def _weighed(self) -> Weighed:
        """Draws of q with their importance weights, which leave every random stream as it was."""
        return weigh(self.run.problem, draws_for(self.run.problem, int(self.history.step[-1])))

    @cached_property
    def elbo(self) -> np.ndarray:
        """(R,) ELBO of each replicate, in nats, from 4,000 draws; −∞ where it diverged."""
        values = self._weighed.log_w.mean(dim=0).cpu().numpy()
        return np.where(self.run.alive & np.isfinite(values), values, -np.inf)

    @cached_property
    def verdict(self) -> Verdict:
        """Whether to believe q of the replicate that the methods describe, and why; of data of its own, q alone."""
        self._require_density("verdict")
        problem, found = self.problem, self._weighed
        if self._mixture is not None:
            return verdict_on_mixture(problem, self._modes, self._mixture)
        if not self.model.per_replicate:
            return verdict(problem, found, np.arange(len(self.elbo)) == self.best)
        own = slice(self.best, self.best + 1)
        alone = Weighed({name: z[:, own] for name, z in found.z.items()}, found.log_w[:, own])
        return verdict(problem, alone, np.ones(1, bool), problem.step.alive[own])

    @property
    def judged(self) -> bool:
        """Whether q has a density, so that there is a verdict."""
        return can_judge(self.problem)

    def _require_density(self, what: str) -> None:
        if not self.judged:
            raise Unsupported(f"{what} needs a q with a density, and family={self.problem.family.name} has none.")

    @cached_property
    def _modes(self) -> tuple[Mode, ...]:
        return reweighted(self.problem, verdict(self.problem, self._weighed).modes, len(self._weighed.log_w))

    @cached_property
    def _mixture(self) -> Weighed | None:
        """Weighted draws of the mixture of modes, where that is described."""
        if self.combine == "none":
            return None
        return weigh_mixture(self.problem, self._modes, len(self._weighed.log_w))

    def _combined(self, n: int) -> Weighed:
        return combined(self.problem, self._modes, n)

    def corrected(self) -> dict[str, Corrected]:
        """Return moments and quantiles by importance sampling from q of the best replicate, by name of the scalar.

        With `combine="evidence"` they are those from the mixture of modes.
        """
        self._require_density("corrected")
        with default_dtype(self.dtype):
            if self._mixture is not None:
                return corrected(self.problem, self._mixture, np.ones(1, bool))
            return corrected(self.problem, self._weighed, np.arange(len(self.elbo)) == self.best)

    @property
    def best(self) -> int:
        """The replicate with the highest ELBO, whose q the other methods describe, or the one chosen by `at`."""
        if self.replicate is None and self.model.per_replicate:
            raise Unsupported("each replicate was fitted to data of its own; choose one, as in fit.at(0).summary().")
        return int(self.elbo.argmax()) if self.replicate is None else self.replicate

    def at(self, replicate: int) -> "Fit":
        """Return the same fit with another replicate described; of data per replicate each has its own.

        Rows for `predict` and `log_predictive` then have an axis of replicates where the data had one.
        """
        if not (conforms(replicate, int) and 0 <= replicate < len(self.elbo)):
            raise ConfigError(f"there is no replicate {shown(replicate)}; choose 0 to {len(self.elbo) - 1}.")
        found = copy.copy(self)
        found.replicate, found.combine = replicate, "none"
        for described in ("verdict", "_mixture"):  # of what was described before
            vars(found).pop(described, None)
        return found

    def draws(self, n: int = DRAWS) -> dict[str, Tensor]:
        """Return n draws from q of the best replicate, (n, *event) by name, as the model has them in `reported`.

        With `combine="evidence"` they are draws of the mixture of modes, one mode after the other.
        """
        return {name: value[:, self._column, 0].clone() for name, value in self._all_draws(n).items()}

    @property
    def _column(self) -> int:
        """Which of the replicates of `_latents` is described."""
        return 0 if self.combine == "evidence" else self.best

    def _latents(self, n: int) -> Latents:
        """Return n draws of the latents of what is described: of all replicates, or of the mixture as of one."""
        if self.combine == "none":
            return self.q.sample(n)
        return {name: value.unsqueeze(2) for name, value in self._combined(n).z.items()}

    def _all_draws(self, n: int) -> dict[str, Tensor]:
        """Return n draws of latents and quantities, (n, R, 1, *event) by name."""
        require(conforms(n, int) and n >= 1, f"n={shown(n)} must be a whole number, at least 1.")
        with torch.no_grad(), default_dtype(self.dtype):
            return self.model.reported(self._latents(n), self.data)

    def weighted(self, n: int) -> tuple[Latents, Tensor, Tensor]:
        """Return n draws of the latents, (n, 1, 1, *event) by name, with log p(x, z) and log-weights, (n,) each."""
        with torch.no_grad(), default_dtype(self.dtype):
            if self.combine == "evidence":
                found = self._combined(n)
                z = {name: value.unsqueeze(2) for name, value in found.z.items()}
                return z, self.model.log_joint(z, self.data)[:, 0, 0], found.log_w[:, 0]
            q, best = self.q, self.best
            z = q.sample(n)
            log_joint = self.model.log_joint(z, self.data)
            log_w = log_joint - q.log_prob(z)
        return {name: z[name][:, best : best + 1] for name in z}, log_joint[:, best, 0], log_w[:, best, 0]

    @property
    def entries(self) -> dict[str, Any]:
        """What summary.json of a run holds; empty for a fit from Python."""
        return getattr(self.run, "summary", {})

    def summary(self) -> Table:
        """Return mean, deviation, 5 % and 95 % quantile of each scalar under q, and the error of the mean.

        The error, `mc_error`, is the deviation of the mean over replicates: what another seed would change. Where the
        verdict is CORRECTED, the same numbers by importance sampling stand beside q's.
        """
        with torch.random.fork_rng(devices=[]):
            z = self._all_draws(DRAWS)
        one = self.combine == "evidence" or self.model.per_replicate
        alive = np.empty(0, int) if one else np.flatnonzero(np.isfinite(self.elbo))
        rows = {}
        for latent, value in z.items():
            own = scalars(latent, value[:, self._column, 0].cpu().numpy())
            several = len(alive) > 1
            means = dict(scalars(latent, value[:, alive, 0].mean(dim=0).cpu().numpy())) if several else {}
            for name, column in own:
                error = float(means[name].std(ddof=1)) if several else None
                numbers = (column.mean(), column.std(), *np.quantile(column, QUANTILES))
                rows[name] = (*map(float, numbers), error)
        columns: tuple[str, ...] = ("mean", "sd", "q05", "q95", "mc_error")
        if self.judged and self.verdict.trust == "corrected":
            found = self.corrected()
            rows = {name: (*row, *found[name]) for name, row in rows.items()}
            columns += tuple(f"corrected {name}" for name in Corrected._fields)
        return Table(columns, rows, str(self))

    def predict(self, data: Any, n: int = DRAWS) -> Tensor | dict[str, Tensor]:
        """Return n draws of new observations, each with its own draw of the latents.

        Args:
            data: Rows to predict for, by name, without the observed variables.
            n: Draws.

        Returns:
            (n, B, *shape), by name where several variables are observed.
        """
        model = self._predicting("predict")
        draws = {name: value for name, value in self.draws(n).items() if name in model.latents}
        rows = self._rows(data, model.columns - model.observables)
        with default_dtype(self.dtype), unseen_levels_named(rows, self.data):
            found = model.predictive(draws, rows, self.best)
        return next(iter(found.values())) if len(found) == 1 else found

    def _predicting(self, method: str) -> BayesianModel:
        """Return the model, which has a likelihood of new data; raise `Unsupported` for another."""
        model = self.model
        if isinstance(model, StanModel):
            raise Unsupported("a Stan program predicts by generated quantities: StanModel(generated_quantities=True).")
        if not isinstance(model, BayesianModel):
            raise Unsupported(
                f"{method} is for a vi_core.BayesianModel, of prior and likelihood, and this is a "
                f"{type(model).__name__}; use draws() of its latents."
            )
        return model

    def log_predictive(self, data: Any, n: int = DRAWS) -> Tensor:
        """Return the log predictive density of each point of new data with observations, (B,), in nats."""
        model = self._predicting("log_predictive")
        require_points(model, "log_predictive")
        rows = self._rows(data, model.columns)
        with default_dtype(self.dtype), unseen_levels_named(rows, self.data):
            found = model.log_predictive(self._latents(n), rows)
        return found[self._column]

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of data and parameters."""
        return self.run.problem.step.witness.dtype

    def _rows(self, data: Any, needed: frozenset[str]) -> dict[str, Tensor]:
        """Return new rows in the type of the fit, with its constants where they give none.

        Raises:
            DataError: Where a column that is needed is missing, or has another shape than in the fit.
        """
        like = self.run.problem.step.witness
        columns = rows_first(named_columns(data), self.model.per_replicate & needed, len(self.run.alive))
        count = self.run.problem.data.train.shape[0]
        fitted = {n: v for n, v in self.data.items() if v.dim() and len(v) == count}
        constants = {n: v for n, v in self.data.items() if n not in columns and n not in fitted}
        missing = sorted(needed - (constants | columns).keys())
        if missing:
            hint = did_you_mean(missing[0], columns)
            raise DataError(f"the new data lack '{missing[0]}', which the likelihood reads.{hint}")
        rows = as_in_the_fit(columns, {n: v for n, v in fitted.items() if n in needed})
        moved = {n: v.to(like) if v.is_floating_point() else v.to(like.device) for n, v in (columns | rows).items()}
        return constants | moved

    def plot(self, path: str | Path | None = None) -> Any:
        """Return a figure of the bound of each replicate and of the marginals of q; write it to `path` if given."""
        from vi_core.plots.posterior import posterior_figure  # matplotlib, only where something is drawn

        columns, bound = self.history.columns, self.history.bound
        with torch.random.fork_rng(devices=[]):
            draws = {name: value.cpu().numpy() for name, value in self.draws().items()}
        figure = posterior_figure(self.history.step, columns[bound], draws, self.best, title=type(self.model).__name__)
        if path is not None:
            target = Path(path)
            formats = sorted(figure.canvas.get_supported_filetypes())
            named = f"plot writes {', '.join(formats)} files; give a path that ends so, not '{target}'."
            require(target.suffix[1:] in formats, named)
            with replacing(in_a_folder(target)) as unfinished:
                figure.savefig(unfinished)
        return figure

    def to_arviz(self, n: int = DRAWS) -> Any:
        """Return n draws as an `arviz.InferenceData`, as `vi_core.fits.interchange` describes; needs arviz."""
        from vi_core.fits.interchange import inference_data

        return inference_data(self, n)

    def save(self, path: str | Path) -> None:
        """Write the fit to an .npz file, from which `vi_core.load(path, model, data)` returns it.

        Draws of q, the ELBO of each replicate and the history are arrays that NumPy reads; `vi_core.fits.saved` lists
        all of them.
        """
        from vi_core.fits.saved import save

        save(self, in_a_folder(Path(path)))

    def __repr__(self) -> str:
        if self.model.per_replicate:
            here = f"{len(self.elbo)} data sets" if self.replicate is None else f"data set {self.replicate}"
            least = self.elbo.min() if self.replicate is None else self.elbo[self.replicate]
            return f"{type(self.model).__name__}: {here}; least ELBO {least:.2f} nats"
        elbo, bound = self.elbo[self.best], self.model.objective or "ELBO"
        agree = int((self.elbo > elbo - 1).sum())
        up_to = f" up to {self.model.lacks}" if self.model.lacks else ""
        parts = ", ".join(str(self.settings[key]) for key in ("family", "estimator"))
        return (
            f"{type(self.model).__name__}: {parts}; {bound} {elbo:.2f} nats{up_to}, {agree} of {len(self.elbo)} "
            f"replicates within 1 nat of it; {int(self.history.step[-1])} steps, {self.gradients} gradients each, in "
            f"{self.seconds:.1f} s" + (f"\n{self.verdict}" if self.judged else "")
        )


def in_a_folder(path: Path) -> Path:
    """Return a path of a file to be written; raise `ConfigError` where its folder does not exist."""
    require(path.parent.is_dir(), f"there is no folder '{path.parent}' to write {path.name} to; make it first.")
    return path
