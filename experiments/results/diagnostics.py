"""Entries `diagnostics.gradient` and `diagnostics.likelihood` of summary.json, which only some settings ask for.

The first is the noise and the bias of the gradient estimates at the present parameters; the second is the held-out
log-likelihood by importance sampling.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from vi_core.algorithms.gradient import estimate
from vi_core.diagnostics.gradient_noise import (
    exact_gradient,
    gradient_draws,
    layer_distances,
    layers,
    noise_of,
    squared_distances,
    standardised_errors,
    stored,
)
from vi_core.diagnostics.importance import held_out_likelihood
from vi_core.errors import Unsupported
from vi_core.models.base import HasColumns, HasDenoisingTerms
from vi_core.problem import Problem
from vi_core.training.checkpoint import same_draws_after

from .summary import spread

FALSE_ALARM = 1e-3  # probability that an unbiased estimator exceeds the limit on its standardised errors


def gradient_noise(problem: Problem, count: int, alive: np.ndarray) -> dict[str, Any]:
    """Return the noise of gradient estimates, in total and by latent, and the bias where the exact gradient is known.

    The random stream is put back afterwards, so that measuring does not change what training draws.

    Args:
        problem: The problem at its present parameters.
        count: Number of estimates, at least 2.
        alive: Replicates that count, (R,).
    """
    model, family, bound, x = problem.model, problem.family, problem.bound, fixed_batch(problem)
    if family.stored_names() is None and not family.fixed and family.replicates == 1:
        return network_noise(problem, x, count)
    _, latents = stored(family)
    with same_draws_after(problem.data.train.device):
        draws = gradient_draws(problem.estimator, model, family, bound, x, count)
    exact = exact_gradient(model, family, bound, x)
    return noise_entry(squared_distances(draws, latents), alive) | {
        "bias": None if exact is None else bias(standardised_errors(draws, exact).cpu().numpy()[alive], count),
    }


def noise_entry(squares: dict[str, Tensor], alive: np.ndarray) -> dict[str, Any]:
    """Return the noise in total and by latent, averaged over the R' replicates that are alive.

    `latents_se` is what the gradient estimates leave unknown of `latents`, √(Σ_r se_r²) / R'; replicates need not be
    equally noisy.

    Args:
        squares: Squared distances by latent, (n − 1, R).
        alive: Replicates that count, (R,).
    """
    total = noise_of(torch.stack([*squares.values()]).sum(dim=0)).sd
    noise = {name: noise_of(own) for name, own in squares.items()}
    errors = {name: np.linalg.norm(own.se.cpu().numpy()[alive]) / max(alive.sum(), 1) for name, own in noise.items()}
    return {
        "total": spread(total.cpu().numpy(), alive),
        "latents": {name: spread(own.sd.cpu().numpy(), alive)["mean"] for name, own in noise.items()},
        "latents_se": {name: float(error) if np.isfinite(error) else None for name, error in errors.items()},
    }


def fixed_batch(problem: Problem) -> Any:
    """Return what a step sees of all data, or a minibatch that is the same at each call: the first points."""
    with same_draws_after(problem.data.train.device):
        torch.manual_seed(0)  # pixels may be drawn from grey levels
        return problem.batches.decode(problem.batches.example())


def network_noise(problem: Problem, x: Any, count: int) -> dict[str, Any]:
    """Return what `gradient_noise` does, by layer of the networks of family and model."""
    model, family = problem.model, problem.family
    weights = layers(family, model)

    def surrogate() -> Tensor:
        return estimate(model, family, problem.estimator, problem.bound, x)[0]

    with same_draws_after(problem.data.train.device):
        squares = layer_distances(surrogate, weights, count)
    found = noise_entry(squares, np.ones(1, dtype=bool))
    parts: dict[str, list[float]] = {}
    for name, value in found["latents"].items():
        parts.setdefault(name.partition(".")[0], []).append(value)
    networks = {name: float(np.linalg.norm(values)) for name, values in parts.items()}
    return found | {"networks": networks, "bias": None}


def bias(errors: np.ndarray, count: int) -> dict[str, Any]:
    """Return the largest of standardised errors (R, P), and the limit that it exceeds by chance with `FALSE_ALARM`.

    The limit is Bonferroni's, from Student's t with count − 1 degrees of freedom.
    """
    from scipy import stats  # slow to import, and only used here

    limit = float(stats.t.isf(FALSE_ALARM / max(1, errors.size) / 2, count - 1))
    largest = float(np.abs(errors).max()) if errors.size else None
    return {"largest_z": largest, "limit": limit, "comparisons": errors.size}


def check_likelihood(problem: Problem, num_samples: int) -> None:
    """Raise `Unsupported` for `num_samples` > 0 and a model without latents of its own for each data point."""
    if num_samples and (not problem.model.has_local or isinstance(problem.model, HasDenoisingTerms)):
        raise Unsupported(
            f"trainer.likelihood_samples={num_samples} estimates log p(x) of data points with latents of their "
            f"own and an encoder, unlike those of {type(problem.model).__name__}; use trainer.likelihood_samples=0."
        )


def likelihood(problem: Problem, num_samples: int) -> dict[str, Any]:
    """Return the entry `likelihood`: mean −log p(x) over the held-out points, with its standard error.

    Args:
        problem: The fitted problem.
        num_samples: Importance samples for each point; 0 for no entry, {}.
    """
    if not num_samples:
        return {}
    log_likelihood, ess = held_out_likelihood(problem.model, problem.family, problem.data, num_samples)
    points = len(log_likelihood)
    nll, se = -log_likelihood.mean().item(), log_likelihood.std().item() / points**0.5
    return {"likelihood": {"nll": nll, "se": se, "ess": ess.mean().item(), "samples": num_samples, "points": points}}


def held_out(problem: Problem, alive: np.ndarray) -> dict[str, Any]:
    """Return the entry `held_out`: the log predictive density of a held-out data point; {} where none is held out.

    Args:
        problem: The fitted problem; the final bound of other models than those of columns is on the held-out points.
        alive: Replicates that count, (R,).
    """
    if problem.data.test is None or not isinstance(problem.model, HasColumns):
        return {}
    density = problem.held_out().cpu().double().numpy()
    return {"held_out": spread(density, alive) | {"points": len(problem.data.test)}}
