"""The verdict on a fit: whether to believe q, from draws of q and their importance weights.

With log-weights log w_s = log p(x, z_s) − log q(z_s), z_s ~ q, a replicate is *good* where

    log (1/S) Σ w_s − (1/S) Σ log w_s < 0.17 nats,   which estimates KL(q ‖ posterior),
    smoothed weights move no mean by 0.2 deviations of q, and no deviation by a factor exp(0.25),
    k-hat < 0.7 or (Σ w)²/Σ w² > 0.8 S,   and its ELBO is within 1 nat of the best replicate's.

k-hat alone trusts a q that is too narrow in many directions by a little; the KL alone trusts a mean that is off by 0.6
deviations; and k-hat alone refuses a q whose weights are all but equal, for the sake of the few draws in their tail.
Where a replicate is not good, but k-hat < 0.5, (Σ w)²/Σ w² ≥ 200, and weights widen no deviation by exp(0.25),
Pareto-smoothed weights correct its moments: weights that widen q point to a part of p that no draw has reached. What no
replicate has seen is invisible to all of this: a mode that none of them found, a tail that no draw reached.
Replicates that end in different modes of comparable evidence are each a part of the posterior, and none is trusted. The
limits were chosen on fits beside the reference draws of posteriordb, as docs/trust.md says.

Yao, Vehtari, Simpson, Gelman 2018; Dhaka et al. 2021; Vehtari, Simpson, Gelman, Yao, Gabry 2024.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from vi_core.diagnostics.importance import effective_sample_size, pareto_k, smoothed_weights

Trust = Literal["good", "corrected", "poor"]
DRAWS = 4000  # of each replicate
MOST_K, MOST_GAP, MOST_BELOW = 0.7, 0.17, 1.0  # k-hat, nats, nats: of a good replicate
MOST_SHIFT, MOST_STRETCH = 0.2, 0.25  # moves by smoothed weights: deviations of q, |log ratio|
EVEN = 0.8  # share of the draws from which on k-hat does not matter
CORRECTABLE_K, LEAST_ESS = 0.5, 200  # of a replicate that importance sampling corrects
APART = 2.0  # distance of two modes, in deviations of q in some coordinate
NEGLIGIBLE = 0.01  # share of the evidence below which a mode does not matter
LOCATED = 500  # draws from which replicates are located
MOST_NAMED = 8  # replicates of a mode that a line names
WORDS: dict[str, str] = {"good": "TRUST", "corrected": "CORRECTED", "poor": "DO NOT TRUST"}


class Weighed(NamedTuple):
    """Draws of q and their log-weights.

    Attributes:
        z: (S, R, *event) by latent.
        log_w: (S, R), float64.
    """

    z: dict[str, Tensor]
    log_w: Tensor


@dataclass(frozen=True)
class Mode:
    """Replicates that ended in one place.

    Attributes:
        replicates: Their numbers, from 0.
        leader: The one with the highest ELBO.
        log_evidence: By importance sampling from the best of them, in nats.
        weight: Share of the evidence of all modes found.
    """

    replicates: tuple[int, ...]
    leader: int
    log_evidence: float
    weight: float

    @property
    def members(self) -> str:
        """The replicates by their numbers, or how many they are."""
        few = len(self.replicates) <= MOST_NAMED
        return f"replicates {', '.join(map(str, self.replicates))}" if few else f"{len(self.replicates)} replicates"


@dataclass(frozen=True)
class Verdict:
    """Whether to believe a fit; numbers are those that nine tenths of the replicates behind the results do not exceed.

    Attributes:
        trust: `good`, `corrected` (moments by importance sampling stand beside q's) or `poor`.
        reasons: Why, and what to try, a clause each.
        k_hat: Pareto's shape of the importance weights; −1 for constant ones.
        kl_gap: Log evidence by importance sampling minus ELBO, in nats.
        ess: Effective number of draws.
        shift: Largest move of a mean by importance sampling, in deviations of q.
        stretch: Largest change of a deviation by importance sampling, |log ratio|.
        widening: Largest growth of one, log ratio.
        agreement: Share of the replicates within 1 nat of the best; None for a single replicate.
        modes: Where replicates ended, the one with the most evidence first.
        draws: S, draws of each replicate.
    """

    trust: Trust
    reasons: tuple[str, ...]
    k_hat: float | None
    kl_gap: float | None
    ess: float | None
    shift: float | None
    stretch: float | None
    widening: float | None
    agreement: float | None
    modes: tuple[Mode, ...]
    draws: int

    @property
    def line(self) -> str:
        """One line for the terminal."""
        return f"{WORDS[self.trust]}  {'; '.join(self.reasons)}"

    def __str__(self) -> str:
        return self.line

    def as_dict(self) -> dict[str, Any]:
        """Return the entry `verdict` of summary.json."""
        return {key: _plain(value) for key, value in asdict(self).items()}


def _plain(value: Any) -> Any:
    """Return a value without tuples and infinities, which JSON has none of."""
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Weights(NamedTuple):
    """What draws and log-weights say of R replicates, each (R,) in float64; not read of a diverged one.

    Attributes:
        elbo: Mean log-weight.
        log_evidence: Logarithm of the mean weight.
        k_hat: Pareto's shape, at least −1.
        ess: Effective number of draws.
        shift: Largest move of a mean by smoothed weights, in deviations of q.
        stretch: Largest change of a deviation by smoothed weights, |log ratio|.
        widening: Largest growth of one, log ratio.
    """

    elbo: Tensor
    log_evidence: Tensor
    k_hat: Tensor
    ess: Tensor
    shift: Tensor
    stretch: Tensor
    widening: Tensor

    @property
    def gap(self) -> Tensor:
        """Estimated KL(q ‖ posterior), in nats."""
        return self.log_evidence - self.elbo


def measured(weighed: Weighed) -> Weights:
    """Return what draws and their weights say of each replicate."""
    log_w = weighed.log_w.double()
    log_w = torch.where(log_w.isnan(), -math.inf, log_w)
    elbo, evidence = log_w.mean(dim=0), log_w.logsumexp(dim=0) - math.log(len(log_w))
    ess = effective_sample_size(log_w) * len(log_w)
    moves = [moments_moved(flattened(weighed.z, r), log_w[:, r]) for r in range(log_w.shape[1])]
    return Weights(elbo, evidence, pareto_k(log_w).clamp_min(-1), ess, *torch.tensor(moves).double().to(log_w).T)


def flattened(z: dict[str, Tensor], replicate: int) -> Tensor:
    """Return the draws of one replicate with all scalars side by side, (S, D)."""
    return torch.cat([value[:, replicate].reshape(len(value), -1).double() for value in z.values()], dim=-1)


def moments_moved(z: Tensor, log_w: Tensor) -> tuple[float, float, float]:
    """Return how far smoothed weights move means, in deviations of q, and deviations, as |log ratio| and log ratio.

    The largest of each counts.

    Args:
        z: Draws, (S, D).
        log_w: Their log-weights, (S,).
    """
    mean, sd = z.mean(dim=0), z.std(dim=0)
    if not bool(log_w.isfinite().any()) or not bool((sd > 0).all()):
        return math.inf, math.inf, math.inf
    weights = smoothed_weights(log_w).unsqueeze(-1)
    moved = (weights * z).sum(dim=0)
    stretched = (weights * (z - moved).square()).sum(dim=0).sqrt().clamp_min(1e-300)
    log_ratio = (stretched / sd).log()
    return float(((moved - mean) / sd).abs().max()), float(log_ratio.abs().max()), float(log_ratio.max())


def judge(weighed: Weighed, alive: Tensor, results: Tensor | None = None, ways_out: str = "") -> Verdict:
    """Return the verdict on the replicates that results come from.

    Args:
        weighed: Draws of all replicates.
        alive: (R,) replicates that have not diverged.
        results: (R,) replicates over which results are averaged; None for the best one alone.
        ways_out: What to try where q does not fit, such as `family=full_rank_normal`.
    """
    found = Weights(*(value.cpu() for value in measured(weighed)))
    living = alive.cpu() & found.elbo.isfinite()
    draws, elbo = len(weighed.log_w), torch.where(living, found.elbo, -math.inf)
    judged = torch.zeros_like(living).index_fill(0, elbo.argmax(), True) if results is None else results.cpu()
    if not bool(living[judged].all()) or not bool(judged.any()):
        reason = f"no finite ELBO: q has draws where the density is zero; try {ways_out}"
        return Verdict("poor", (reason,), None, None, None, None, None, None, None, (), draws)
    seen = _Seen(
        k_hat=nearly_worst(found.k_hat[judged]),
        gap=nearly_worst(found.gap[judged]),
        ess=-nearly_worst(-found.ess[judged]),
        shift=nearly_worst(found.shift[judged]),
        stretch=nearly_worst(found.stretch[judged]),
        widening=nearly_worst(found.widening[judged]),
        below=(elbo.max() - elbo).tolist(),
        judged=judged.tolist(),
        modes=clustered(weighed.z, found.log_evidence, elbo),
        draws=draws,
    )
    trust = seen.trust()
    agreement = None if len(elbo) == 1 else seen.near / len(elbo)
    reasons = tuple(seen.reasons(trust, ways_out))
    return Verdict(
        trust=trust,
        reasons=reasons,
        k_hat=seen.k_hat,
        kl_gap=seen.gap,
        ess=seen.ess,
        shift=seen.shift,
        stretch=seen.stretch,
        widening=seen.widening,
        agreement=agreement,
        modes=seen.modes,
        draws=draws,
    )


def nearly_worst(values: Tensor) -> float:
    """Return the value (R,) that a tenth of the replicates may exceed: the largest of ten or fewer."""
    return float(values.sort().values[math.ceil(0.9 * (len(values) - 1))])


def clustered(z: dict[str, Tensor], log_evidence: Tensor, elbo: Tensor) -> tuple[Mode, ...]:
    """Return the modes in which replicates ended, by distances of medians in units of half the central 68 %.

    Args:
        z: Draws (S, R, *event) by latent.
        log_evidence: (R,).
        elbo: (R,), −∞ for replicates that do not count; a mode is led by its replicate with the highest one.
    """
    pieces = [value[:LOCATED].double().cpu() for value in z.values()]
    draws = torch.cat([piece.reshape(*piece.shape[:2], -1) for piece in pieces], dim=-1)
    ordered = draws.sort(dim=0).values
    low, centre, high = (ordered[round(level * (len(ordered) - 1))] for level in (0.16, 0.5, 0.84))
    width = (0.5 * (high - low)).clamp_min(1e-12)
    modes: list[list[int]] = []
    for r in (r for r in elbo.argsort(descending=True).tolist() if elbo[r] > -math.inf):
        own = (m for m in modes if (centre[r] - centre[m[0]]).abs().div(0.5 * (width[r] + width[m[0]])).max() < APART)
        home = next(own, None)
        modes.append([r]) if home is None else home.append(r)
    evidence = torch.stack([log_evidence[mode[0]] for mode in modes])
    found = zip(modes, evidence.tolist(), evidence.softmax(dim=0).tolist(), strict=True)
    return tuple(sorted((Mode(tuple(sorted(m)), m[0], e, w) for m, e, w in found), key=lambda mode: -mode.weight))


@dataclass(frozen=True)
class _Seen:
    """What a verdict is made of: the worst numbers of the judged replicates, nats below the best, and modes."""

    k_hat: float
    gap: float
    ess: float
    shift: float
    stretch: float
    widening: float
    below: list[float]
    judged: list[bool]
    modes: tuple[Mode, ...]
    draws: int

    @property
    def near(self) -> int:
        return sum(gap < MOST_BELOW for gap in self.below)

    @property
    def subject(self) -> str:
        """Of which of several replicates the numbers are."""
        judged = [number for number, judged in enumerate(self.judged) if judged]
        if len(self.judged) == 1:
            return ""
        if len(judged) == 1:
            return f"replicate {judged[0]}: "
        return f"{'worst' if len(judged) <= 10 else 'nine tenths'} of {len(judged)} replicates: "

    @property
    def rivals(self) -> list[Mode]:
        """Modes that share the evidence; one where there is no rival."""
        return [mode for mode in self.modes if mode.weight > NEGLIGIBLE]

    @property
    def even(self) -> bool:
        """Whether the weights are so even that k-hat does not matter."""
        return self.ess > EVEN * self.draws

    @property
    def fits(self) -> bool:
        return (
            (self.k_hat < MOST_K or self.even)
            and self.gap < MOST_GAP
            and self.shift < MOST_SHIFT
            and self.stretch < MOST_STRETCH
        )

    @property
    def correctable(self) -> bool:
        """Whether weights mend q: they are light, and do not widen it towards what none of its draws has reached."""
        return self.k_hat < CORRECTABLE_K and self.ess >= LEAST_ESS and self.widening < MOST_STRETCH

    @property
    def agree(self) -> bool:
        return all(gap < MOST_BELOW for gap, judged in zip(self.below, self.judged, strict=True) if judged)

    def trust(self) -> Trust:
        if len(self.rivals) > 1:
            return "poor"
        if self.fits and self.agree:
            return "good"
        return "corrected" if self.correctable and self.agree else "poor"

    def reasons(self, trust: Trust, ways_out: str) -> list[str]:
        count = len(self.below)
        effective = f"of no account with {self.ess / self.draws:.0%} effective draws"
        limit = effective if self.even and self.k_hat >= MOST_K else f"below {MOST_K} is good"
        found = [f"{self.subject}k-hat {self.k_hat:.2f} ({limit})"]
        found += [f"ELBO {max(self.gap, 0.0):.2g} nats below the log evidence (below {MOST_GAP} is good)"]
        still = "draws of a latent do not differ: its number type is too short (dtype=float64)"
        moves = f"importance weights move means by {self.shift:.2g} sd (below {MOST_SHIFT} is good)"
        found.append(moves if math.isfinite(self.shift) else still)
        if MOST_STRETCH <= self.stretch < math.inf:
            found.append(f"and deviations by a factor {math.exp(self.stretch):.2f}")
        if count > 1:
            found.append(f"{self.near} of {count} replicates within {MOST_BELOW:g} nat of the best")
        if len(self.rivals) > 1:
            shares = [f"{m.members} {m.weight:.0%}" for m in self.rivals]
            found.append(f"{len(shares)} modes share the evidence: {'; '.join(shares)}")
        elif len(self.modes) > 1:
            others = len(self.modes) - 1
            found.append(f"{others} other mode{'s' if others > 1 else ''} of negligible evidence")
        if trust == "corrected":
            found.append(f"moments corrected by importance sampling, {self.ess:.0f} effective draws, stand beside q's")
        if trust != "good":
            found.append(f"try {self._ways_out(ways_out)}")
        if count == 1:
            found.append("one replicate cannot see other modes; use replicates=4")
        return found

    def _ways_out(self, ways_out: str) -> str:
        """Say what to try: to combine modes helps where q fits one, and not where replicates are still on their way."""
        if len(self.rivals) > 1 and self.gap < MOST_BELOW:
            return "combine=evidence, family=mixture_of_normals, or report the modes apart"
        return "more steps, or more replicates" if self.fits else ways_out
