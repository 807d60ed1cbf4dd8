"""`vi_core.fit`: a posterior for a model and data of one's own, in one call.

    fit = vi_core.fit(Logistic(), {"x": x, "y": y})
    fit.summary()                      # mean, deviation and quantiles of each latent
    fit.predict({"x": new}, 1000)      # draws of new observations

The parts, the training loop and the numbers are those of the command line.
"""

import copy
import inspect
import logging
import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch

from vi_core.bounds.base import Bound
from vi_core.datasets.columns import InMemory, column_data, named_columns, rows_first, text_columns
from vi_core.datasets.table import shortened
from vi_core.errors import ConfigError, DataError, LabError, Unsupported, did_you_mean
from vi_core.estimators.base import Estimator
from vi_core.families.base import Family
from vi_core.fits.fitted import COMBINATIONS, Combine, Fit
from vi_core.fits.parts import name_of, part
from vi_core.fits.recipes import RECIPES, chosen_estimator, chosen_optimizer, chosen_trainer, named_estimator
from vi_core.models.base import require_points
from vi_core.models.bayesian.base import BayesianModel
from vi_core.models.stan.model import StanModel
from vi_core.optimizers.base import Optimizer
from vi_core.problem import Loaded, assemble, default_dtype
from vi_core.run import Run
from vi_core.schema import check_part, conforms, shown
from vi_core.training.callbacks import Callback
from vi_core.training.loop import Loop

log = logging.getLogger(__name__)


def fit(
    model: BayesianModel | StanModel,
    data: Any,
    *,
    family: str | Mapping[str, Any] | Family = "full_rank_normal",
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
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float64,
    test: Any = None,
    progress: Callable[[int, float], None] | None = None,
    **settings: Any,
) -> Fit:
    """Fit a model to data, and return the posterior.

    Args:
        model: Prior and likelihood, or a Stan program.
        data: Arrays, tensors or columns of a data frame by name; arrays of one length are rows, others constants.
            Columns of text in a data frame are left out, and named in a warning.
        family, bound, optimizer: A part's name, as on the command line, its settings as a mapping, or an object, of
            which a copy is used. A family is made for latents and replicates: `FullRankNormal(fit.model.latents, 4,
            start="mode", preconditioner="full")` after a first fit, or after `model.observe(tensors, N)`.
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
        device: Of torch, such as `cpu`, `cuda` or `cuda:1`.
        dtype: Floating type of data and parameters, torch.float64 or torch.float32.
        test: Held-out rows with the same names, scored in the course of a fit with `batch_size`.
        progress: Called with steps made and the bound of the best replicate, now and then.
        settings: Settings of a family that is named, such as `start` and `preconditioner`.

    Raises:
        LabError: In one line, for a model or data that cannot be fitted.
    """
    began = time.perf_counter()
    _check(model, recipe, combine, max_seconds, per_replicate, progress)
    replicates, steps, seed, num_samples = map(plain, (replicates, steps, seed, num_samples))
    batch_size, max_gradients = map(plain, (batch_size, max_gradients))
    _check_numbers(replicates=replicates, steps=steps, seed=seed)
    _check_numbers(optional=True, batch_size=batch_size, max_gradients=max_gradients)
    target = _chosen_device(device, dtype)
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
    check_part(objective, "bound", Bound)
    config = {
        "dataset": InMemory(loaded, batch_size=batch_size),
        "model": model,
        "family": _chosen_family(family, settings),
        "bound": objective,
        "estimator": copy.deepcopy(chosen_estimator(estimator, objective, num_samples)),
        "optimizer": copy.deepcopy(chosen_optimizer(optimizer, recipe, steps)),
        "trainer": chosen_trainer(
            recipe, steps=steps, max_gradients=max_gradients, eval_every=0 if test is None else 1
        ),
        "replicates": replicates,
    }
    deadline = math.inf if max_seconds is None else began + max_seconds
    with torch.random.fork_rng(), default_dtype(dtype):
        torch.random.default_generator.manual_seed(seed)
        moved = Loaded(loaded.to(target, dtype), loaded.checksum)
        with _text_refused(words := text_columns(data)):
            problem = assemble(config, target, dtype, torch.Generator().manual_seed(seed), moved)
        if words:
            log.warning("columns of text are left out: %s", shortened(words))
        if test is not None:
            require_points(model, "test")
        run = Run(config, problem, interrupted=lambda: time.perf_counter() > deadline)
        if progress is not None:
            run.callbacks.chosen["progress"] = _Progress(progress)
        run.loop.run()
        chosen = {"family": family, "estimator": named_estimator(estimator, objective)}
        names = {noun: own if isinstance(own, str) else name_of(noun, own) for noun, own in chosen.items()}
        seconds = time.perf_counter() - began
        found = Fit(run, names, seconds, problem.batches.whole(model), combine=combine)
        if not np.isfinite(found.elbo).any():
            raise LabError("every replicate diverged; standardise the data, or use a smaller optimizer.lr.")
    return found


