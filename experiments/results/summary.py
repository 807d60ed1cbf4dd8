"""`summary.json`: what a run found, how far that is from the truth, and what it cost. Documented in docs/outputs.md."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vi_core.diagnostics.denoising import denoising_report
from vi_core.diagnostics.importance import effective_sample_size, pareto_k
from vi_core.estimators.score_function.estimator import ScoreFunction
from vi_core.estimators.score_function.scopes import MarkovBlanket, markov_blankets
from vi_core.models.base import HasExactPosterior, HasExpectedBound
from vi_core.models.diffusion.protocols import HasDenoisingTerms
from vi_core.problem import Problem
from vi_core.training.batches import Batches
from vi_core.training.evaluate import log_weights
from vi_core.training.history import History
from vi_core.training.loop import Loop

from . import diffusion, likelihood

SCHEMA = 1
Spread = dict[str, Any]


def spread(values: np.ndarray, alive: np.ndarray) -> Spread:
    """Return median, mean and standard error of per-replicate values (R,) over the live ones."""
    living = values[alive]
    if not len(living):
        return {"median": None, "mean": None, "se": None, "replicate_sd": None}
    sd = float(living.std(ddof=1)) if len(living) > 1 else None
    se = None if sd is None else sd / math.sqrt(len(living))
    return {"median": float(np.median(living)), "mean": float(living.mean()), "se": se, "replicate_sd": sd}


def objective(trace: History, per: str, alive: np.ndarray) -> dict[str, Any]:
    """Return the bound averaged over the last tenth of the steps, over replicates."""
    late = trace.step > 0.9 * trace.step[-1]
    late[-1] = True
    return {"name": trace.bound, "per": per, **spread(trace.columns[trace.bound][late].mean(axis=0), alive)}


def estimates(problem: Problem, truth: dict[str, float], exact: dict[str, float], alive: np.ndarray) -> dict[str, Any]:
    """Return posterior mean and deviation of each shared latent under the final q, beside truth and exact answer."""
    if problem.model.has_local:
        return {}
    with torch.no_grad():
        moments = problem.family.distribution(problem.family.variational()).moments()
    found = {}
    for latent, (mean, std) in moments.items():
        for name, centre, deviation in _scalars(latent, mean.flatten(0, 1), std.flatten(0, 1)):
            over = spread(centre, alive)
            found[name] = {
                "mean": over["mean"],
                "std": float(deviation[alive].mean()) if alive.any() else None,
                "se": over["se"],
                "replicate_sd": over["replicate_sd"],
                "truth": truth.get(name),
                "exact": exact.get(name),
                "exact_std": exact.get(f"{name}.std"),
            }
    return found


def _scalars(latent: str, mean: Tensor, std: Tensor) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Return (name, (R,), (R,)) for each scalar of a latent with moments (R, *event)."""
    if mean.dim() == 1:
        return [(latent, mean.detach().cpu().numpy(), std.detach().cpu().numpy())]
    means, stds = (value.detach().flatten(1).cpu().numpy() for value in (mean, std))
    return [(f"{latent}[{i}]", means[:, i], stds[:, i]) for i in range(means.shape[1])]


def gradient_bias(problem: Problem) -> str:
    """Say why the gradient that was followed is biased, by estimator or family; empty where it is not."""
    own = problem.estimator.bias(problem.bound)
    return own or (problem.family.bias if problem.estimator.differentiates_draws else "")


def exact_answers(problem: Problem) -> dict[str, float]:
    """Return the model's exact posterior moments and evidence, or nothing where it knows none."""
    if isinstance(problem.model, HasExactPosterior) and problem.batches.full is not None:
        return problem.model.exact(problem.batches.full)
    return {}


