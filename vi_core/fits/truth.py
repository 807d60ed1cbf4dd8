"""Reference answers for any model with shared continuous latents: long Markov chains that are checked, and kept.

Chains of Hamiltonian Monte Carlo run side by side on unconstrained space, from the modes that searches from dispersed
points find. They must agree (split R-hat), have a large effective size and hardly any divergent transition; moments,
quantiles and, by bridge sampling, the log evidence follow with their Monte Carlo errors. Answers are kept in a file by
model and data.
"""

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from vi_core.algorithms.hamiltonian import Coordinates, hamiltonian
from vi_core.algorithms.whitening import place
from vi_core.diagnostics.bridge import bridge_evidence
from vi_core.diagnostics.chains import effective_size, mean_error, quantile_error, split_rhat
from vi_core.diagnostics.marginals import scalars
from vi_core.errors import LabError, Unsupported, require
from vi_core.families.unconstrained import Space
from vi_core.models.base import HasColumns, Model
from vi_core.problem import Problem, default_dtype
from vi_core.storage.files import replacing
from vi_core.storage.reading import damaged, read_json

CHAINS = 32
STARTS = 8  # searches for a mode; each serves CHAINS/STARTS chains
DRAWS = 400  # of each chain
WARMUP = 400  # transitions before them
LARGEST_RHAT = 1.01
LEAST_EFFECTIVE = 1000  # independent draws of each coordinate
MOST_DIVERGENT = 0.001  # share of the transitions
VERSION = 1  # of the files' layout

LogDensity = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Known:
    """One scalar of the posterior, from checked chains.

    Attributes:
        mean, sd, q05, q95: Moments and quantiles.
        error: Monte Carlo standard error of the mean.
        quantile_error: Of the quantiles, the larger of the two.
    """

    mean: float
    sd: float
    q05: float
    q95: float
    error: float
    quantile_error: float


@dataclass(frozen=True)
class Reference:
    """Reference answers for a model and its data.

    Attributes:
        quantities: By name of the scalar, such as `theta[0]`.
        log_evidence: In nats.
        evidence_error: Its standard error.
        rhat: Largest split R-hat.
        effective: Smallest effective number of draws.
        divergent: Divergent transitions.
        gradients: Gradient evaluations of each chain.
        seed: Of the chains.
        seconds: That they took.
    """

    quantities: dict[str, Known]
    log_evidence: float
    evidence_error: float
    rhat: float
    effective: float
    divergent: int
    gradients: int
    seed: int
    seconds: float


def reference(problem: Problem, *, seed: int = 0, draws: int = DRAWS) -> Reference:
    """Sample the posterior of a problem, check the chains, and return what they say.

    Args:
        problem: With shared continuous latents and all data in each step.
        seed: Of the chains; the state of torch's own stream stays as it was.
        draws: Of each of the 32 chains, at least 100.

    Raises:
        Unsupported: For latents of each data point, discrete ones.
        LabError: Where the chains do not agree; nothing of them is believed.
    """
    require(draws >= 100, f"draws={draws} must be at least 100.")
    model, began = problem.model, time.perf_counter()
    if model.has_local or any(latent.support.discrete for latent in model.latents.values()):
        raise Unsupported(
            f"task=truth samples continuous latents that all data points share, unlike those of {type(model).__name__}."
        )
    space, x = Space(model.latents), problem.batches.whole(model)
    like = problem.step.witness.new_zeros(space.size, dtype=torch.float64)

    def log_density(u: Tensor) -> Tensor:
        z = space.values(u[:, None, None])
        log_det = torch.stack(list(space.log_dets(u[:, None, None], z).values())).sum(dim=0)
        return (model.log_joint(z, x) + log_det).flatten()

    with torch.random.fork_rng(devices=[]), default_dtype(torch.float64):
        torch.random.default_generator.manual_seed(seed)
        chains = hamiltonian(log_density, starts(log_density, like), draws, WARMUP)
        kept = chains.draws.numpy()
        rhat, effective = float(split_rhat(kept).max()), float(effective_size(kept).min())
        check(rhat, effective, chains.divergent, CHAINS * draws)
        evidence = bridge_evidence(log_density, kept, seed, min(effective, kept.shape[0] * kept.shape[1]))
        quantities = known(model, space, kept, x)
    seconds = time.perf_counter() - began
    return Reference(quantities, *evidence, rhat, effective, chains.divergent, chains.gradients, seed, seconds)