@contextmanager
def _text_refused(words: Collection[str]) -> Iterator[None]:
    """Context manager: where a model asks for a column of text, the error says that it is one."""
    try:
        yield
    except LabError as error:
        named = next((name for name in words if f"called '{name}'" in str(error)), None)
        if named is None:
            raise
        raise DataError(f"data '{named}' holds text, not numbers; encode its values as numbers first.") from error


def _check(model: Any, recipe: Any, combine: Any, max_seconds: Any, per_replicate: Any, progress: Any) -> None:
    """Raise `ConfigError` for an argument of a wrong kind."""
    for setting, value, allowed in (("recipe", recipe, RECIPES), ("combine", combine, COMBINATIONS)):
        if value not in allowed:
            raise ConfigError(f"{setting}={value!r} must be one of {', '.join(allowed)}.")
    if not isinstance(model, (BayesianModel, StanModel)):
        found = f"the class {model.__name__}; make one of it" if isinstance(model, type) else type(model).__name__
        raise ConfigError(f"fit needs a vi_core.BayesianModel with prior and likelihood, not {found}.")
    if max_seconds is not None and not (conforms(max_seconds, float) and max_seconds > 0):
        raise ConfigError(f"max_seconds={shown(max_seconds)} must be a number above 0, or None for no limit.")
    if isinstance(per_replicate, str) or not isinstance(per_replicate, Collection):
        raise ConfigError(f"per_replicate={shown(per_replicate)} must be a list of names of data, such as ['y'].")
    if not (progress is None or callable(progress)):
        raise ConfigError(f"progress={shown(progress)} must be a function of steps made and the bound, or None.")


def plain(value: Any) -> Any:
    """Return an integer of NumPy as one of Python, and anything else as it is."""
    return int(value) if isinstance(value, np.integer) else value


def _check_numbers(optional: bool = False, **numbers: Any) -> None:
    """Raise `ConfigError` for a number that is not whole, or is below 1; only a seed may be 0."""
    for setting, value in numbers.items():
        least = 0 if setting == "seed" else 1
        if not ((optional and value is None) or (conforms(value, int) and value >= least)):
            limit = ", or None for no limit" if optional else ""
            raise ConfigError(f"{setting}={shown(value)} must be a whole number, at least {least}{limit}.")


def _chosen_family(family: Any, settings: Mapping[str, Any]) -> Any:
    """Return the settings of a family, or a copy of an object."""
    if isinstance(family, str):
        _check_settings(settings, family)
        return part("family", family, **settings)
    if isinstance(family, Mapping):
        return {**family, **settings}
    if not isinstance(family, Family):
        raise ConfigError(
            f"family={family!r:.60} must be a name, such as 'full_rank_normal', a mapping of settings, or an object "
            "made for the model's latents."
        )
    if settings:
        raise ConfigError(f"{next(iter(settings))}= is for a family that is named; set it where the object is made.")
    return copy.deepcopy(family)


def _check_settings(settings: Mapping[str, Any], family: str) -> None:
    """Raise `ConfigError` for an argument that neither `fit` nor the family has."""
    own = [key for key in part("family", family) if key != "_target_"]
    known = [*own, *(p.name for p in inspect.signature(fit).parameters.values() if p.kind is p.KEYWORD_ONLY)]
    for key in settings:
        if key not in own:
            settings_of = ", ".join(own) or "none"
            raise ConfigError(
                f"{key}= is no argument of fit, and no setting of family '{family}'.{did_you_mean(key, known)} "
                f"Settings of the family: {settings_of}."
            )


def _chosen_device(device: Any, dtype: Any) -> torch.device:
    """Return a device that has a floating type; raise `ConfigError` for one that is not there, or another type."""
    if dtype not in (torch.float32, torch.float64):
        raise ConfigError(f"dtype={shown(dtype)} must be torch.float64 or torch.float32.")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError):
        raise ConfigError(f"device={shown(device)} is no device of torch; use 'cpu', 'cuda' or 'mps'.") from None
    try:
        torch.zeros((), device=chosen, dtype=dtype).item()
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        way_out = "use device='cpu', or dtype=torch.float32" if chosen.type == "mps" else "use device='cpu'"
        raise ConfigError(f"device='{chosen}' with dtype={dtype} is not there on this machine; {way_out}.") from error
    return chosen


class _Progress(Callback):
    """Tells a function of steps made and of the highest bound at each look at the device."""

    def __init__(self, report: Callable[[int, float], None]):
        self.report = report

    def on_rows(self, loop: Loop, rows: slice) -> None:
        if loop.recorder.rows:
            self.report(loop.done, float(loop.recorder.latest().max()))
