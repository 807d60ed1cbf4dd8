"""Claims on scores and gradient estimators: questions 1.2.4, 2.1.12, 2.2.13, 3.1.21 to 3.1.24, and report 003, 3.

The score ∇ log q has mean zero, and ∇ ELBO = E_q[log w ∇ log q], which quadrature gives to many digits. Subtracting
a · ∇ log q leaves the mean as it is; the variance is least at a* = Cov(f, h)/Var(h), with h = ∇ log q and f = h log w.
The path derivative ∂z/∂θ ∂ log w/∂z has the same mean. It vanishes for each draw where q is the posterior, because
log w is constant there.
"""

import torch
from numpy import ndarray
from torch import Tensor

from vi_core.bounds.base import Bound
from vi_core.bounds.elbo import ELBO
from vi_core.distributions.transforms import Exponential
from vi_core.estimators.base import Estimator
from vi_core.estimators.closed_form_kl import ClosedFormKL
from vi_core.estimators.exact import Exact
from vi_core.estimators.pathwise import Pathwise, StickingTheLanding
from vi_core.estimators.score_function.coefficients import InSample, LeaveOneOut, NoControl
from vi_core.estimators.score_function.estimator import ScoreFunction, per_sample_scores
from vi_core.estimators.score_function.scopes import Everything, MarkovBlanket
from vi_core.families.base import Family
from vi_core.families.normal_gamma import NormalGammaFamily
from vi_core.studies.base import Quantity, average, doubles
from vi_core.studies.claims import base
from vi_core.studies.claims.base import (
    CONCENTRATION,
    LOC,
    NAMES,
    RATE,
    SCALE,
    Problem,
    Rule,
    largest,
    nodes,
    parameters,
)

# d value / d stored, where positive parameters are stored as logarithms
SLOPES = {"loc": 1.0, "scale": SCALE, "concentration": CONCENTRATION, "rate": RATE}
SAMPLES = 10  # K of each estimate


class Centred(Bound):
    """The ELBO with log w − log p(x) as its signal, whose mean product with the score is that of log w.

    Without the baseline the noise of the score function, with |log w| near 186, is as large as its mean.
    """

    name, additive, linear = "elbo", True, True

    def __init__(self, evidence: float):
        self.evidence = evidence

    def __call__(self, log_w: Tensor) -> Tensor:
        return ELBO()(log_w)

    def signal(self, log_w: Tensor) -> Tensor:
        return ELBO().signal(log_w - self.evidence)


def scores(problem: Problem) -> dict[str, Quantity]:
    """Scores by autograd against their closed forms, and E[score] = 0: questions 1.2.4, 3.1.22; report 003, 3.2."""
    rule, family, q = Rule(), problem.family(1), parameters()
    _, by_autograd = per_sample_scores(family, q, nodes(rule))
    _, drawn = per_sample_scores(family, q, problem.joint().sample(problem.num_samples))
    found: dict[str, Quantity] = {}
    for i, (name, closed) in enumerate(rule.scores().items()):
        found[f"score[{name}]"] = largest(by_autograd[i].flatten().numpy() - closed)
        found[f"mean_score[{name}]"] = average(drawn[i].flatten(), 0.0)
    return found | {"score[precision]": largest(SCALE**3 / -2 * by_autograd[1].flatten().numpy() - of_precision(rule))}


def of_precision(rule: Rule) -> ndarray:
    """Return ∂ log q/∂λ = 1/(2λ) − (mu − loc)²/2 for the precision λ = 1/scale² of q(mu), at the nodes, (M,).

    By the chain rule it is ∂ log q/∂scale times ∂scale/∂λ = −scale³/2.
    """
    return SCALE**2 / 2 - (rule.mu - LOC) ** 2 / 2


def estimators(problem: Problem) -> dict[str, Quantity]:
    """Every estimator has the mean E_q[log w ∇ log q]: questions 1.2.5, 2.2.13, 3.1.21, 3.1.23."""
    exact = stored_gradient(problem)
    parts: dict[str, Estimator] = {
        "score_function": ScoreFunction(num_samples=SAMPLES, coefficient=NoControl(), scope=Everything()),
        "control_variate": ScoreFunction(num_samples=SAMPLES, coefficient=LeaveOneOut(), scope=Everything()),
        "pathwise": Pathwise(num_samples=1),
        "sticking_the_landing": StickingTheLanding(num_samples=1),
        "closed_form_kl": ClosedFormKL(num_samples=1),
    }
    found = {
        f"{kind}[{name}]": average(column, exact[name])
        for kind, part in parts.items()
        for name, column in by_name(estimates(problem, part)).items()
    }
    closed = by_name(gradients(problem, Exact(), problem.family(1)))
    return found | {f"exact_gradient[{name}]": Quantity(g.item(), None, exact[name]) for name, g in closed.items()}


