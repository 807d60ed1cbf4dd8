"""The entry `verdict` of summary.json: whether to believe a fit.

Fits with a latent for each data point have no verdict. Their entry says how many units of q(z | x) are active, that
is depend on x (variance over x of E[z | x] above 0.01; Burda, Grosse, Salakhutdinov 2015), and how the bound moved.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from vi_core.diagnostics.marginals import DRAWS, LEVELS, scalars
from vi_core.diagnostics.verdict import Mode
from vi_core.errors import Unsupported
from vi_core.fits.trust import (
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
from vi_core.models.base import HasColumns
from vi_core.problem import Problem
from vi_core.run import Run

ACTIVE = 0.01  # variance over data points of a unit's posterior mean
POINTS = 1000  # data points that active units are counted from


def check_combination(run: Run) -> None:
    """Raise `Unsupported` where replicates would be combined that have no common evidence."""
    if run.config["combine"] == "evidence" and not can_judge(run.problem):
        raise Unsupported(
            "combine=evidence weights replicates by draws of q with a density over latents that all data share, which "
            f"{type(run.problem.model).__name__} with family={run.problem.family.name} lacks; leave it out."
        )


def entry(run: Run, results: np.ndarray, kl: float | None) -> dict[str, Any]:
    """Return the entry `verdict` of a fit, {} where nothing can be said; no random stream moves.

    Args:
        run: Trained.
        results: (R,) replicates that estimates are averaged over.
        kl: The exact KL(q ‖ posterior), in nats, where it is known.
    """
    problem = run.problem
    if not can_judge(problem):
        return information(run)
    weighed = weigh(problem, draws_for(problem, run.loop.done))
    found = verdict(problem, weighed, results)
    if run.config["combine"] == "evidence":
        modes = reweighted(problem, found.modes, len(weighed.log_w))
        weighed, results, kl = weigh_mixture(problem, modes, len(weighed.log_w)), np.ones(1, bool), None
        found = verdict_on_mixture(problem, modes, weighed)
    exact = "" if kl is None else f"; exact KL {kl:.4g} nats"
    result = found.as_dict() | {"line": found.line + exact}
    if found.trust == "corrected":
        result["corrected"] = {n: row._asdict() for n, row in corrected(problem, weighed, results).items()}
    return result


def estimates_of_mixture(run: Run, rows: dict[str, Any], modes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the entry `estimates` with moments and quantiles of the mixture of modes in place of those of replicates.

    Args:
        run: Trained.
        rows: The entry for the replicates.
        modes: Those of the entry `verdict`.
    """
    problem = run.problem
    found = [Mode(**mode) for mode in modes]
    z = {name: value.unsqueeze(2) for name, value in combined(problem, found, DRAWS).z.items()}
    model = problem.model
    values = model.reported(z, problem.batches.whole(model)) if isinstance(model, HasColumns) else z
    columns = {n: c for latent, v in values.items() for n, c in scalars(latent, v[:, 0, 0].double().cpu().numpy())}
    return {name: row | _moments(columns[name]) for name, row in rows.items()}


def _moments(values: np.ndarray) -> dict[str, float | None]:
    q05, q95 = np.quantile(values, LEVELS)
    moments = {"mean": values.mean(), "sd": values.std(), "q05": q05, "q95": q95}
    return {name: float(value) for name, value in moments.items()} | {"mc_error": None, "replicate_sd": None}


def information(run: Run) -> dict[str, Any]:
    """Return active units and the late movement of the bound of a fit with an encoder; {} for other fits."""
    problem, history = run.problem, run.history
    if not problem.family.amortized:
        return {}
    bound = history.columns[history.bound]
    tenth = max(1, len(bound) // 10)
    moved = float(bound[-tenth:].mean() - bound[-2 * tenth : -tenth].mean()) if len(bound) >= 2 * tenth else None
    units = active_units(problem)
    reasons = [f"{active} of {of} units of {name} active" for name, (active, of) in units.items()]
    if moved is not None:
        reasons.append(f"the bound moved by {moved:+.2g} nats per data point in the last tenth of the steps")
    line = f"information  {'; '.join(reasons)}"
    return {"trust": None, "reasons": reasons, "line": line, "active_units": units, "bound_moved": moved}


@torch.no_grad()
def active_units(problem: Problem) -> dict[str, tuple[int, int]]:
    """Return by latent how many of its units are active, and how many there are, on held-out data if there are any."""
    data = problem.data
    x = data.decode((data.train if data.test is None else data.test)[:POINTS])
    moments = problem.family.distribution(problem.family.variational(x)).moments()
    variances = {name: mean.squeeze(0).flatten(1).var(dim=0) for name, (mean, _) in moments.items()}
    return {name: (int((variance > ACTIVE).sum()), len(variance)) for name, variance in variances.items()}
