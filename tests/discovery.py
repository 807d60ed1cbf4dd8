"""Checks that any bound and any estimator must pass, as functions from a part to its faults.

The contract tests call them on every part of conf/, and `tests/contracts/test_adding.py` on parts from a folder of its
own: a right one has no faults, and one with its sign flipped has some.

**Bounds**: on four states with q = softmax(θ), E[f(z_1, ..., z_K)] is a sum over 4^K tuples. So is its gradient in θ,
by autograd, which E[Σ_k s_k ∇ log q(z_k)] with s = `bound.signal(log w)` must equal. To rounding: no false alarms.

**Estimators**: on every pair of a model and a family that accept each other, and every bound, whose combination the
estimator accepts. The reference is written below, in a few lines that share nothing with `vi_core.estimators`: the
derivative through draws, or where draws have none, L Σ_k ∇ log q(z_k) + ∇ L at fixed draws. An estimator that does not
declare a bias has the reference's expectation, in every parameter; one that does climbs, with a mean gradient that has
a positive component along the reference's; both report the reference's bound. Power: each comparison asserts that the
same samples with the opposite sign are rejected, so that no combination passes because it is too noisy to say
anything.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from tests import oracles
from tests.contracts.test_config import composed, loaded, names, settings
from vi_core.bounds.base import Bound
from vi_core.bounds.elbo import ELBO
from vi_core.datasets.base import Data, identity
from vi_core.errors import LabError, Unsupported
from vi_core.estimators.base import Estimate, Estimator
from vi_core.estimators.exact import Exact
from vi_core.families.base import Family
from vi_core.models.base import HasAssignments, HasColumns, HasDenoisingTerms, Model
from vi_core.models.bayesian.file import FileModel
from vi_core.schema import construct, locate
from vi_core.training.batches import Batches

# --- bounds ---------------------------------------------------------------------------------------------------------

LOG_P = torch.tensor([-1.0, -2.5, 0.3, -4.0], dtype=torch.float64)
THETA = torch.tensor([0.4, -0.3, 0.1, 0.9], dtype=torch.float64)
EVIDENCE = LOG_P.logsumexp(0).item()


def tuples(num_samples: int) -> Tensor:
    """All outcomes of K draws, (K, 4^K)."""
    return torch.tensor(list(itertools.product(range(4), repeat=num_samples))).T


def expectation(bound: Bound, theta: Tensor, num_samples: int) -> Tensor:
    """E[L], exactly; differentiable in θ."""
    log_q, z = theta.log_softmax(0), tuples(num_samples)
    return (log_q[z].sum(0).exp() * bound((LOG_P - log_q)[z])).sum()


def gradient(bound: Bound, num_samples: int) -> Tensor:
    """∇_θ E[L], exactly."""
    theta = THETA.clone().requires_grad_()
    return torch.autograd.grad(expectation(bound, theta, num_samples), theta)[0]


def score_function_gradient(bound: Bound, num_samples: int) -> Tensor:
    """E[Σ_k s_k ∇ log q(z_k)], exactly; ∇ log q(z) = e_z − softmax(θ)."""
    log_q, z = THETA.log_softmax(0), tuples(num_samples)
    signal = bound.signal((LOG_P - log_q)[z])
    assert signal.shape == z.shape
    scores = torch.eye(4, dtype=torch.float64)[z] - log_q.exp()
    return torch.einsum("t,kt,ktp->p", log_q[z].sum(0).exp(), signal, scores)


def near(found: Tensor, wanted: Tensor, tolerance: float = 1e-10) -> bool:
    return torch.allclose(found, wanted, rtol=tolerance, atol=tolerance)


def is_additive(bound: Bound) -> bool:
    """Whether the second derivative in two different log-weights is zero."""
    hessian = torch.autograd.functional.hessian(lambda w: bound(w), torch.tensor([0.3, -1.0, 0.7]).double())
    assert isinstance(hessian, Tensor)
    return bool((hessian == 0).all())


def is_finite_on_extremes(bound: Bound) -> bool:
    """Whether value, derivative and signal are finite on log-weights whose exponentials overflow, and underflow."""
    log_w = torch.tensor([[1e4, -1e5], [2e4, -2e5], [-3e4, -1e5]], dtype=torch.float64, requires_grad=True)
    value = bound(log_w)
    (slope,) = torch.autograd.grad(value.sum(), log_w)
    return all(bool(t.isfinite().all()) for t in (value, slope, bound.signal(log_w.detach())))


def signal_of_equal_weights(bound: Bound) -> Tensor:
    """What the signal of 50 equal log-weights of 3 must be: 3/K where the bound is additive, else 3 − 1/K."""
    return torch.full((50, 2), 3.0 / 50 if bound.additive else 3.0 - 1 / 50, dtype=torch.float64)


def bound_faults(bound: Bound) -> list[str]:
    """Return what is wrong with a bound."""
    log_w = 50 * torch.randn(7, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    equal, one = torch.full((50, 2), 3.0, dtype=torch.float64), log_w[:1]
    checks: dict[str, Callable[[], bool]] = {
        "it does not reduce the samples alone": lambda: near(bound(log_w)[1, 2], bound(log_w[:, 1, 2])),
        "signal has another shape than the log-weights": lambda: bound.signal(log_w).shape == log_w.shape,
        "bound(log w + c) is not bound(log w) + c": lambda: near(bound(log_w + 123.0), bound(log_w) + 123.0),
        "equal log-weights are not its value": lambda: near(bound(equal), equal[0]),
        "signal of equal log-weights": lambda: near(bound.signal(equal), signal_of_equal_weights(bound)),
        "one sample does not give the ELBO": lambda: near(bound(one), one[0]) and near(gradient(bound, 1), ELBO_SLOPE),
        "it is above the evidence": lambda: all(
            expectation(bound, THETA, k).item() < EVIDENCE + 1e-12 for k in range(1, 6)
        ),
        "a perfect q is not tight": lambda: all(
            abs(expectation(bound, LOG_P, k).item() - EVIDENCE) < 1e-10 for k in (1, 2, 5)
        ),
        "`additive` is not what the second derivative says": lambda: is_additive(bound) == bound.additive,
        "it overflows": lambda: is_finite_on_extremes(bound),
        "signal does not give the gradient": lambda: all(
            near(score_function_gradient(bound, k), gradient(bound, k)) for k in (1, 2, 3, 5)
        ),
    }
    before = log_w.clone()
    found = [fault for fault, holds in checks.items() if not holds()]
    return found if torch.equal(log_w, before) else [*found, "it changes the log-weights"]


ELBO_SLOPE = gradient(ELBO(), 1)


# --- pairs of models and families -----------------------------------------------------------------------------------

NUM_SAMPLES = 6
"""K: with five other samples a leave-one-out coefficient has a variance, which four do not give it."""
REPLICATES, CALLS, COPIES = 2000, 40, 20
"""Samples of a gradient: replicates of q's parameters; or calls, each a mean over copies of the data."""
POINTS = {False: 12, True: 2}
"""Data points, where the data share their latents and where each has its own."""
MOST_WEIGHTS = 1000
"""Of a family with many replicates."""
PIXELS = 6
"""Of an image, so that a network has few weights."""
PLACE: dict[str, dict[str, Any]] = {
    "model": {"hidden": [5], "channels": [2]},
    "family": {"hidden": [5], "loc": 2.0, "concentration": 8.0, "rate": 4.0} | {"transforms": 1, "bins": 4},
}
"""Settings: small networks, and a q on the far side of the prior whose E[1/z²], and gradients' variance, are finite."""
MORE = 3
"""Rounds of the reference for each of an estimator's."""
MOST = 32
"""Rounds within which an estimator must tell the sign of its gradient."""


