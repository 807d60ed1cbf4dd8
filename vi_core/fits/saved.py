"""Fits in files: `fit.save("fit.npz")`, and `vi_core.load("fit.npz", model, data)`, which returns the same fit.

An .npz file of arrays, from which nothing is unpickled. It holds neither the model, which is code, nor the data:

draws.<name>     draws of latents and quantities, (n, *event); (R, n, *event) where replicates have data of their own
elbo             (R,) ELBO of each replicate
step, seconds    (T,) of the recorded history; its columns are `bound` and history.<name>, (T, R)
state.<name>     the state of the step: parameters of q, which replicates are alive, averages, the optimizer's moments
looks.<name>     a few draws of the latents; `looks.log_joint` is their log p(x, z), `looks.log_q` log q(z), (S, R)
fit              everything else, as JSON: `Stored`

A file is believed where the data have its checksum, the model has its latents, the state fits its parts, and model and
q give the stored draws the densities that they had.
"""

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, cast

import numpy as np
import torch
from torch import Tensor

import vi_core
from vi_core.datasets.columns import Columns, InMemory, column_data, named_columns, rows_first
from vi_core.errors import ConfigError, DataError, Unsupported
from vi_core.fits.parts import described
from vi_core.fits.trust import fixed_draws
from vi_core.models.bayesian.base import BayesianModel
from vi_core.models.stan.model import StanModel
from vi_core.problem import Loaded, Problem, assemble, default_dtype
from vi_core.storage.arrays import PLAIN, Arrays, read_arrays
from vi_core.storage.files import replacing
from vi_core.storage.layout import fault
from vi_core.storage.reading import damaged, parse_json
from vi_core.training.history import History
from vi_core.types import Latents

if TYPE_CHECKING:
    from vi_core.fits.fitted import Fit

PARTS = ("family", "bound", "estimator", "optimizer")
LOOKS = 3  # draws of each replicate whose densities must be the stored ones
STATE, COLUMN, LOOK, DRAWN = "state.", "history.", "looks.", "draws."


class Stored(TypedDict):
    """The entry `fit` of a file.

    Attributes:
        schema: Of this layout.
        version: Of the program that wrote the file.
        parts: Settings by group; the class's name of an object that `load` needs to be given again.
        names: Of the parts, for `repr`.
        seconds, gradients, replicate, combine: As those of `Fit`.
        replicates: R.
        per_replicate, batch_size, dtype: As those of `vi_core.fit`.
        columns: Names of the data, in their order.
        checksum: Of the data, before any cast.
        latents: Support and shape by name.
        history: Names of the columns, the bound's first.
    """

    schema: Literal[1]
    version: str
    parts: dict[str, dict | str]
    names: dict[str, str]
    seconds: float
    gradients: int
    replicate: int | None
    combine: Literal["none", "evidence"]
    replicates: int
    per_replicate: list[str]
    batch_size: int | None
    dtype: Literal["float32", "float64"]
    columns: list[str]
    checksum: str
    latents: dict[str, str]
    history: list[str]


@dataclass(frozen=True, repr=False)
class Reopened:
    """What a fit needs of the run that it came from, from a file.

    Attributes:
        config: The parts by group.
        problem: Data and parts, with the parameters of the fit, on the CPU.
        history: What was recorded over the steps.
        gradients: Gradients of the density that each replicate had taken.
    """

    config: dict[str, Any]
    problem: Problem
    history: History
    gradients: int

    @property
    def alive(self) -> np.ndarray:
        """(R,) which replicates have not diverged."""
        return self.problem.step.alive.numpy()


def save(fit: "Fit", target: Path) -> None:
    """Write a fit to a file, completely or not at all."""
    if target.suffix != ".npz":
        raise ConfigError(f"save writes an .npz file; give a path that ends so, not '{target}'.")
    history, problem = fit.history, fit.problem
    if not isinstance(fit.model, (BayesianModel, StanModel)):
        raise Unsupported(
            f"save is for a model that vi_core.fit takes, and this is a {type(fit.model).__name__}; keep the folder "
            "of its run, which vi_core.load reopens."
        )
    arrays: dict[str, Any] = {f"{DRAWN}{name}": value for name, value in _draws(fit).items()}
    arrays |= {f"{STATE}{name}": value for name, value in problem.step.state_dict().items()}
    arrays |= {f"{LOOK}{name}": value for name, value in _looks(problem).items()}
    arrays |= {f"{COLUMN}{name}": values for name, values in history.columns.items() if name != history.bound}
    arrays |= {"elbo": fit.elbo, "step": history.step, "seconds": history.seconds}
    arrays |= {"bound": history.columns[history.bound], "fit": np.array(json.dumps(_stored(fit)))}
    plain: dict[str, Any] = {name: v.cpu().numpy() if isinstance(v, Tensor) else v for name, v in arrays.items()}
    with replacing(target) as unfinished, unfinished.open("wb") as file:
        np.savez_compressed(file, **plain)


