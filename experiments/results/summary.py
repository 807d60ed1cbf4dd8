"""Entries of summary.json that every fit has: estimates, bounds, diagnostics of q, and times.

docs/outputs.md describes each. Numbers of replicates are reduced by `spread` over the replicates that are alive.
"""

import math
from copy import deepcopy
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from vi_core.datasets.base import Data
from vi_core.diagnostics.denoising import denoising_report
from vi_core.diagnostics.importance import effective_sample_size, pareto_k
from vi_core.diagnostics.marginals import Marginal, marginals, mc_error
from vi_core.diagnostics.network import network
from vi_core.errors import LabError
from vi_core.estimators.score_function.estimator import ScoreFunction
from vi_core.estimators.score_function.scopes import MarkovBlanket, markov_blankets
from vi_core.models.base import HasDenoisingTerms, HasExactPosterior, HasExpectedBound, HasNetwork, Network
from vi_core.models.bayesian.base import BayesianModel
from vi_core.problem import Problem
from vi_core.training.batches import Batches, converted
from vi_core.training.checkpoint import same_draws_after
from vi_core.training.history import History
from vi_core.training.loop import Loop
from vi_core.types import Graph, flatten, unflatten

from .mixtures import best_replicate

ROUNDING = 1e-9  # of a log evidence and of an ELBO, relative to their size
SCHEMA = 2  # version of the layout of summary.json
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


def estimates(
    problem: Problem, history: History, truth: dict[str, float], exact: dict[str, float], alive: np.ndarray
) -> dict[str, Any]:
    """Return the entry `estimates`: the marginals of the final q by scalar; {} for latents of single data points.

    Every number is an average over the replicates that count. The random stream is put back afterwards.

    Args:
        problem: The fitted problem.
        history: What was recorded, for the Monte Carlo error of a single replicate.
        truth: Generating values by name of the scalar.
        exact: Exact posterior moments by name of the scalar, as `exact_answers` has them.
        alive: Replicates that count, (R,).
    """
    model = problem.model
    if model.has_local:
        return {}
    with same_draws_after(problem.data.train.device):
        found = marginals(model, problem.family, problem.batches.whole(model))
    iterates = history.expectations()
    return {
        name: {
            **averages(marginal, alive),
            "mc_error": mc_error(marginal, alive, history.step, iterates.get(name)),
            "replicate_sd": spread(marginal.mean, alive)["replicate_sd"],
            "truth": truth.get(name),
            "exact": exact.get(name),
            "exact_sd": exact.get(f"{name}.std"),
        }
        for name, marginal in found.items()
    }


def averages(marginal: Marginal, alive: np.ndarray) -> dict[str, float | None]:
    """Return mean, deviation and quantiles, averaged over the replicates that count; None where none is left."""
    keys = ("mean", "sd", "q05", "q95")
    return {key: float(getattr(marginal, key)[alive].mean()) if alive.any() else None for key in keys}


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


def results_of(problem: Problem, alive: np.ndarray) -> tuple[np.ndarray, int]:
    """Return (R,) which replicates are results, and the best of them; the first where no ELBO is in closed form."""
    bounds = closed_form_elbo(problem)
    if bounds is None:
        return alive, int(alive.argmax())
    kept = problem.step.kept(bounds.to(problem.step.alive.device)).cpu().numpy()
    return kept, best_replicate(bounds.cpu().numpy(), kept)


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


def data(problem: Problem) -> dict[str, Any]:
    """Return the entry `data`: where the data come from, and what can be said of them in a few numbers."""
    numbers = {name: statistics(values) for name, values in observed_numbers(problem).items()}
    return described(problem.data) | {"checksum": problem.checksum, "numbers": numbers}


def described(data: Data) -> dict[str, Any]:
    """Return where data come from, how many points they have, and the names of their columns."""
    return {
        "provenance": data.provenance,
        "points": len(data.train),
        "features": [*data.features],
        "left_out": [*data.left_out],
    }


def observed_numbers(problem: Problem) -> dict[str, Tensor]:
    """Return the observed numbers (N,) by name: univariate data, or what the likelihood of a model describes."""
    found, model = problem.data, problem.model
    if isinstance(model, BayesianModel):
        columns = found.decode(found.train)
        return {name: columns[name].double() for name in sorted(model.observables) if columns[name].dim() == 1}
    return {(found.columns or ("x",))[0]: found.train.double()} if found.train.dim() == 1 else {}


def statistics(values: Tensor) -> dict[str, float | None]:
    """Return mean, variance (with N − 1) and precision of numbers (N,); None where they have none."""
    variance = values.var().item() if len(values) > 1 else None
    return {"mean": values.mean().item(), "variance": variance, "precision": 1 / variance if variance else None}


def blankets(problem: Problem) -> dict[str, Any]:
    """Return the factors in each latent's Markov blanket, by the graph; {} for estimators that do not use them."""
    estimator = problem.estimator
    if not isinstance(estimator, ScoreFunction) or not isinstance(estimator.scope, MarkovBlanket):
        return {}
    found = markov_blankets(mentioned(problem), problem.family.parents)
    return {"blankets": {name: {"factors": [*kept.factors], "q": [*kept.terms]} for name, kept in found.items()}}


def mentioned(problem: Problem) -> Graph:
    """Return the latents that each factor of p mentions, by name of the factor."""
    x, data = problem.batches.full, problem.data
    x = data.decode(data.train[:1]) if x is None else x
    with torch.no_grad():
        q = problem.family.distribution(problem.family.variational(x))
        factors = problem.model.factors({name: mean.unsqueeze(0) for name, (mean, _) in q.moments().items()}, x)
    return {name: latents for name, (_, latents) in factors.items()}


def network_of(problem: Problem) -> Network | None:
    """Return the Bayesian network of the model; None where its factors do not tell it."""
    factors = {} if isinstance(problem.model, HasNetwork) else mentioned(problem)
    return network(problem.model, problem.family, factors, len(problem.data.train))


def timing(loop: Loop, replicates: int, gradients: int) -> dict[str, Any]:
    """Return the entry `timing`; the total is filled in when everything is written.

    Args:
        loop: That has ended.
        replicates: R.
        gradients: Of the density, that each replicate has taken.
    """
    making = loop.execution.seconds
    each = 1e6 * (loop.seconds - making) / max(1, loop.done)
    return {
        "total_s": 0.0,
        "loop_s": loop.seconds,
        "compile_s": making,
        "execution": loop.execution.used,
        "iterations": loop.done,
        "gradients": gradients,
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