@dataclass(frozen=True)
class Pair:
    """A model and a family that accept each other, with data x, at their initial parameters."""

    name: str
    model: Model
    family: Family
    x: Any

    @property
    def weights(self) -> list[Tensor]:
        """The tensors that a gradient moves."""
        return [*self.family.parameters(), *self.model.parameters()]

    @property
    def has_path(self) -> bool:
        """Whether the derivative of a draw gives the bound's gradient."""
        return not (self.family.relaxed or self.family.bias)


def pair(model_name: str, family_name: str, dataset: str, replicates: int) -> Pair:
    """Build a pair, or raise `LabError` where model, family and data refuse each other."""
    data = few_pixels(dataset)
    context: dict[str, Any] = {"replicates": replicates, "steps_per_epoch": 1, "data_mean": data.mean}
    context |= {"event_size": data.train[0].numel(), "num_points": POINTS[False]}
    context |= {"image_shape": data.image_shape, "levels": data.levels}
    model: Model = construct(small("model", model_name), "model", context)
    if replicates > 1 and any(True for _ in model.parameters()):
        raise Unsupported("a model with weights has one set of them.")
    data = replace(data, train=data.train[: POINTS[model.has_local]])
    batches = Batches(data, model, len(data.train) if model.has_local else None, torch.Generator().manual_seed(0))
    context["latents"] = model.latents
    context["process"] = model.process if isinstance(model, HasDenoisingTerms) else None
    family: Family = construct(small("family", family_name), "family", context)
    with torch.no_grad():
        for value in family.parameters() if replicates > 1 else ():
            value.copy_(value[:1].expand_as(value))  # every replicate is a repetition of one experiment
    x = batches.next()[0]
    return Pair(f"{model_name} x {family_name}", model, family, x.repeat(COPIES, 1) if model.has_local else x)


