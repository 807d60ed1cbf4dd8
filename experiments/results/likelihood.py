"""Entry `diagnostics.likelihood` of summary.json: the held-out log-likelihood by importance sampling."""

from typing import Any

from vi_core.diagnostics.likelihood import held_out_likelihood
from vi_core.errors import Unsupported
from vi_core.models.base import HasDenoisingTerms
from vi_core.problem import Problem


def check(problem: Problem, num_samples: int) -> None:
    """Raise `Unsupported` for `num_samples` > 0 and a model without latents of its own for each data point."""
    if num_samples and (not problem.model.has_local or isinstance(problem.model, HasDenoisingTerms)):
        raise Unsupported(
            f"trainer.likelihood_samples={num_samples} estimates log p(x) of data points with latents of their "
            f"own and an encoder, unlike those of {type(problem.model).__name__}; use trainer.likelihood_samples=0."
        )


def measure(problem: Problem, num_samples: int) -> dict[str, Any]:
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