def estimates(problem: Problem, part: Estimator) -> Tensor:
    """Return independent estimates of the gradient in the stored parameters, (N/10, 4), with log p(x) as baseline."""
    return gradients(problem, part, problem.family(problem.num_samples // SAMPLES), Centred(problem.evidence))


def stored_gradient(problem: Problem) -> dict[str, float]:
    """Return the exact gradient in the stored parameters of q, by name, from quadrature."""
    return {name: SLOPES[name] * g for name, g in Rule().gradient(problem).items()}


def gradients(problem: Problem, estimator: Estimator, family: Family, bound: Bound | None = None) -> Tensor:
    """Return an estimator's gradient in the stored parameters of a family, (R, 4), in the order of `NAMES`.

    Args:
        problem: The model and its data.
        estimator: Of the ELBO.
        family: With R replicates at one q: independent estimates, from which the error of their mean follows.
        bound: The ELBO unless given.
    """
    estimate = estimator(problem.model, family, bound or ELBO(), problem.x)
    (gradient,) = torch.autograd.grad(estimate.surrogate.sum(), list(family.parameters()))
    return gradient.squeeze(1)


def by_name(gradient: Tensor) -> dict[str, Tensor]:
    """Split a gradient (R, 4) into columns (R,) by parameter."""
    return dict(zip(NAMES, gradient.unbind(dim=1), strict=True))


def landing(problem: Problem) -> dict[str, Quantity]:
    """At the exact posterior each sample's path derivative is zero: questions 3.1.21 and 3.1.24."""
    family = NormalGammaFamily(problem.model.latents, 100, positive=Exponential()).double()
    family.assign(base.normal_gamma(*(value.expand(100, 1) for value in problem.model.posterior(problem.x))))
    return {"landing": largest(gradients(problem, StickingTheLanding(num_samples=1), family))}


def control_variate(problem: Problem) -> dict[str, Quantity]:
    """a* = Cov(f, h)/Var(h) from draws against quadrature: question 2.2.13. The slope of 20 batches gives the error."""
    rule, batches = Rule(), 20
    log_w = rule.log_weights(problem)
    exact = {
        name: (rule.mean(log_w * h**2) - rule.mean(log_w * h) * rule.mean(h)) / (rule.mean(h**2) - rule.mean(h) ** 2)
        for name, h in rule.scores().items()
    }
    q, x = parameters(batches), problem.x
    z = problem.joint(batches).sample(problem.num_samples // batches)
    log_density, h = per_sample_scores(problem.family(batches), q, z)
    f = (problem.model.log_joint(z, x) - log_density) * h
    slopes = InSample()(f, h).flatten(1)
    return {f"coefficient[{name}]": average(slopes[i], exact[name]) for i, name in enumerate(NAMES)}


def rao_blackwell(problem: Problem) -> dict[str, Quantity]:
    """Factors outside the Markov blanket can be left out of a latent's gradient: question 2.1.12.

    The leave-one-out control variate keeps the mean, and without it the noise would hide the gradient.
    """
    part = ScoreFunction(num_samples=SAMPLES, coefficient=LeaveOneOut(), scope=MarkovBlanket())
    exact = stored_gradient(problem)
    return {f"rao_blackwell[{name}]": average(g, exact[name]) for name, g in by_name(estimates(problem, part)).items()}


def score_left_out(problem: Problem) -> dict[str, Quantity]:
    """Draw by draw, total derivative − path derivative = −score: question 3.1.21; report 003, 3.1."""
    family = problem.family(100)
    with torch.random.fork_rng(devices=[]):
        total = gradients(problem, Pathwise(num_samples=1), family)
    with torch.random.fork_rng(devices=[]):
        path = gradients(problem, StickingTheLanding(num_samples=1), family)
    params = family.variational(problem.x)
    score = per_sample_scores(family, params, family.distribution(params).balanced(1))[1].reshape(4, 100).T
    return {"score_left_out": largest(total - path + score * doubles(list(SLOPES.values())))}


CLAIMS = (scores, estimators, landing, score_left_out, control_variate, rao_blackwell)