def small(noun: str, name: str) -> dict[str, Any]:
    """A part's configuration with PLACE in it and in the parts inside."""
    return _placed(settings(noun, name), PLACE[noun])


def _placed(config: dict[str, Any], place: dict[str, Any]) -> dict[str, Any]:
    inside = {key: _placed(value, place) for key, value in config.items() if isinstance(value, dict)}
    return config | inside | {key: value for key, value in place.items() if key in config}


@cache
def few_pixels(dataset: str) -> Data:
    """Return a data set as its model sees it, images cut to the PIXELS that vary most."""
    data = loaded(dataset).data
    seen = data.decode(data.train)
    if seen.dim() == 2 and seen.shape[1] > PIXELS:
        seen = seen[:, seen.var(dim=0).argsort(descending=True)[:PIXELS]]
    return replace(data, train=seen, test=None, decode=identity, image_shape=data.image_shape and (2, PIXELS // 2))


def datasets(model_name: str) -> list[str]:
    """Data sets that need no files and have no columns by name, the model's own first."""
    without = {"csv", "table", "npz", "json", "images", "catalogue", "mnist", "fashion_mnist"}
    without |= {"eight_schools", "lynx_hare"}
    first = [model_name, "normal", "digits", "two_moons"]
    return sorted(set(names("dataset")) - without, key=lambda name: (name not in first, *map(name.__ne__, first), name))


def first_pair(model_name: str, family_name: str) -> Pair | None:
    """The pair on the first data set that it accepts, with many replicates where it has them; None where it refuses."""
    for dataset, replicates in itertools.product(datasets(model_name), (REPLICATES, 1)):
        torch.manual_seed(20250)  # of each pair: a part that is added leaves the weights of the others as they are
        try:
            return pair(model_name, family_name, dataset, replicates)
        except LabError:
            continue
    return None


def models() -> list[str]:
    """Models of conf/ whose latents do not depend on columns; tests/unit/test_bayesian.py is for the others."""
    kinds = {name: locate(settings("model", name)["_target_"], "model") for name in names("model")}
    return [name for name, kind in kinds.items() if not issubclass(kind, (HasColumns, FileModel))]


def trained_families() -> list[str]:
    """Families of conf/ that a gradient moves."""
    return [name for name in names("family") if not locate(settings("family", name)["_target_"], "family").fixed]


@cache
def pairs() -> list[Pair]:
    """Every model of conf/ with every family that accepts it and has parameters to train."""
    found = [first_pair(model, family) for model in models() for family in trained_families()]
    return [one for one in found if one is not None and not too_many_weights(one.family)]


def too_many_weights(family: Family) -> bool:
    """Whether the scores of all samples would take gigabytes: of a flow over many coordinates."""
    return family.replicates > 1 and sum(value[0].numel() for value in family.parameters()) > MOST_WEIGHTS


@cache
def bounds() -> list[Bound]:
    """The bounds of conf/."""
    return [construct(composed(f"bound/{name}"), "bound") for name in names("bound")]


# --- estimators -----------------------------------------------------------------------------------------------------


def reference(one: Pair, bound: Bound, baseline: Tensor | float) -> Estimate:
    """An unbiased estimate of a bound and its gradient, written out."""
    q = one.family.distribution(one.family.variational(one.x))
    z = q.rsample(NUM_SAMPLES) if one.has_path else q.sample(NUM_SAMPLES)
    log_q = q.log_prob(z)
    value = bound(one.model.log_joint(z, one.x) - log_q)
    score = 0.0 if one.has_path else (value.detach() - baseline) * log_q.sum(dim=0)
    return Estimate(value.detach(), value + score, None, {})


def samples(one: Pair, estimates: Iterator[Estimate]) -> Tensor:
    """Independent gradients in every parameter and, last, bounds: (N, P + 1)."""
    rows = []
    for estimate in estimates:
        if one.family.replicates > 1:
            slopes = torch.autograd.grad(estimate.surrogate.sum(), one.weights, materialize_grads=True)
            rows.append(torch.cat([*(slope.flatten(1) for slope in slopes), estimate.bound], dim=1))
        else:
            slopes = torch.autograd.grad(estimate.surrogate.mean(), one.weights, materialize_grads=True)
            rows.append(torch.cat([*map(torch.flatten, slopes), estimate.bound.mean().reshape(1)]).unsqueeze(0))
    return torch.cat(rows)


def rounds(one: Pair) -> int:
    """Calls of an estimator that give its samples."""
    return 1 if one.family.replicates > 1 else CALLS


@cache
def reference_samples(index: int, bound: Bound) -> Tensor:
    """Samples of the reference on one of the pairs, for a bound."""
    one = pairs()[index]
    torch.manual_seed(20251)
    baseline = reference(one, bound, 0.0).bound.mean()
    return samples(one, (reference(one, bound, baseline) for _ in range(MORE * rounds(one)))).detach()


def largest_z(found: Tensor, wanted: Tensor) -> float:
    """Largest standardised difference of two means, samples (N, P) and (M, P); rounding is no difference."""
    difference = found.mean(dim=0) - wanted.mean(dim=0)
    squares = found.var(dim=0) / len(found) + wanted.var(dim=0) / len(wanted)
    rounding = 1e-9 * (found.abs().amax(dim=0) + wanted.abs().amax(dim=0)) + 1e-12
    return float((difference / (squares + rounding.square()).sqrt()).abs().max())


def along(found: Tensor, wanted: Tensor) -> float:
    """Standardised mean of the component of samples (N, P) along the mean of others, each number by its variance."""
    mean = wanted.mean(dim=0)
    component = found @ (mean / (wanted.var(dim=0) + (1e-9 * mean).square() + 1e-12))
    return float(component.mean() / (component.std() / len(component) ** 0.5 + 1e-9 * component.abs().max()))


def shape_faults(one: Pair, bound: Bound, estimate: Estimate) -> list[str]:
    """Return what is wrong with the shapes, gradients and log-weights of one estimate."""
    batch = (one.family.replicates, len(one.x) if one.model.has_local else 1)
    tensors = [estimate.bound, *estimate.terms.values()]
    checks = {
        "shapes": all(t.shape == batch for t in (*tensors, estimate.surrogate)),
        "something reported has a gradient": not any(t.requires_grad for t in tensors),
    }
    if estimate.log_w is not None:
        checks["log-weights have a gradient"] = not estimate.log_w.requires_grad
        checks["the bound is not that of the log-weights"] = near(bound(estimate.log_w), estimate.bound)
    return [fault for fault, holds in checks.items() if not holds]


@dataclass(frozen=True)
class Trial:
    """An estimator on a pair and a bound that it accepts, with samples of the reference, (M, P + 1)."""

    one: Pair
    bound: Bound
    estimator: Estimator
    wanted: Tensor

    @property
    def is_biased(self) -> bool:
        """Whether the estimator or the family says so, or the bound is that of a model with its assignments in q."""
        one, estimator = self.one, self.estimator
        declared = estimator.bias(self.bound) or (one.family.bias and estimator.differentiates_draws)
        return bool(declared) or self.has_assignments

    @property
    def has_assignments(self) -> bool:
        """Whether q covers the assignments of a mixture, which samples sum out: a lower ELBO, in closed form."""
        return isinstance(self.estimator, Exact) and isinstance(self.one.model, HasAssignments)

    def draw(self, count: int) -> Tensor:
        """Return samples of the estimator, (N, P + 1), from `count` times its usual calls."""
        one, calls = self.one, range(count * rounds(self.one))
        return samples(one, (self.estimator(one.model, one.family, self.bound, one.x) for _ in calls)).detach()

    def tells_its_sign(self, found: Tensor, limit: float) -> bool:
        """Whether the samples with the opposite sign would be rejected."""
        if self.is_biased:
            return along(found[:, :-1], self.wanted[:, :-1]) > limit
        return largest_z(-found[:, :-1], self.wanted[:, :-1]) > limit

    def needs_more(self, found: Tensor, limit: float) -> bool:
        """Whether samples (N, P + 1) are too few to tell a gradient from its negative, and are right so far."""
        if self.tells_its_sign(found, limit) or not bool(found.isfinite().all()):
            return False
        if self.is_biased:
            return abs(along(found[:, :-1], self.wanted[:, :-1])) < limit
        return largest_z(found[:, :-1], self.wanted[:, :-1]) < limit

    def faults(self) -> list[str]:
        """Return what is wrong, from as many samples as tell the sign of the gradient, within MOST rounds."""
        one, found, count = self.one, self.draw(1), 1
        limit = oracles.limit(min(len(found), len(self.wanted)))
        while count < MOST and self.needs_more(found, limit):
            found, count = torch.cat([found, self.draw(count)]), 2 * count
        faults = shape_faults(one, self.bound, self.estimator(one.model, one.family, self.bound, one.x))
        if not bool(found.isfinite().all()):
            return [*faults, "not finite"]
        if not self.reports_the_bound(found, limit):
            faults.append("another bound is reported")
        distance = largest_z(found[:, :-1], self.wanted[:, :-1])
        if not self.is_biased and distance > limit:
            faults.append(f"biased: {distance:.1f} standard errors, more than {limit:.1f}")
        if not self.tells_its_sign(found, limit):
            faults.append("it does not climb" if self.is_biased else "too noisy to tell its sign")
        return faults

    def reports_the_bound(self, found: Tensor, limit: float) -> bool:
        """Whether the reported bound is the reference's in expectation, or below it where q covers assignments."""
        if self.has_assignments:
            return float(found[:, -1].mean()) < float(self.wanted[:, -1].mean())
        return largest_z(found[:, -1:], self.wanted[:, -1:]) <= limit


def estimator_faults(estimator: Estimator) -> dict[str, list[str]]:
    """Return the faults of an estimator by combination, for every one that it accepts: [] where it is right."""
    found = {}
    for (index, one), bound in itertools.product(enumerate(pairs()), bounds()):
        try:
            estimator.check(one.model, one.family, bound)
        except LabError:
            continue
        torch.manual_seed(20252)
        found[f"{one.name} x {bound.name}"] = Trial(one, bound, estimator, reference_samples(index, bound)).faults()
    return found


def conf_estimator(name: str) -> Estimator:
    """An estimator of conf/, with K = `NUM_SAMPLES` where it has samples."""
    config = composed(f"estimator/{name}")
    return construct(config | {"num_samples": NUM_SAMPLES} if "num_samples" in config else config, "estimator")
