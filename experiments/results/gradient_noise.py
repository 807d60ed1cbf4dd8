"""The entry `gradient` of a summary's diagnostics. Documented in docs/outputs.md."""

from typing import Any

import numpy as np
from scipy import stats

from vi_core.diagnostics.gradient_noise import deviations, exact_gradient, gradient_draws, standardised_errors, stored
from vi_core.problem import Problem
from vi_core.training.checkpoint import random_state, restore_random_state

from .summary import spread

FALSE_ALARM = 1e-3
"""Probability that an unbiased estimator exceeds the limit on its standardised errors."""


def measure(problem: Problem, count: int, alive: np.ndarray) -> dict[str, Any]:
    """Return the noise of `count` gradient estimates at the present parameters, over live replicates.

    The random stream is put back afterwards: measuring does not change what training draws.
    """
    model, family, bound, x = problem.model, problem.family, problem.bound, problem.batches.full
    _, latents = stored(family)
    device = problem.data.train.device
    state = random_state(device)
    draws = gradient_draws(problem.estimator, model, family, bound, x, count)
    restore_random_state(state, device)
    exact = exact_gradient(model, family, bound, x)
    by_latent = {name: value.cpu().numpy() for name, value in deviations(draws, latents).items()}
    total = np.linalg.norm(list(by_latent.values()), axis=0)
    return {
        "total": spread(total, alive),
        "latents": {name: spread(value, alive)["mean"] for name, value in by_latent.items()},
        "bias": None if exact is None else bias(standardised_errors(draws, exact).cpu().numpy()[alive], count),
    }


def bias(errors: np.ndarray, count: int) -> dict[str, Any]:
    """Return the largest standardised error and what it may reach by chance, Bonferroni's limit."""
    limit = float(stats.t.isf(FALSE_ALARM / max(1, errors.size) / 2, count - 1))
    return {
        "largest_z": float(np.abs(errors).max()) if errors.size else None,
        "limit": limit,
        "comparisons": errors.size,
    }
