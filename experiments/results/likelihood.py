"""The entry `likelihood` of a summary's diagnostics. Documented in docs/outputs.md."""

from typing import Any

from vi_core.diagnostics.likelihood import held_out_likelihood
from vi_core.errors import Unsupported
from vi_core.models.diffusion.protocols import HasDenoisingTerms
from vi_core.problem import Problem


def check(problem: Problem, num_samples: int) -> None:
    """Refuse `num_samples` > 0 where data points have no likelihood of their own that q could estimate."""
    if num_samples and (not problem.model.has_local or isinstance(problem.model, HasDenoisingTerms)):
        raise Unsupported(
            f"trainer.likelihood_samples={num_samples} estimates log p(x) of data points with latents of their "
            f"own and an encoder, unlike those of {type(problem.model).__name__}; use trainer.likelihood_samples=0."
        )


def measure(problem: Problem, num_samples: int) -> dict[str, Any]:
    """Return the mean negative log-likelihood of the held-out points; {} where no samples are asked for."""
    if not num_samples:
        return {}
    log_likelihood, ess = held_out_likelihood(problem.model, problem.family, problem.data, num_samples)
    points = len(log_likelihood)
    found = {
        "nll": -log_likelihood.mean().item(),
        "se": log_likelihood.std().item() / points**0.5,
        "ess": ess.mean().item(),
        "samples": num_samples,
        "points": points,
    }
    return {"likelihood": found}


def line(found: dict[str, Any]) -> str:
    """Return the line of the result table."""
    cells = f"{found['nll']:14.6f}{found['se']:12.2g}{'':26}"
    return f"{'-log p(x)':14}{cells}  nats per held-out point, {found['samples']} importance samples"
