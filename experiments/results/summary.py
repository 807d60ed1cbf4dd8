"""Entries of summary.json that every fit has: estimates, bounds, diagnostics of q, and times.

docs/outputs.md describes each. Numbers of replicates are reduced by `spread` over the replicates that are alive.
"""

import math
from copy import deepcopy
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from vi_core.diagnostics.denoising import denoising_report
from vi_core.diagnostics.importance import effective_sample_size, pareto_k
from vi_core.errors import LabError
from vi_core.estimators.score_function.estimator import ScoreFunction
from vi_core.estimators.score_function.scopes import MarkovBlanket, markov_blankets
from vi_core.models.base import HasColumns, HasDenoisingTerms, HasExactPosterior, HasExpectedBound
from vi_core.problem import Problem
from vi_core.training.batches import Batches, converted
from vi_core.training.checkpoint import same_draws_after
from vi_core.training.history import History
from vi_core.training.loop import Loop
from vi_core.types import flatten, unflatten

ROUNDING = 1e-9  # of a log evidence and of an ELBO, relative to their size
MOMENT_DRAWS = 4000  # of q, for moments of functions of latents: a mean is off by 1.6 % of the deviation
SCHEMA = 1  # version of the layout of summary.json
Spread = dict[str, Any]  # median, mean, se and replicate_sd


def spread(values: np.ndarray, alive: np.ndarray) -> Spread:
    """Return statistics of per-replicate values over the replicates that are alive.

    Args:
        values: One number for each replicate, (R,).
        alive: Which replicates count, (R,) booleans.

    Returns:
        median, mean, standard error of the mean, and standard deviation over replicates; None where too few are left.
    """
    living = values[alive]
    if not len(living):
        return dict.fromkeys(("median", "mean", "se", "replicate_sd"))
    sd = float(living.std(ddof=1)) if len(living) > 1 else None
    se = None if sd is None else sd / math.sqrt(len(living))
    return {"median": float(np.median(living)), "mean": float(living.mean()), "se": se, "replicate_sd": sd}


def objective(trace: History, per: str, alive: np.ndarray) -> dict[str, Any]:
    """Return the entry `objective`: the bound averaged over the last tenth of the steps.

    Args:
        trace: The run's history.
        per: Unit of the bound, `data point` or empty.
        alive: Replicates that count, (R,).
    """
    late = trace.step > 0.9 * trace.step[-1]
    late[-1] = True
    return {"name": trace.bound, "per": per, **spread(trace.columns[trace.bound][late].mean(axis=0), alive)}


def estimates(problem: Problem, truth: dict[str, float], exact: dict[str, float], alive: np.ndarray) -> dict[str, Any]:
    """Return the entry `estimates`: mean and deviation of each shared latent under the final q; {} for other latents.

    Args:
        problem: The fitted problem.
        truth: Generating values by name of the scalar.
        exact: Exact posterior moments by name of the scalar, as `exact_answers` has them.
        alive: Replicates that count, (R,).
    """
    if problem.model.has_local:
        return {}
    found, moments = {}, posterior_moments(problem)
    for latent, (mean, std) in moments.items():
        for name, centre, deviation in _scalars(latent, mean.flatten(0, 1), std.flatten(0, 1)):
            over = spread(centre, alive)
            found[name] = {
                "mean": over["mean"],
                "std": float(deviation[alive].mean()) if alive.any() else None,
                **{key: over[key] for key in ("se", "replicate_sd")},
                "truth": truth.get(name),
                "exact": exact.get(name),
                "exact_std": exact.get(f"{name}.std"),
            }
    return found


def posterior_moments(problem: Problem) -> dict[str, tuple[Tensor, Tensor]]:
    """Return mean and deviation, (R, 1, *event), of each shared latent under the final q, by the family.

    Where results describe functions of the latents in their place, these are averaged over draws, which leave the
    random stream as it was.
    """
    model = problem.model
    with torch.no_grad(), same_draws_after(problem.step.alive.device):
        q = problem.family.distribution(problem.family.variational())
        if model.reports_latents or not isinstance(model, HasColumns):
            return q.moments()
        values = model.reported(q.sample(MOMENT_DRAWS), problem.batches.whole(model))
    return {name: (z.mean(dim=0), z.std(dim=0)) for name, z in values.items()}


