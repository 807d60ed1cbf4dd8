"""The entry `verdict` of summary.json: whether to believe a fit.

Fits with a latent for each data point have no verdict. Their entry says how many units of q(z | x) are active, that
is depend on x (variance over x of E[z | x] above 0.01; Burda, Grosse, Salakhutdinov 2015), and how the bound moved.
"""

from typing import Any

import numpy as np
import torch

from vi_core.problem import Problem
from vi_core.run import Run
from vi_core.trust import can_judge, corrected, draws_for, verdict, weigh

ACTIVE = 0.01  # variance over data points of a unit's posterior mean
POINTS = 1000  # data points that active units are counted from


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
    exact = "" if kl is None else f"; exact KL {kl:.4g} nats"
    result = found.as_dict() | {"line": found.line + exact}
    if found.trust == "corrected":
        result["corrected"] = {n: row._asdict() for n, row in corrected(problem, weighed, results).items()}
    return result


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