def starts(log_density: LogDensity, like: Tensor) -> Coordinates:
    """Return coordinates of each chain: groups of chains share a mode that was found from a point of their own."""
    found = [place(log_density, like, "mode", "full") for _ in range(STARTS)]
    places = ([one.point for one in found], [one.factor for one in found if one.factor is not None])
    return Coordinates(*(torch.stack(each).repeat_interleave(CHAINS // STARTS, dim=0) for each in places))


def check(rhat: float, effective: float, divergent: int, transitions: int) -> None:
    """Raise `LabError` for chains that are not to be believed."""
    wrong = []
    if not rhat < LARGEST_RHAT:
        wrong.append(f"split R-hat is {rhat:.3f}, above {LARGEST_RHAT}")
    if not effective > LEAST_EFFECTIVE:
        wrong.append(f"the smallest effective size is {effective:.0f}, below {LEAST_EFFECTIVE}")
    if divergent > MOST_DIVERGENT * transitions:
        wrong.append(f"{divergent} of {transitions} transitions diverged")
    if wrong:
        raise LabError(f"the chains are not to be believed: {'; '.join(wrong)}. Reparametrise the model.")


def known(model: Model, space: Space, kept: ndarray, x: Any) -> dict[str, Known]:
    """Return moments, quantiles and errors of each scalar, of latents and of the model's `quantities`."""
    chains, count, size = kept.shape
    with torch.no_grad():
        z = space.values(torch.from_numpy(kept.reshape(-1, 1, 1, size)))
        values = model.reported(z, x) if isinstance(model, HasColumns) else z
    found = {}
    for name, value in values.items():
        for scalar, column in scalars(name, value[:, 0, 0].double().numpy()):
            found[scalar] = one_known(column.reshape(chains, count, 1))
    return found


def one_known(draws: ndarray) -> Known:
    """Return moments, quantiles and errors of one scalar from draws (C, N, 1)."""
    ends = max(float(quantile_error(draws, p)[0]) for p in (0.05, 0.95))
    q05, q95 = np.quantile(draws, (0.05, 0.95))
    return Known(float(draws.mean()), float(draws.std()), float(q05), float(q95), float(mean_error(draws)[0]), ends)


def key(config: Mapping[str, Any], checksum: str) -> str:
    """Return the name under which an answer is kept: a hash of the model's settings and the data's checksum."""
    model = {name: value for name, value in config["model"].items() if name != "path"}
    text = json.dumps([VERSION, model, checksum], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def folder() -> Path:
    """Return the folder of answers: `vi-lab/truth` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vi-lab" / "truth"


def keep(name: str, found: Reference) -> Path:
    """Write an answer under its key; return its path."""
    path = folder() / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        unfinished.write_text(json.dumps({"version": VERSION, **asdict(found)}, indent=2) + "\n", encoding="utf-8")
    return path


def recall(name: str) -> Reference | None:
    """Return the answer kept under a key, or None; `DataError` in one line for a damaged file."""
    path = folder() / f"{name}.json"
    if not path.is_file():
        return None
    content = read_json(path)
    try:
        if content.pop("version") != VERSION:
            raise ValueError("it is of another version")
        quantities = {each: Known(**values) for each, values in content.pop("quantities").items()}
        found = Reference(quantities, **content)
        numbers = [v for q in quantities.values() for v in vars(q).values()] + [
            found.log_evidence,
            found.evidence_error,
        ]
        if not all(isinstance(v, (int, float)) and math.isfinite(v) for v in numbers):
            raise ValueError("a number is missing")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise damaged(path, error) from error
    return found