def _scalars(latent: str, mean: Tensor, std: Tensor) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Return (name, means (R,), deviations (R,)) for each scalar of a latent with moments (R, *event)."""
    means, stds = (value.detach().reshape(len(value), -1).cpu().numpy() for value in (mean, std))
    names = [latent] if mean.dim() == 1 else [f"{latent}[{i}]" for i in range(means.shape[1])]
    return list(zip(names, means.T, stds.T, strict=True))


def gradient_bias(problem: Problem) -> str:
    """Return why the gradient of the estimator and family is biased, in one sentence; empty for unbiased ones."""
    own = problem.estimator.bias(problem.bound)
    return own or (problem.family.bias if problem.estimator.differentiates_draws else "")


def exact_answers(problem: Problem) -> dict[str, float]:
    """Return the model's exact posterior moments and evidence, from the data as read; {} where it knows none.

    Raises:
        LabError: For an answer that is no number.
    """
    if not isinstance(problem.model, HasExactPosterior) or problem.batches.exact is None:
        return {}
    exact = problem.model.exact(problem.batches.exact)
    wrong = [name for name, value in exact.items() if math.isnan(value)]
    if wrong:
        raise LabError(f"the exact answer {wrong[0]} of {type(problem.model).__name__} is no number for these data.")
    return exact


def final_bound(problem: Problem, repeats: int, exact: dict[str, float], alive: np.ndarray) -> dict[str, Any]:
    """Return the entry `final`: the bound of the final q, in closed form, on held-out data or from fresh samples.

    Args:
        problem: The fitted problem.
        repeats: Number of fresh estimates where there is neither a closed form nor a latent for each data point.
        exact: Exact posterior moments and `log_evidence`, where the model knows them.
        alive: Replicates that count, (R,).
    """
    model, family, bound, estimator = problem.model, problem.family, problem.bound, problem.estimator
    closed_form = closed_form_elbo(problem)
    if model.has_local:
        values = problem.held_out()
        method = "held-out data" if problem.data.test is not None else "training data, fresh samples"
    elif bound.linear and closed_form is not None:
        values, method = closed_form, "closed form"
    else:
        x = problem.batches.whole(model)
        fresh = [estimator.value(model, family, bound, x) for _ in range(repeats)]
        values = torch.cat(fresh, dim=1).mean(dim=1)
        method = f"{repeats} fresh estimates with K = {estimator.num_samples}"
    kl = None
    if closed_form is not None and "log_evidence" in exact:
        kl = spread(divergence(exact["log_evidence"], closed_form.numpy(), alive), alive)["mean"]
    array = values.cpu().double().numpy()
    return {
        "name": bound.name,
        "method": method,
        **spread(array, alive),
        "values": array.tolist(),
        "kl_to_posterior": kl,
        "log_evidence": exact.get("log_evidence"),
    }


def divergence(evidence: float, elbo: np.ndarray, alive: np.ndarray) -> np.ndarray:
    """Return KL(q ‖ posterior) of each replicate, (R,), which rounding does not make negative.

    Raises:
        LabError: Where an ELBO exceeds the log evidence by more than rounding: one of the two is wrong.
    """
    gap = evidence - elbo
    if bool((gap < -ROUNDING * (1 + abs(evidence) + np.abs(elbo)))[alive].any()):
        highest = elbo[alive].max()
        raise LabError(
            f"the exact log evidence {evidence:.10g} is below an ELBO, {highest:.10g}: one of them is wrong."
        )
    return np.maximum(gap, 0.0)


def closed_form_elbo(problem: Problem) -> Tensor | None:
    """Return the exact ELBO of the final q, (R,), or None where model and family have none.

    It is evaluated in float64 on the CPU, from the data as they were read, whatever the type of the fit.
    """
    if not isinstance(problem.model, HasExpectedBound) or not problem.model.knows(problem.family.layout):
        return None
    wide = torch.device("cpu"), torch.float64
    model = cast(HasExpectedBound, deepcopy(problem.model).to(*wide))
    with torch.no_grad():
        params = problem.family.variational()
        params = unflatten([value.to(*wide) for value in flatten(params)], params)
        return model.expected_bound(params, converted(problem.batches.exact, *wide)).mean(dim=1)


def diagnostics(problem: Problem, num_samples: int, alive: np.ndarray) -> dict[str, Any]:
    """Return the entry `diagnostics`: effective sample size (share of the draws) and Pareto k-hat of q as a proposal.

    A k-hat below −1, constant weights included, is reported as −1. A diffusion model has the terms of its bound
    instead, and other models with a latent for each data point have none of these.
    """
    model = problem.model
    if isinstance(model, HasDenoisingTerms) and model.knows(problem.family.layout):
        return {"denoising": denoising_report(model, problem.data, num_samples)}
    if model.has_local:
        return {}
    log_w = problem.log_weights(num_samples, problem.batches.whole(model)).mean(dim=2)
    ess, shape = effective_sample_size(log_w), pareto_k(log_w).clamp_min(-1)
    found = {"ess": ess, "pareto_k": shape}
    return {name: spread(value.cpu().numpy(), alive) for name, value in found.items()} | {"draws": num_samples}


def blankets(problem: Problem) -> dict[str, Any]:
    """Return the factors in each latent's Markov blanket, by the graph; {} for estimators that do not use them."""
    estimator = problem.estimator
    if not isinstance(estimator, ScoreFunction) or not isinstance(estimator.scope, MarkovBlanket):
        return {}
    x, data = problem.batches.full, problem.data
    x = data.decode(data.train[:1]) if x is None else x
    with torch.no_grad():
        q = problem.family.distribution(problem.family.variational(x))
        factors = problem.model.factors({name: mean.unsqueeze(0) for name, (mean, _) in q.moments().items()}, x)
    found = markov_blankets({name: mentioned for name, (_, mentioned) in factors.items()}, problem.family.parents)
    return {"blankets": {name: {"factors": [*kept.factors], "q": [*kept.terms]} for name, kept in found.items()}}


