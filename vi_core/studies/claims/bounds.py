"""Claims on evidence, ELBO and IWELBO: questions 1.1.1, 1.1.2, 1.2.4, 2.1.10 and 2.1.11, and report 003, 2.1."""

import math
from itertools import pairwise

import numpy as np
import torch
from numpy import ndarray
from scipy import stats
from torch import Tensor

from vi_core.bounds.elbo import ELBO
from vi_core.bounds.iwelbo import IWELBO
from vi_core.studies.base import Quantity, average
from vi_core.studies.claims.base import Problem, Rule, largest, log_prior, nodes, normal_gamma, parameters

IMPORTANCE = (1, 2, 5, 10, 25, 50)  # values of K, each a divisor of the largest
LARGEST = 50


def densities(problem: Problem) -> dict[str, Quantity]:
    """The factors of the model and its posterior against scipy, at the nodes: question 1.2.4."""
    rule = Rule()
    factors = {name: v.flatten().numpy() for name, (v, _) in problem.model.factors(nodes(rule), problem.x).items()}
    prior = factors["prior_mu"] + factors["prior_tau"]
    joint = problem.log_joint(rule.mu, rule.tau)
    return {
        "log_likelihood": largest(factors["likelihood"] - problem.log_likelihood(rule.mu, rule.tau)),
        "log_prior": largest(prior - log_prior(rule.mu, rule.tau)),
        "bayes_rule": largest(joint - log_posterior(problem, rule) - problem.evidence),
    }


def log_posterior(problem: Problem, rule: Rule) -> ndarray:
    """Return log p(mu, tau | x) at the nodes, by scipy's densities at the parameters of the model's posterior."""
    loc, ratio, a, b = (value.item() for value in problem.model.posterior(problem.x))
    tau = stats.gamma.logpdf(rule.tau, a, scale=1 / b)
    return tau + stats.norm.logpdf(rule.mu, loc, (ratio * rule.tau) ** -0.5)


def decomposition(problem: Problem) -> dict[str, Quantity]:
    """log p(x) = ELBO + KL(q ‖ posterior), ELBO = E[log p(x | z)] − KL(q ‖ prior): questions 1.1.1, 1.1.2; 003, 2.1."""
    rule, model, x, q = Rule(), problem.model, problem.x, parameters()
    elbo, by_quadrature = model.expected_bound(q, x).item(), rule.mean(rule.log_weights(problem))
    divergence = rule.mean(rule.log_q() - log_posterior(problem, rule))
    likelihood = rule.mean(problem.log_likelihood(rule.mu, rule.tau))
    return {
        "evidence_decomposition": Quantity(elbo + divergence, None, problem.evidence),
        "elbo_closed_form": Quantity(elbo, None, by_quadrature),
        "elbo_split": Quantity(likelihood - model.kl(q).item(), None, by_quadrature),
        "elbo_of_the_posterior": Quantity(_structured_bound(problem), None, problem.evidence),
    }


def _structured_bound(problem: Problem) -> float:
    """Return the ELBO of q(tau) q(mu | tau) at the exact posterior, the largest that any family reaches."""
    q = normal_gamma(*(value.reshape(1, 1) for value in problem.model.posterior(problem.x)))
    return problem.model.expected_bound(q, problem.x).item()