def final_bound(problem: Problem, repeats: int, exact: dict[str, float], alive: np.ndarray) -> dict[str, Any]:
    """Return the bound of the final q per replicate: closed form, or held-out data, or fresh samples."""
    model, family, bound, estimator = problem.model, problem.family, problem.bound, problem.estimator
    closed_form = closed_form_elbo(problem)
    if model.has_local:
        values = problem.held_out()
        method = "held-out data" if problem.data.test is not None else "training data, fresh samples"
    elif bound.name == "elbo" and closed_form is not None:
        values, method = closed_form, "closed form"
    else:
        fresh = [estimator.value(model, family, bound, problem.batches.full) for _ in range(repeats)]
        values, method = (
            torch.cat(fresh, dim=1).mean(dim=1),
            f"{repeats} fresh estimates with K = {estimator.num_samples}",
        )
    kl = None
    if closed_form is not None and "log_evidence" in exact:
        kl = spread((exact["log_evidence"] - closed_form).cpu().numpy(), alive)["mean"]
    array = values.cpu().double().numpy()
    return {
        "name": bound.name,
        "method": method,
        **spread(array, alive),
        "values": array.tolist(),
        "kl_to_posterior": kl,
        "log_evidence": exact.get("log_evidence"),
    }


def closed_form_elbo(problem: Problem) -> Tensor | None:
    """Return the exact ELBO of the final q, (R,), or None where model and family have none."""
    if not isinstance(problem.model, HasExpectedBound) or not problem.model.knows(problem.family.layout):
        return None
    with torch.no_grad():
        return problem.model.expected_bound(problem.family.variational(), problem.batches.full).mean(dim=1)


def diagnostics(problem: Problem, num_samples: int, alive: np.ndarray) -> dict[str, Any]:
    """Return effective sample size (share of the draws) and Pareto k-hat of q as a proposal, over replicates.

    A k-hat below −1, constant weights included, is reported as −1. A diffusion model has the terms of its bound.
    """
    model = problem.model
    if isinstance(model, HasDenoisingTerms) and model.knows(problem.family.layout):
        return {"denoising": denoising_report(model, problem.data, num_samples)}
    if model.has_local:
        return {}
    log_w = log_weights(model, problem.family, problem.batches.full, num_samples).mean(dim=2)
    ess, shape = effective_sample_size(log_w), pareto_k(log_w).clamp_min(-1)
    return {
        "ess": spread(ess.cpu().numpy(), alive),
        "pareto_k": spread(shape.cpu().numpy(), alive),
        "draws": num_samples,
    }


def blankets(problem: Problem) -> dict[str, Any]:
    """Return what each latent's parameters keep of log w, read off the graph; {} for estimators that keep it all."""
    estimator = problem.estimator
    if not isinstance(estimator, ScoreFunction) or not isinstance(estimator.scope, MarkovBlanket):
        return {}
    x, data = problem.batches.full, problem.data
    x = data.decode(data.train[:1]) if x is None else x
    with torch.no_grad():
        q = problem.family.distribution(problem.family.variational(x))
        factors = problem.model.factors({name: mean.unsqueeze(0) for name, (mean, _) in q.moments().items()}, x)
    found = markov_blankets({name: mentioned for name, (_, mentioned) in factors.items()}, q.parents)
    return {"blankets": {name: {"factors": [*kept.factors], "q": [*kept.terms]} for name, kept in found.items()}}


def timing(loop: Loop, replicates: int) -> dict[str, Any]:
    """Return what the loop cost; the total is filled in when everything is written."""
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
    """Average the first replicate's bound over each whole epoch, every data point counting once."""
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