def timing(loop: Loop, replicates: int) -> dict[str, Any]:
    """Return the entry `timing`; the total is filled in when everything is written."""
    making = loop.execution.seconds
    each = 1e6 * (loop.seconds - making) / max(1, loop.done)
    return {
        "total_s": 0.0,
        "loop_s": loop.seconds,
        "compile_s": making,
        "execution": loop.execution.used,
        "iterations": loop.done,
        "us_per_iteration": each,
        "us_per_replicate_iteration": each / replicates,
    }


def epoch_bounds(trace: History, batches: Batches) -> list[float]:
    """Return the first replicate's bound averaged over each complete epoch, weighted by the minibatches' sizes."""
    steps_per_epoch = batches.steps_per_epoch
    if steps_per_epoch == 1:
        return []
    rows, sizes = trace.columns[trace.bound][:, 0], np.full(steps_per_epoch, batches.size)
    sizes[-1] = len(batches.data.train) - batches.size * (steps_per_epoch - 1)
    cumulated = np.concatenate([[0], np.cumsum(sizes)])
    averages = []
    for epoch in range(int(trace.step[-1]) // steps_per_epoch):
        inside = (trace.step > epoch * steps_per_epoch) & (trace.step <= (epoch + 1) * steps_per_epoch)
        ends = trace.step[inside] - epoch * steps_per_epoch
        if not len(ends) or ends[-1] != steps_per_epoch:
            return averages
        weights = np.diff(cumulated[np.concatenate([[0], ends])])
        averages.append(float(np.average(rows[inside], weights=weights)))
    return averages