def log_weights(problem: Problem) -> Tensor:
    """Return log-weights of fresh draws from q, (50, N/50): one column for each group of the largest K."""
    q = problem.joint()
    z = q.sample(problem.num_samples // LARGEST * LARGEST)
    return (problem.model.log_joint(z, problem.x) - q.log_prob(z)).reshape(LARGEST, -1)


def importance_bounds(log_w: Tensor) -> dict[int, Tensor]:
    """Return the IWELBO by K, (N/50,): each column is divided into groups of K draws, whose bounds are averaged."""
    return {k: IWELBO()(log_w.reshape(k, LARGEST // k, -1)).mean(dim=0) for k in IMPORTANCE}


def iwelbo(problem: Problem, log_w: Tensor) -> dict[str, Quantity]:
    """ELBO = L_1 ≤ L_K ≤ log p(x), rising in K, and E[w] = p(x): questions 2.1.10, 2.1.11."""
    bounds, rule = importance_bounds(log_w), Rule()
    exact = {1: rule.mean(rule.log_weights(problem)), 2: iwelbo_of_two(problem, rule)}
    rises = [bounds[high] - bounds[low] for low, high in pairwise(IMPORTANCE)]
    below = [problem.evidence - bound for bound in bounds.values()]
    jensen = ELBO()(log_w) - IWELBO()(log_w)
    return {
        "mean_weight": average((log_w.flatten() - problem.evidence).exp(), 1.0),
        **{f"iwelbo[{k}]": average(bound, exact.get(k)) for k, bound in bounds.items()},
        "iwelbo_above_evidence": Quantity(worst_shortfall(below), None, 0.0),
        "iwelbo_falls_in_k": Quantity(worst_shortfall(rises), None, 0.0),
        "jensen_violations": Quantity(float((jensen > 1e-12).sum()), None, 0.0),
    }


def worst_shortfall(positives: list[Tensor]) -> float:
    """Return the largest number of standard errors by which a mean that should not be negative lies below zero."""
    scores = [value.mean() / (value.std() / math.sqrt(len(value))) for value in positives]
    return max(0.0, -min(score.item() for score in scores))


def iwelbo_of_two(problem: Problem, rule: Rule) -> float:
    """Return L_2 by quadrature over all pairs of nodes that carry weight."""
    log_w, kept = rule.log_weights(problem), rule.weight > 1e-18
    values, weights = log_w[kept], rule.weight[kept]
    pairs = np.logaddexp(values[:, None], values) - math.log(2)
    return float(weights @ pairs @ weights)


def records(problem: Problem, log_w: Tensor) -> dict[str, ndarray]:
    """Return the arrays that the figure of the IWELBO is drawn from: K, estimates, errors, evidence, quadrature."""
    found, rule = [average(bound) for bound in importance_bounds(log_w).values()], Rule()
    return {
        "importance": np.array(IMPORTANCE),
        "iwelbo": np.array([q.value for q in found]),
        "iwelbo_se": np.array([q.se for q in found]),
        "evidence": np.array(problem.evidence),
        "exact": np.array([rule.mean(rule.log_weights(problem)), iwelbo_of_two(problem, rule)]),
    }


def optimum(problem: Problem) -> dict[str, Quantity]:
    """log q*(z_i) = E_−i[log p(x, z)] + const, and the fixed point: question 1.1.3."""
    rule, model, x, q = Rule(), problem.model, problem.x, parameters()
    mu, tau = (np.unique(axis) for axis in (rule.mu, rule.tau))
    surface = problem.log_joint(rule.mu, rule.tau).reshape(len(mu), len(tau))
    weight = rule.weight.reshape(len(mu), len(tau))
    best = {block: {k: v.item() for k, v in model.update(block, q, x).items()} for block in ("mu", "tau")}
    of_mu = surface @ weight.sum(axis=0) - stats.norm.logpdf(mu, best["mu"]["loc"], best["mu"]["scale"])
    density_tau = stats.gamma.logpdf(tau, best["tau"]["concentration"], scale=1 / best["tau"]["rate"])
    of_tau = weight.sum(axis=1) @ surface - density_tau
    slopes = np.array(list(Rule(fixed_point(problem)).gradient(problem).values()))
    return {
        "optimal_factor[mu]": largest(of_mu - of_mu.mean()),
        "optimal_factor[tau]": largest(of_tau - of_tau.mean()),
        "gradient_at_the_optimum": largest(slopes),
    }


def fixed_point(problem: Problem) -> tuple[float, ...]:
    """Return (loc, scale, concentration, rate) of q after 30 sweeps of coordinate ascent, which have converged."""
    q = parameters()
    for _ in range(30):
        for block in ("mu", "tau"):
            q[block] = problem.model.update(block, q, problem.x)
    return tuple(torch.stack([v.squeeze() for group in q.values() for v in group.values()]).tolist())