def report(summary: dict[str, Any], figures: Sequence[str]) -> str:
    """Return the result table for the terminal."""
    final, trained = summary["final"], summary["objective"]
    label = trained["name"] + (f" per {trained['per']}" if trained["per"] else "")
    lines = [
        "",
        f"{summary['experiment']}: {summary['status']} after {summary['timing']['iterations']} steps",
        *_estimate_lines({f"E[{name}]": row for name, row in summary["estimates"].items()}),
        "training".ljust(14)
        + _cells(trained["mean"], trained["se"], None, None)
        + f"  {label}, last tenth of the steps",
        "final".ljust(14) + _cells(final["mean"], final["se"], None, final["log_evidence"]) + f"  {final['method']}",
    ]
    if "likelihood" in summary["diagnostics"]:
        lines.append(likelihood.line(summary["diagnostics"]["likelihood"]))
    if final["kl_to_posterior"] is not None:
        gap = f"{final['kl_to_posterior']:.6g} nats"
        lines.append(f"KL(q || posterior) = {gap}; the exact value beside the final bound is the log evidence")
    if summary["bias"]:
        lines.append(f"the gradient is biased: {summary['bias']}")
    lines += diffusion.table(summary["diagnostics"]["denoising"]) if "denoising" in summary["diagnostics"] else []
    if summary["best_replicate"] is not None:
        lines.append(restarts_line(final["values"], summary["best_replicate"]))
    for group in ("recovery", "misfit"):
        if summary[group]:
            lines.append(f"{group}: " + ", ".join(f"{name} {value:.4g}" for name, value in summary[group].items()))
    if summary["diverged_replicates"]:
        lines.append(
            f"{summary['diverged_replicates']} of {summary['replicates']} replicates diverged, and are left out"
        )
    if "gradient" in summary["diagnostics"]:
        lines += [_noise_line(when, summary["diagnostics"]) for when in ("start", "final")]
    return "\n".join([*lines, *_verdict_lines(summary, figures)])


def study_report(summary: dict[str, Any], figures: Sequence[str]) -> str:
    """Return the result table of a study for the terminal."""
    head = f"{summary['experiment']}: {summary['status']}"
    return "\n".join(["", head, *_estimate_lines(summary["estimates"]), *_verdict_lines(summary, figures)])


def _estimate_lines(rows: dict[str, Any]) -> list[str]:
    width = max([13, *map(len, rows)]) + 1
    lines = [f"{'':{width}}{'estimate':>14}{'± se':>12}{'truth':>12}{'exact':>14}"]
    cells = {name: _cells(row["mean"], row["se"], row["truth"], row["exact"]) for name, row in rows.items()}
    return lines + [name.ljust(width) + text for name, text in cells.items()]


def _verdict_lines(summary: dict[str, Any], figures: Sequence[str]) -> list[str]:
    lines = [summary["note"]] if summary["note"] else []
    lines += [_check_line(check) for check in summary["checks"]]
    if summary["checks_skipped"]:
        lines.append(f"checks not applied: {summary['checks_skipped']}")
    lines += [f"figure  {figure}" for figure in figures]
    return [*lines, f"results {summary['run']}"]


def restarts_line(values: Sequence[float], best: int) -> str:
    """Say which restart was kept and how far below it the others ended: a local optimum is shown, not hidden."""
    gaps = values[best] - np.array(values)
    near = int((gaps < 0.01).sum())
    return (
        f"best of {len(values)} restarts: number {best}; {near} within 0.01 nats of it, "
        f"the median {np.nanmedian(gaps):.4g} and the worst {np.nanmax(gaps):.4g} nats below"
    )


def _cells(estimate: float | None, se: float | None, truth: float | None, exact: float | None) -> str:
    columns = ((estimate, 14, ".6f"), (se, 12, ".2g"), (truth, 12, ".6g"), (exact, 14, ".6f"))
    return "".join(("" if value is None else format(value, form)).rjust(width) for value, width, form in columns)


def _noise_line(when: str, diagnostics: dict[str, Any]) -> str:
    noise = diagnostics["gradient"][when]
    total, bias = noise["total"]["mean"], noise["bias"]
    text = f"gradient noise, {when}: " + ("no replicate left" if total is None else f"{total:.5g}")
    if bias is None or bias["largest_z"] is None:
        return text
    return f"{text}; its mean is off the exact gradient by {bias['largest_z']:.2f} standard errors at most"


def _check_line(check: dict[str, Any]) -> str:
    verdict = "PASS" if check["passed"] else "FAIL"
    value = "missing" if check["value"] is None else f"{check['value']:.6f}"
    return f"{verdict}    {check['name']} = {value}, expected {check['expected']} ± {check['tolerance']}"
