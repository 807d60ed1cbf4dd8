"""Entry `diagnostics.gradient` of summary.json: noise and bias of the gradient estimates at the present parameters."""

from typing import Any

import numpy as np
from scipy import stats

from vi_core.diagnostics.gradient_noise import deviations, exact_gradient, gradient_draws, standardised_errors, stored
from vi_core.problem import Problem
from vi_core.training.checkpoint import random_state, restore_random_state

from .summary import spread

FALSE_ALARM = 1e-3  # probability that an unbiased estimator exceeds the limit on its standardised errors


def measure(problem: Problem, count: int, alive: np.ndarray) -> dict[str, Any]:
    """Return the noise of gradient estimates, in total and by latent, and the bias where the exact gradient is known.

    The random stream is put back afterwards, so that measuring does not change what training draws.

    Args:
        problem: The problem at its present parameters.
        count: Number of estimates, at least 2.
        alive: Replicates that count, (R,).
    """
    model, family, bound, x = problem.model, problem.family, problem.bound, problem.batches.full
    _, latents = stored(family)
    state = random_state(device := problem.data.train.device)
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
    """Return the largest of standardised errors (R, P), and the limit that it exceeds by chance with `FALSE_ALARM`.

    The limit is Bonferroni's, from Student's t with count − 1 degrees of freedom.
    """
    limit = float(stats.t.isf(FALSE_ALARM / max(1, errors.size) / 2, count - 1))
    largest = float(np.abs(errors).max()) if errors.size else None
    return {"largest_z": largest, "limit": limit, "comparisons": errors.size}