def _stored(fit: "Fit") -> Stored:
    problem, history = fit.problem, fit.history
    decode = cast(Columns, problem.data.decode)
    return {
        "schema": 1,
        "version": vi_core.__version__,
        "parts": {group: described(fit.run.config[group]) for group in PARTS},
        "names": fit.settings,
        "seconds": fit.seconds,
        "gradients": fit.gradients,
        "replicate": fit.replicate,
        "combine": fit.combine,
        "replicates": problem.family.replicates,
        "per_replicate": sorted(fit.model.per_replicate),
        "batch_size": problem.batches.size if problem.batches.full is None else None,
        "dtype": "float32" if fit.dtype == torch.float32 else "float64",
        "columns": [*decode.shapes, *decode.constants],
        "checksum": problem.checksum,
        "latents": {name: str(latent) for name, latent in fit.model.latents.items()},
        "history": [history.bound, *(name for name in history.columns if name != history.bound)],
    }


def _draws(fit: "Fit") -> dict[str, Tensor]:
    """Return draws of what the fit describes, which is each replicate where all have data of their own."""
    with torch.random.fork_rng(devices=[]):
        if fit.replicate is not None or not fit.model.per_replicate:
            return fit.draws()
        each = [fit.at(replicate).draws() for replicate in range(fit.problem.family.replicates)]
    return {name: torch.stack([draws[name] for draws in each]) for name in each[0]}


def _looks(problem: Problem) -> dict[str, Tensor]:
    """Return a few draws of q of all replicates with their densities."""
    with fixed_draws(problem), default_dtype(problem.step.witness.dtype):
        z = problem.family.distribution(problem.family.variational()).sample(LOOKS)
    return dict(z) | _densities(problem, dict(z))


@torch.no_grad()
def _densities(problem: Problem, z: Latents) -> dict[str, Tensor]:
    """Return log p(x, z) and log q(z) of draws, (S, R), one draw after the other for the sake of memory."""
    x = problem.batches.whole(problem.model)
    with default_dtype(problem.step.witness.dtype):
        q = problem.family.distribution(problem.family.variational())
        each = [problem.model.log_joint({n: v[i : i + 1] for n, v in z.items()}, x) for i in range(LOOKS)]
        return {"log_joint": torch.cat(each).squeeze(2), "log_q": q.log_prob(z).squeeze(2)}


def load_fit(path: Path, model: Any, data: Any, again: dict[str, Any]) -> "Fit":
    """Return the fit in a file, as `vi_core.load` describes."""
    from vi_core.fits.fitted import Fit

    stored, arrays = _read(path)
    if model is None or data is None:
        raise ConfigError(
            f"{path} holds a fit without its model and data, which are code and numbers of yours; "
            f"use vi_core.load('{path}', model, data)."
        )
    if not isinstance(model, (BayesianModel, StanModel)):
        found = f"the class {model.__name__}; make one of it" if isinstance(model, type) else type(model).__name__
        raise ConfigError(f"{path}: the model must be a vi_core.BayesianModel or a StanModel, not {found}.")
    config = {group: _part(path, group, stored["parts"], again) for group in PARTS}
    unknown = sorted(again.keys() - config.keys())
    if unknown:
        raise ConfigError(f"load has no argument '{unknown[0]}'; it takes a model, data, and {', '.join(PARTS)}.")
    elbo = _shaped(path, arrays, "elbo", (stored["replicates"],))  # before anything of that size is made
    if np.isnan(elbo).any():
        raise damaged(path, "an ELBO is no number")
    problem = _assembled(path, stored, config, model, data)
    _fill(path, stored, arrays, problem)
    run = Reopened(config, problem, _history(path, stored, arrays), stored["gradients"])
    whole = problem.batches.whole(model)
    found = Fit(run, stored["names"], stored["seconds"], whole, stored["replicate"], stored["combine"])
    vars(found)["elbo"] = elbo
    return found


def _read(path: Path) -> tuple[Stored, Arrays]:
    """Return the entries of a file, in their types."""
    if not path.exists():
        raise DataError(f"{path} is not there; give a file that Fit.save has written, or the folder of a run.")
    arrays = read_arrays(path, PLAIN)
    if "fit" not in arrays:
        raise DataError(f"{path} is no fit that can be reopened: it has no entry 'fit'; give a file of Fit.save.")
    content = parse_json(str(arrays["fit"]), path)
    if content.get("schema") != 1:
        version = content.get("version")
        raise DataError(f"{path} is of version {version!s:.20} of vi_core, and {vi_core.__version__} cannot read it.")
    wrong = fault(content, Stored)
    if not wrong and not (content["parts"].keys() == {*PARTS} and content["names"].keys() == {"family", "estimator"}):
        wrong = "its parts are others"
    if not wrong and not (content["history"] and content["replicates"] >= 1):
        wrong = "it has no history, or no replicates"
    if not wrong and not (content["replicate"] is None or 0 <= content["replicate"] < content["replicates"]):
        wrong = f"there is no replicate {content['replicate']}"
    if wrong:
        raise damaged(path, wrong)
    return cast(Stored, content), arrays


