"""The verdict on a fitted problem, from draws outside the stream of training, and moments that weights correct.

There are 4,000 draws of each replicate, fewer where the data are many, so that they cost about a tenth of a fit or
less. Random streams are put back, so that no number of the fit changes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from vi_core.algorithms.gradient import GradientStep
from vi_core.algorithms.whitening import DENSITIES
from vi_core.diagnostics.importance import smoothed_weights
from vi_core.diagnostics.marginals import scalars
from vi_core.diagnostics.verdict import DRAWS, Mode, Verdict, Weighed, judge
from vi_core.families.base import suited_families
from vi_core.models.base import HasColumns, Model
from vi_core.problem import Problem, default_dtype
from vi_core.training.checkpoint import digest, same_draws_after
from vi_core.types import Latents

LEAST_DRAWS = 200  # of each replicate, whatever they cost
MOST_DENSITIES = 20_000_000  # data points under draws that cost next to nothing
ROWS, ROWS_SQUARED = 20_000, 20  # data points at least of weights by some of them, and for each coordinate squared
AT_ONCE = 250  # draws of a density, whose intermediate results a cache holds
MOST_NUMBERS = 2**24  # of draws of q that are kept
SHARE = 0.3  # of the densities that training evaluated: a tenth of its time, as a gradient costs three densities
RICHER = ("full_rank_normal", "flow")  # families to try where q does not fit, in this order


class Corrected(NamedTuple):
    """Moments and quantiles of a scalar by Pareto-smoothed importance sampling."""

    mean: float
    sd: float
    q05: float
    q95: float


def can_judge(problem: Problem) -> bool:
    """Whether a fit has a verdict: its latents are shared by all data points, and q has a density."""
    return not problem.model.has_local and problem.family.has_scores


def draws_for(problem: Problem, steps: int) -> int:
    """Return how many draws of each replicate the verdict takes after so many steps."""
    points, replicates = rows_for(problem), problem.family.replicates
    trained = steps * problem.estimator.num_samples * problem.batches.size
    cheap = MOST_DENSITIES / (points * replicates)
    kept = MOST_NUMBERS // (replicates * sum(int(np.prod(z.shape)) for z in problem.model.latents.values()))
    return max(LEAST_DRAWS, min(DRAWS, kept, int(max(cheap, SHARE * trained / points))))


def rows_for(problem: Problem) -> int:
    """Return how many data points weights are computed from: all, or some of them where minibatches have an anchor.

    With the anchor's value and gradient of all data, n points at random leave the error of the curvature. For D
    coordinates it adds about D²/(4n) nats to KL(q ‖ posterior), here at most 0.0125.
    """
    points = len(problem.data.train)
    if anchor_of(problem) is None:
        return points
    size = sum(int(np.prod(z.unconstrained_shape)) for z in problem.model.latents.values())
    return min(points, max(ROWS, ROWS_SQUARED * size**2))


def anchor_of(problem: Problem) -> Model | None:
    """Return the density with the control variate of minibatches, where the step has one."""
    return problem.step.anchor if isinstance(problem.step, GradientStep) else None


@contextmanager
def fixed_draws(problem: Problem) -> Iterator[None]:
    """Context manager: draws of a stream that the fitted q determines, so that the same fit is always judged alike.

    The stream of training is put back at the end.
    """
    state = [value.detach().double().flatten() for value in problem.family.state_dict().values()]
    numbers = torch.cat(state).cpu().numpy() if state else np.zeros(0)
    with same_draws_after(problem.step.witness.device):
        torch.manual_seed(int(digest(numbers.tobytes())[:15], 16))
        yield


@torch.no_grad()
def weigh(problem: Problem, draws: int) -> Weighed:
    """Return draws of q of all replicates with their log-weights, in pieces that memory holds."""
    witness, rows = problem.step.witness, rows_for(problem)
    some = rows < len(problem.data.train)
    at_once = max(1, min(draws, DENSITIES // (rows * problem.family.replicates)))
    pieces: list[dict[str, Tensor]] = []
    log_w: list[Tensor] = []
    with fixed_draws(problem), default_dtype(witness.dtype):
        x = problem.batches.sample(rows) if some else problem.batches.whole(problem.model)
        target = cast(Model, anchor_of(problem)) if some else problem.model
        q = problem.family.distribution(problem.family.variational(x))
        for start in range(0, draws, at_once):
            z = q.sample(min(at_once, draws - start))
            density = target.log_joint(z, x) if some else in_pieces(target, z, x)
            log_w.append((density - q.log_prob(z)).squeeze(2))
            pieces.append({name: value.squeeze(2) for name, value in z.items()})
    z = {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}
    return Weighed(z, torch.cat(log_w).double())


def in_pieces(model: Model, z: Latents, x: Any) -> Tensor:
    """Return log p(x, z) of draws, (S, R, B), a few at a time, which halves the time of a Gaussian process."""
    few = zip(*(value.split(AT_ONCE) for value in z.values()), strict=True)
    return torch.cat([model.log_joint(dict(zip(z, piece, strict=True)), x) for piece in few])


def reweighted(problem: Problem, modes: Sequence[Mode], draws: int) -> tuple[Mode, ...]:
    """Return modes with the shares of p that draws of their mixture find: of each, the weights of its own draws.

    They sum to an estimate of ∫ p share_m q_m/Σ_n share_n q_n, an update of the weights of a mixture.
    The evidence that draws of one mode estimate has a heavy tail where another mode begins; these weights have none.
    """
    if len(modes) == 1:
        return tuple(modes)
    weights = smoothed_weights(weigh_mixture(problem, modes, draws).log_w[:, 0])
    shares = torch.stack([part.sum() for part in weights.split(counts(modes, draws))])
    return tuple(replace(mode, weight=share) for mode, share in zip(modes, shares.tolist(), strict=True))


def weigh_mixture(problem: Problem, modes: Sequence[Mode], draws: int) -> Weighed:
    """Return what `combined` returns, by draws that are always the same."""
    with fixed_draws(problem):
        return combined(problem, modes, draws)


def counts(modes: Sequence[Mode], draws: int) -> list[int]:
    """Return how many of S draws each mode has."""
    shares = torch.tensor([0.0, *(mode.weight for mode in modes)]).double().cumsum(0)
    return (shares / shares[-1] * draws).round().long().diff().tolist()


@torch.no_grad()
def combined(problem: Problem, modes: Sequence[Mode], draws: int) -> Weighed:
    """Return draws of the mixture of modes, with its log-weights, as of one replicate.

    With the q_m of the best replicate of each mode, and w_m its share, the mixture is Σ w_m q_m. Draws are stratified:
    each mode has its share of them, one mode after the other.

    Args:
        problem: The fitted problem.
        modes: As a verdict has them.
        draws: S.
    """
    witness, x = problem.step.witness, problem.batches.whole(problem.model)
    leaders = torch.tensor([mode.leader for mode in modes], device=witness.device)
    log_shares = torch.tensor([mode.weight for mode in modes], device=witness.device).double().log()
    source = leaders.repeat_interleave(torch.tensor(counts(modes, draws), device=witness.device))
    at_once = max(1, min(draws, DENSITIES // (len(problem.data.train) * problem.family.replicates)))
    pieces: list[dict[str, Tensor]] = []
    log_w: list[Tensor] = []
    with same_draws_after(witness.device), default_dtype(witness.dtype):
        q = problem.family.distribution(problem.family.variational(x))
        for chosen in source.split(at_once):
            drawn = q.sample(len(chosen))
            z = {name: value[torch.arange(len(chosen)), chosen].unsqueeze(1) for name, value in drawn.items()}
            every = {name: value.expand_as(drawn[name]) for name, value in z.items()}  # under the q of each mode
            log_q = (q.log_prob(every).squeeze(2)[:, leaders].double() + log_shares).logsumexp(dim=1, keepdim=True)
            log_w.append(problem.model.log_joint(every, x).squeeze(2)[:, :1].double() - log_q)
            pieces.append({name: value.squeeze(2) for name, value in z.items()})
    return Weighed({name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}, torch.cat(log_w))


def verdict(
    problem: Problem, weighed: Weighed, results: np.ndarray | None = None, alive: Tensor | None = None
) -> Verdict:
    """Return the verdict on a fitted problem.

    Args:
        problem: The problem.
        weighed: What `weigh` returns.
        results: (R,) replicates over which results are averaged; None for the best one alone.
        alive: (R,) those of `weighed` that have not diverged; None for those of the problem.
    """
    supports = {name: latent.support for name, latent in problem.model.latents.items()}
    continuous = {name: supports[name].inverse(z) for name, z in weighed.z.items() if not supports[name].discrete}
    judged = None if results is None else torch.from_numpy(results)
    living = problem.step.alive if alive is None else alive
    return judge(Weighed(continuous, weighed.log_w), living, judged, ways_out(problem))


def verdict_on_mixture(problem: Problem, modes: Sequence[Mode], weighed: Weighed) -> Verdict:
    """Return the verdict on the mixture of modes, from what `combined` returns."""
    found = verdict(problem, weighed, np.ones(1, bool), torch.ones(1, dtype=torch.bool))
    shares = ", ".join(f"{mode.weight:.0%}" for mode in modes)
    words = f"{len(modes)} modes combined by their shares of the evidence: {shares}"
    return replace(found, modes=tuple(modes), reasons=(*found.reasons[:-1], words))


def ways_out(problem: Problem) -> str:
    """Say what to try where q does not fit: a richer family that is not in use, steps, or another parametrisation."""
    suited = suited_families(problem.model.latents)
    richer = next((name for name in RICHER if name in suited and not _as_rich(problem.family.name, name)), None)
    change = "another parametrisation of the model (non-centred)" if richer is None else f"family={richer}"
    return f"{change}, or more steps"


def _as_rich(own: str, other: str) -> bool:
    return own == other or (own in RICHER and RICHER.index(own) > RICHER.index(other))


def corrected(problem: Problem, weighed: Weighed, results: np.ndarray) -> dict[str, Corrected]:
    """Return corrected moments and quantiles of each scalar latent and quantity, averaged over replicates.

    Args:
        problem: The problem.
        weighed: What `weigh` returns.
        results: (R,) replicates that count.
    """
    chosen = np.flatnonzero(results)
    z = {name: value[:, chosen] for name, value in weighed.z.items()}
    if isinstance(problem.model, HasColumns):
        full = {name: value.unsqueeze(2) for name, value in z.items()}
        found = problem.model.reported(full, problem.batches.whole(problem.model))
        z = {name: value.squeeze(2) for name, value in found.items()}
    weights = torch.stack([smoothed_weights(weighed.log_w[:, r]) for r in chosen], dim=1).cpu().numpy()
    return {
        name: _corrected(values, weights.ravel() / len(chosen))
        for latent, value in z.items()
        for name, values in scalars(latent, value.flatten(0, 1).double().cpu().numpy())
    }


def _corrected(values: np.ndarray, weights: np.ndarray) -> Corrected:
    mean = float(weights @ values)
    order = values.argsort()
    level = weights[order].cumsum()
    q05, q95 = (float(values[order][min(int(level.searchsorted(p)), len(values) - 1)]) for p in (0.05, 0.95))
    return Corrected(mean, float((weights @ np.square(values - mean)) ** 0.5), q05, q95)
