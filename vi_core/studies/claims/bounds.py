"""Claims on evidence, bounds and divergences: questions 1.1.1, 1.1.2, 1.2.4, 2.1.10, 2.1.11; report 003, 2.1 and 2.2.

For every q with the support of the posterior

    log p(x) = ELBO(q) + KL(q ‖ p(z | x)),    ELBO(q) = E_q[log p(x | z)] − KL(q ‖ p(z)).

With weights w = p(x, z)/q(z), whose mean is p(x), L_K = E[log (1/K) Σ_k w_k] is the ELBO for K = 1 and rises to
log p(x). The factor q*(z_i) ∝ exp E_−i[log p(x, z)] maximises the ELBO with all other factors held fixed, so that the
gradient vanishes at the fixed point of these updates.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy import ndarray
from scipy import special, stats
from torch import Tensor

from vi_core.bounds.elbo import ELBO, IWELBO
from vi_core.distributions.gamma import Gamma, kl_gamma
from vi_core.distributions.normal import Normal, kl_normal
from vi_core.studies.base import Quantity, average, doubles
from vi_core.studies.claims.base import NODES, Problem, Rule, largest, log_prior, nodes, normal_gamma, parameters

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
    posterior = normal_gamma(*(value.reshape(1, 1) for value in model.posterior(x)))
    elbo, by_quadrature = model.expected_bound(q, x).item(), rule.mean(rule.log_weights(problem))
    divergence = rule.mean(rule.log_q() - log_posterior(problem, rule))
    likelihood = rule.mean(problem.log_likelihood(rule.mu, rule.tau))
    return {
        "evidence_decomposition": Quantity(elbo + divergence, None, problem.evidence),
        "elbo_closed_form": Quantity(elbo, None, by_quadrature),
        "elbo_split": Quantity(likelihood - model.kl(q).item(), None, by_quadrature),
        "elbo_of_the_posterior": Quantity(model.expected_bound(posterior, x).item(), None, problem.evidence),
    }


def log_weights(problem: Problem) -> Tensor:
    """Return log-weights of fresh draws from q, (50, N/50): one column for each group of the largest K."""
    q = problem.joint()
    z = q.sample(problem.num_samples // LARGEST * LARGEST)
    return (problem.model.log_joint(z, problem.x) - q.log_prob(z)).reshape(LARGEST, -1)


def iwelbo(problem: Problem) -> dict[str, Quantity]:
    """ELBO = L_1 ≤ L_K ≤ log p(x), rising in K, and E[w] = p(x): questions 2.1.10, 2.1.11.

    The same draws serve all K: each group of the largest K is divided into groups of K, whose bounds are averaged. The
    exact values lie in the claimed order, so that an estimate that agrees with them has it too.
    """
    log_w, rule = log_weights(problem), Rule()
    bounds = {k: IWELBO()(log_w.reshape(k, LARGEST // k, -1)).mean(dim=0) for k in IMPORTANCE}
    return {
        "mean_weight": average((log_w.flatten() - problem.evidence).exp(), 1.0),
        "elbo": average(ELBO()(log_w), rule.mean(rule.log_weights(problem))),
        **{f"iwelbo[{k}]": average(bound, iwelbo_by_quadrature(problem, rule, k)) for k, bound in bounds.items()},
    }


def iwelbo_by_quadrature(problem: Problem, rule: Rule, k: int) -> float:
    """Return L_K by quadrature, from the Laplace transform φ(t) = E[e^(−tw)] of one weight.

    log S = ∫ (e^(−t) − e^(−tS)) dt/t over t > 0, and a sum S of K independent weights has the transform φ(t)^K. The
    integral is a sum over log t, which converges exponentially. Nodes that are left out weigh less than rounding.
    """
    kept = rule.weight > 1e-18
    log_w, weight = rule.log_weights(problem)[kept] - problem.evidence, rule.weight[kept]
    log_t = np.linspace(-40.0, 5.0 - float(log_w.min()), 4000)
    transform = np.exp(-np.exp(log_t[:, None] + log_w)) @ weight
    of_the_sum = float(np.trapezoid(np.exp(-np.exp(log_t)) - transform**k, log_t))
    return problem.evidence + of_the_sum - math.log(k)


def records(problem: Problem, quantities: Mapping[str, Quantity]) -> dict[str, ndarray]:
    """Return the arrays that the figure of the IWELBO is drawn from: K, estimates, errors, evidence, quadrature."""
    found = [quantities[f"iwelbo[{k}]"] for k in IMPORTANCE]
    return {
        "importance": np.array(IMPORTANCE),
        "iwelbo": np.array([q.value for q in found]),
        "iwelbo_se": np.array([q.se for q in found]),
        "evidence": np.array(problem.evidence),
        "exact": np.array([q.exact for q in found], dtype=float),
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


def divergences(_: Problem) -> dict[str, Quantity]:
    """Check the KL of diagonal Normals against torch, KL of Gammas by quadrature, entropies against scipy."""
    loc, scale = doubles([[0.3, -1.2, 2.0], [0.5, 1.0, 1.7]])
    standard = Normal(torch.zeros_like(loc), torch.ones_like(scale))
    theirs = torch.distributions.kl_divergence(
        torch.distributions.MultivariateNormal(loc, torch.diag(scale.square())),
        torch.distributions.MultivariateNormal(standard.loc, torch.eye(3, dtype=torch.float64)),
    )
    q, p = (Gamma(*doubles(values)) for values in ((3.5, 1.5), (2.0, 4.0)))
    entropy = float(sum(stats.norm(scale=s).entropy() for s in scale.tolist()))
    return {
        "kl_normal": Quantity(kl_normal(Normal(loc, scale), standard).sum().item(), None, theirs.item()),
        "kl_gamma": Quantity(kl_gamma(q, p).item(), None, _gamma_divergence((3.5, 1.5), (2.0, 4.0))),
        "entropy_normal": Quantity(Normal(loc, scale).entropy().sum().item(), None, entropy),
        "entropy_gamma": Quantity(q.entropy().item(), None, float(stats.gamma(3.5, scale=1 / 1.5).entropy())),
    }


def _gamma_divergence(q: tuple[float, float], p: tuple[float, float]) -> float:
    """Return E_q[log q − log p] of two Gammas by quadrature.

    The singular part of the integrand is left out of the quadrature: E_q[log z] = ψ(a) − log b is known.
    """
    standard, weights = special.roots_genlaguerre(NODES, q[0] - 1)
    z = standard / q[1]
    difference = stats.gamma.logpdf(z, q[0], scale=1 / q[1]) - stats.gamma.logpdf(z, p[0], scale=1 / p[1])
    smooth = difference - (q[0] - p[0]) * np.log(z)
    mean_log = special.digamma(q[0]) - np.log(q[1])
    return float(weights @ smooth / weights.sum() + (q[0] - p[0]) * mean_log)


CLAIMS = (densities, decomposition, optimum, iwelbo, divergences)