def _part(path: Path, group: str, parts: dict[str, Any], again: dict[str, Any]) -> Any:
    """Return the settings of a part, or the object that is given again."""
    settings, given = parts[group], again.get(group)
    if isinstance(settings, dict):
        if given is not None:
            raise ConfigError(f"{path} has the settings of its {group}; leave {group}= out.")
        return settings
    if type(given).__name__ != settings:
        raise ConfigError(
            f"{path} was fitted with an object of {settings}, a class of your own, whose settings no file can hold; "
            f"pass one again: vi_core.load('{path}', model, data, {group}={settings}(...))."
        )
    return copy.deepcopy(given)


def _assembled(path: Path, stored: Stored, config: dict[str, Any], model: Any, data: Any) -> Problem:
    """Return the problem at its first parameters, once the data are known to be those of the fit."""
    sparing, dtype = isinstance(model, StanModel), getattr(torch, stored["dtype"])
    columns, names = named_columns(data, sparing=sparing), stored["columns"]
    other = sorted(columns.keys() ^ {*names})
    if other:
        who = "the data lack" if other[0] in names else "the fit does not know"
        raise DataError(f"{path}: {who} '{other[0]}'; pass the data of the fit, which are {', '.join(names)}.")
    if stored["per_replicate"]:
        columns = rows_first(columns, stored["per_replicate"], stored["replicates"])
    loaded = column_data({name: columns[name] for name in names}, f"from Python: {', '.join(names)}")
    if loaded.checksum != stored["checksum"]:
        raise DataError(
            f"{path}: the data are not those of the fit (checksum {loaded.checksum} instead of {stored['checksum']}); "
            "pass the same numbers in the same order."
        )
    model.per_replicate = frozenset(stored["per_replicate"])
    whole = {"dataset": InMemory(loaded, batch_size=stored["batch_size"]), "model": model}
    moved = Loaded(loaded.to("cpu", dtype), loaded.checksum)
    whole |= {**config, "replicates": stored["replicates"]}
    with torch.random.fork_rng(devices=[]), default_dtype(dtype):
        problem = assemble(whole, torch.device("cpu"), dtype, torch.Generator(), moved, begin=False)
    latents = {name: str(latent) for name, latent in model.latents.items()}
    if latents != stored["latents"]:
        theirs, own = (", ".join(f"{n} ({z})" for n, z in each.items()) for each in (stored["latents"], latents))
        raise DataError(f"{path}: the model has the latents {own}, and the fit {theirs}; pass the model of the fit.")
    return problem


def _fill(path: Path, stored: Stored, arrays: Arrays, problem: Problem) -> None:
    """Set the parameters; raise `DataError` where they do not fit, or where densities are not the stored ones."""
    try:
        state = {n.removeprefix(STATE): torch.from_numpy(v) for n, v in arrays.items() if n.startswith(STATE)}
        problem.step.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        raise damaged(path, f"its state does not fit its parts: {' '.join(str(error).split())}") from error
    wanted = _shapes_of_looks(problem)
    looks = {name: torch.from_numpy(_shaped(path, arrays, f"{LOOK}{name}", shape)) for name, shape in wanted.items()}
    found = _densities(problem, {name: looks[name] for name in problem.model.latents})
    rtol = torch.finfo(getattr(torch, stored["dtype"])).eps ** 0.5
    for name, what in (("log_joint", "log p(x, z)"), ("log_q", "log q(z)")):
        if not torch.allclose(found[name], looks[name], rtol=rtol, atol=10 * rtol, equal_nan=True):
            raise DataError(
                f"{path}: {what} at a stored draw is {float(found[name][0, 0]):.8g}, and was "
                f"{float(looks[name][0, 0]):.8g} in the fit; pass the model of the fit, as it was then."
            )


def _shapes_of_looks(problem: Problem) -> dict[str, tuple[int, ...]]:
    """Return the shapes of what `_looks` returns."""
    replicates = problem.family.replicates
    latents = {name: (LOOKS, replicates, 1, *latent.shape) for name, latent in problem.model.latents.items()}
    return latents | dict.fromkeys(("log_joint", "log_q"), (LOOKS, replicates))


def _history(path: Path, stored: Stored, arrays: Arrays) -> History:
    bound, rows = stored["history"][0], arrays["step"].size
    kept = {name: "bound" if name == bound else f"{COLUMN}{name}" for name in stored["history"]}
    each = {name: _shaped(path, arrays, array, (rows, stored["replicates"])) for name, array in kept.items()}
    step, seconds = (_shaped(path, arrays, name, (rows,)) for name in ("step", "seconds"))
    if not rows or step[0] < 1 or (np.diff(step) <= 0).any():
        raise damaged(path, "its steps are not in order")
    return History(bound, step, seconds, each)


def _shaped(path: Path, arrays: Arrays, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return an array, which must have a shape."""
    array = arrays[name]
    if array.shape != shape or array.dtype.kind not in "fi":
        raise damaged(path, f"'{name}' has type {array.dtype} and shape {array.shape}, not {shape}")
    return array
