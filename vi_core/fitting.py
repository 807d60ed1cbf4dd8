"""`vi_core.fit`: a posterior for a model and data of one's own, in one call.

    fit = vi_core.fit(Logistic(), {"x": x, "y": y})
    fit.summary()                      # mean, deviation and quantiles of each latent
    fit.predict({"x": new}, 1000)      # draws of new observations

The parts, the training loop and the numbers are those of the command line.
"""

import math
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

import numpy as np
import torch

from vi_core.bounds.base import Bound
from vi_core.datasets.columns import InMemory, column_data, named_columns, rows_first
from vi_core.errors import ConfigError, LabError, Unsupported
from vi_core.estimators.base import Estimator
from vi_core.fitted import COMBINATIONS, Combine, Fit, part_name
from vi_core.models.base import require_points
from vi_core.models.bayesian.base import BayesianModel
from vi_core.models.stan.model import StanModel
from vi_core.optimizers.base import Optimizer
from vi_core.parts import part
from vi_core.problem import Loaded, assemble, default_dtype
from vi_core.recipes import RECIPES, chosen_estimator, chosen_optimizer, chosen_trainer
from vi_core.run import Run
from vi_core.training.callbacks import Callback
from vi_core.training.loop import Loop


def fit(
    model: BayesianModel | StanModel,
    data: Any,
    *,
    family: Any = "full_rank_normal",
    bound: str | Mapping[str, Any] | Bound = "elbo",
    estimator: str | Mapping[str, Any] | Estimator = "auto",
    optimizer: str | Mapping[str, Any] | Optimizer = "adam",
    num_samples: int = 8,
    recipe: Literal["auto", "none"] = "auto",
    steps: int = 875,
    batch_size: int | None = None,
    max_gradients: int | None = None,
    max_seconds: float | None = None,
    replicates: int = 4,
    per_replicate: Collection[str] = (),
    combine: Combine = "none",
    seed: int = 0,
    device: str = "cpu",
    dtype: torch.dtype = torch.float64,
    test: Any = None,
    progress: Callable[[int, float], None] | None = None,
    **settings: Any,
) -> Fit:
    """Fit a model to data, and return the posterior.

    Args:
        model: Prior and likelihood, or a Stan program.
        data: Arrays, tensors or columns of a data frame by name; arrays of one length are rows, others constants.
        family, bound, optimizer: A part's name, as on the command line, or its settings as a mapping; bound and
            optimizer may be objects.
        estimator: The same; `auto` is sticking the landing where it is unbiased, else the pathwise gradient.
        num_samples: K, samples per step.
        recipe: `auto` trains in stages of doubling length, each of which ends in an average of its last iterates, until
            a stage changes nothing; `none` makes all steps, at a rate that falls to a tenth.
        steps: Gradient steps: at most, or without a recipe exactly.
        batch_size: Rows in a step, or None for all of them.
        max_gradients: Gradients of the density that a replicate may take, its start included; None for no limit.
        max_seconds: Ends training after this time; None for no limit.
        replicates: R, fits from different starting points, trained together.
        per_replicate: Names of data that have a first axis of replicates, (R, N, *shape): R data sets are fitted at
            once, each by one replicate, which `Fit.at` chooses.
        combine: `evidence` describes the mixture of the modes in which replicates ended, by their shares of the
            evidence; `none` the replicate with the highest ELBO.
        seed: Of all random numbers; the state of torch's own stream stays as it was.
        device: Of torch.
        dtype: Floating type of data and parameters.
        test: Held-out rows with the same names, scored in the course of a fit with `batch_size`.
        progress: Called with steps made and the bound of the best replicate, now and then.
        settings: Settings of the family, such as `start` and `preconditioner`.

    Raises:
        LabError: In one line, for a model or data that cannot be fitted.
    """
    began = time.perf_counter()
    _check(model, family, recipe, combine, replicates=replicates, steps=steps, seed=seed)
    sparing = isinstance(model, StanModel)
    columns = rows_first(named_columns(data, sparing=sparing), per_replicate, replicates)
    held_out = None if test is None else rows_first(named_columns(test), per_replicate, replicates)
    loaded = column_data(columns, f"from Python: {', '.join(columns)}", held_out)
    if combine == "evidence" and per_replicate:
        raise Unsupported("replicates with data of their own have no common evidence; leave combine out.")
    if sparing and per_replicate:
        raise Unsupported("a Stan program has one data set for all replicates; leave per_replicate out.")
    model.per_replicate = frozenset(per_replicate)
    objective = part("bound", bound) if isinstance(bound, str) else bound
    config = {
        "dataset": InMemory(loaded, batch_size=batch_size),
        "model": model,
        "family": part("family", family, **settings) if isinstance(family, str) else {**family, **settings},
        "bound": objective,
        "estimator": chosen_estimator(estimator, objective, num_samples),
        "optimizer": chosen_optimizer(optimizer, recipe, steps),
        "trainer": chosen_trainer(
            recipe, steps=steps, max_gradients=max_gradients, eval_every=0 if test is None else 1
        ),
        "replicates": replicates,
    }
    target, deadline = torch.device(device), math.inf if max_seconds is None else began + max_seconds
    with torch.random.fork_rng(), default_dtype(dtype):
        torch.random.default_generator.manual_seed(seed)
        moved = Loaded(loaded.to(target, dtype), loaded.checksum)
        problem = assemble(config, target, dtype, torch.Generator().manual_seed(seed), moved)
        if test is not None:
            require_points(model, "test")
        run = Run(config, problem, interrupted=lambda: time.perf_counter() > deadline)
        if progress is not None:
            run.callbacks.chosen["progress"] = _Progress(progress)
        run.loop.run()
        names = {noun: part_name(config[noun]) for noun in ("family", "estimator")}
        names |= {"family": family} if isinstance(family, str) else {}
        seconds = time.perf_counter() - began
        found = Fit(run, names, seconds, problem.batches.whole(model), combine=combine)
        if not np.isfinite(found.elbo).any():
            raise LabError("every replicate diverged; standardise the data, or use a smaller optimizer.lr.")
    return found


def _check(model: Any, family: Any, recipe: Any, combine: Any, **numbers: Any) -> None:
    """Raise `ConfigError` for a wrong model, family, recipe, combination or number; only a seed may be 0."""
    for setting, value, allowed in (("recipe", recipe, RECIPES), ("combine", combine, COMBINATIONS)):
        if value not in allowed:
            raise ConfigError(f"{setting}={value!r} must be one of {', '.join(allowed)}.")
    if not isinstance(model, (BayesianModel, StanModel)):
        found = f"the class {model.__name__}; make one of it" if isinstance(model, type) else type(model).__name__
        raise ConfigError(f"fit needs a vi_core.BayesianModel with prior and likelihood, not {found}.")
    for setting, value in numbers.items():
        least = 0 if setting == "seed" else 1
        if not isinstance(value, int) or value < least:
            raise ConfigError(f"{setting}={value!r} must be a whole number, at least {least}.")
    if not isinstance(family, (str, Mapping)):
        raise ConfigError(
            f"family={family!r:.60} must be a name, such as 'full_rank_normal', or a mapping of settings."
        )


class _Progress(Callback):
    """Tells a function of steps made and of the highest bound at each look at the device."""

    def __init__(self, report: Callable[[int, float], None]):
        self.report = report

    def on_rows(self, loop: Loop, rows: slice) -> None:
        if loop.recorder.rows:
            self.report(loop.done, float(loop.recorder.latest().max()))
