"""Exact answers, written from the definitions and without the library: closed forms, quadrature, standardised errors.

The conjugate problem is x_n | mu, tau ~ N(mu, 1/tau), mu | tau ~ N(1, 1/(0.1 tau)), tau ~ Gamma(1, rate 2). Its ELBO is
written datum by datum and factor by factor, with E[log tau] = ψ(a) − log b, E[tau] = a/b and

    E[tau (mu − c)²] = (a/b) ((m − c)² + s²)     mean field,  q(mu) = N(m, s²),
    E[tau (mu − c)²] = (a/b) (m − c)² + 1/r      structured,  q(mu | tau) = N(m, 1/(r tau)),

so that it shares no expression with the model, which works from sufficient statistics and a KL. `test_models.py` checks
it against quadrature over (mu, log tau) of scipy's densities, where the trapezoid rule converges exponentially.
"""

import math
from collections.abc import Callable, Mapping
from itertools import product

import numpy as np
import torch
from scipy import stats
from scipy.optimize import root_scalar
from torch import Tensor

FALSE_ALARM = 1e-6
"""Probability that a right library fails any statistical comparison of the whole suite, were the seeds drawn anew."""
COMPARISONS = 20_000
"""More numbers than all files compare with `max_z`; Bonferroni's divisor."""

MU_0, LAMBDA_0, A_0, B_0 = 1.0, 0.1, 1.0, 2.0
LOG_2PI = math.log(2 * math.pi)

Storage = Callable[[Tensor], Tensor]
"""An unconstrained number to a positive parameter."""
Values = Mapping[str, float]
"""Parameters of a Normal–Gamma q: loc, scale or precision_ratio, concentration, rate."""


# --- Monte Carlo means ----------------------------------------------------------------------------------------------


def max_z(samples: Tensor, exact: Tensor) -> float:
    """Largest standardised error of a Monte Carlo mean; independent samples (N, P), exact (P)."""
    return float(((samples.mean(0) - exact) / (samples.std(0) / len(samples) ** 0.5)).abs().max())


def limit(repetitions: int) -> float:
    """What `max_z` of N samples may reach: the two-sided quantile of Student's t at FALSE_ALARM / COMPARISONS."""
    return float(stats.t.isf(FALSE_ALARM / COMPARISONS / 2, repetitions - 1))


def law_p_value(samples: Tensor, cdf: Callable) -> float:
    """Probability, under the law `cdf`, of a Kolmogorov–Smirnov distance as large as that of samples (N)."""
    return float(stats.kstest(samples.detach().numpy(), cdf).pvalue)


POWER = 0.99
"""Probability with which the effects below are found."""


def smallest_shift(repetitions: int) -> float:
    """Smallest error of a mean, in standard deviations of one of N samples, that `max_z` against `limit` finds."""
    return float((limit(repetitions) + stats.norm.ppf(POWER)) / repetitions**0.5)


def smallest_distance(repetitions: int, p_value: float = FALSE_ALARM / COMPARISONS) -> float:
    """Smallest distance between two distribution functions that a Kolmogorov–Smirnov test of N draws finds.

    The empirical function at the place of the distance has a standard deviation of at most ½/√N.
    """
    return float(stats.kstwo.isf(p_value, repetitions) + stats.norm.ppf(POWER) * 0.5 / repetitions**0.5)


def smallest_frequency(repetitions: int, classes: int) -> float:
    """Smallest w = √(Σ_c (p_c − q_c)²/q_c) that Pearson's test of N counts in `classes` finds (Cohen 1988)."""
    critical = stats.chi2.isf(FALSE_ALARM / COMPARISONS, classes - 1)
    missing = root_scalar(lambda value: stats.ncx2.sf(critical, classes - 1, value) - POWER, bracket=(1e-3, 1e4))
    return float((missing.root / repetitions) ** 0.5)


# --- Normal–Gamma ---------------------------------------------------------------------------------------------------


def elbo(q: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """E_q[log p(x, mu, tau) − log q(mu, tau)] from all data (N,), for parameters of any shape; differentiable."""
    m, a, b = q["loc"], q["concentration"], q["rate"]
    mean_tau, mean_log_tau = a / b, torch.digamma(a) - b.log()

    def distance(c: Tensor | float) -> Tensor:
        spread = mean_tau * q["scale"] ** 2 if "scale" in q else 1 / q["precision_ratio"]
        return mean_tau * (m - c) ** 2 + spread

    def normal(c: Tensor | float, ratio: float) -> Tensor:
        return 0.5 * (mean_log_tau + math.log(ratio) - LOG_2PI - ratio * distance(c))

    prior_tau = A_0 * math.log(B_0) - math.lgamma(A_0) + (A_0 - 1) * mean_log_tau - B_0 * mean_tau
    energy = torch.stack([normal(datum, 1.0) for datum in x]).sum(0) + normal(MU_0, LAMBDA_0) + prior_tau
    log_variance = 2 * q["scale"].log() if "scale" in q else -q["precision_ratio"].log() - mean_log_tau
    entropy_tau = a - b.log() + torch.lgamma(a) + (1 - a) * torch.digamma(a)
    return energy + 0.5 * (1 + LOG_2PI + log_variance) + entropy_tau


def elbo_gradient(raw: Tensor, names: list[str], storage: Mapping[str, Storage], x: Tensor) -> Tensor:
    """∇ of `elbo` in unconstrained numbers (P,) with these names; `storage` makes parameters of all but loc."""
    free = raw.detach().clone().requires_grad_()
    values = {
        name: storage[name](number) if name != "loc" else number for name, number in zip(names, free, strict=True)
    }
    (gradient,) = torch.autograd.grad(elbo(values, x), free)
    return gradient


def log_joint(mu: np.ndarray, tau: np.ndarray, x: np.ndarray) -> np.ndarray:
    """log p(x, mu, tau) by scipy's densities."""
    value = stats.norm.logpdf(mu, MU_0, (LAMBDA_0 * tau) ** -0.5) + stats.gamma.logpdf(tau, A_0, scale=1 / B_0)
    for datum in x:
        value = value + stats.norm.logpdf(datum, mu, tau**-0.5)
    return value


def grid(x: np.ndarray, points: int = 81) -> tuple[np.ndarray, np.ndarray, float]:
    """Nodes mu (G, G) and tau (G, G) for data x and the log of the weight dmu dlog(tau).

    mu runs over 12 posterior deviations on both sides, in units of the node's own tau, so that thin tails are met too;
    the node's weight therefore holds tau^(−1/2), and tau for the change from tau to its logarithm.
    """
    count = len(x)
    steps = np.linspace(-12, 12, points)
    deviation = (2 / (count + 2)) ** 0.5
    log_tau = -math.log(x.var()) + np.linspace(-14, 9, points) * deviation
    tau = np.exp(log_tau)[:, None]
    mu = x.mean() + steps * (tau * count) ** -0.5
    weight = math.log((steps[1] - steps[0]) * (log_tau[1] - log_tau[0]) / count**0.5)
    return mu, np.broadcast_to(tau, mu.shape), weight


def posterior_by_quadrature(x: np.ndarray) -> dict[str, float]:
    """log p(x) and the posterior means of mu and tau, by the trapezoid rule on `grid`."""
    mu, tau, log_weight = grid(x)
    log_mass = log_joint(mu, tau, x) + 0.5 * np.log(tau) + log_weight
    peak = log_mass.max()
    mass = np.exp(log_mass - peak)
    means = {"mu": float((mass * mu).sum() / mass.sum()), "tau": float((mass * tau).sum() / mass.sum())}
    return {"log_evidence": float(peak + np.log(mass.sum())), **means}


def elbo_by_quadrature(q: Values, x: np.ndarray, points: int = 81) -> float:
    """∫ q (log p(x, mu, tau) − log q) by the trapezoid rule over (mu − loc)/deviation and log tau."""
    a, b = q["concentration"], q["rate"]
    log_tau = np.log(a / b) + np.linspace(-40, 12, 4 * points) * min(a**-0.5, 1.0)
    tau = np.exp(log_tau)[:, None]
    deviation = q["scale"] * np.ones_like(tau) if "scale" in q else (q["precision_ratio"] * tau) ** -0.5
    steps = np.linspace(-12, 12, points)
    mu = q["loc"] + deviation * steps
    log_q = stats.norm.logpdf(mu, q["loc"], deviation) + stats.gamma.logpdf(tau, a, scale=1 / b)
    weight = np.exp(log_q) * deviation * tau * (steps[1] - steps[0]) * (log_tau[1] - log_tau[0])
    return float((weight * (log_joint(mu, tau, x) - log_q)).sum())


# --- scores ---------------------------------------------------------------------------------------------------------


def normal_scores(z: Tensor, loc: Tensor, scale: Tensor) -> dict[str, Tensor]:
    """∂ log N(z | loc, scale²), elementwise."""
    return {"loc": (z - loc) / scale**2, "scale": (z - loc) ** 2 / scale**3 - 1 / scale}


def gamma_scores(z: Tensor, concentration: Tensor, rate: Tensor) -> dict[str, Tensor]:
    """∂ log Gamma(z | concentration, rate), elementwise: report 000, equation 14, third component put right."""
    return {"concentration": rate.log() - torch.digamma(concentration) + z.log(), "rate": concentration / rate - z}


def normal_gamma_scores(mu: Tensor, tau: Tensor, q: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """∂ log q(tau) q(mu | tau): report 001, D.3, with ψ(concentration) where it prints ψ of the precision ratio."""
    ratio = q["precision_ratio"]
    scores_mu = {
        "loc": ratio * tau * (mu - q["loc"]),
        "precision_ratio": 0.5 / ratio - 0.5 * tau * (mu - q["loc"]) ** 2,
    }
    return scores_mu | gamma_scores(tau, q["concentration"], q["rate"])


# --- Normal latents -------------------------------------------------------------------------------------------------


def hermite(dimensions: int, points: int) -> tuple[Tensor, Tensor]:
    """Nodes (G, dimensions) and weights (G) of E[f(ε)], ε ~ N(0, I), by the product Gauss–Hermite rule."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(points)
    all_nodes = torch.tensor(list(product(nodes, repeat=dimensions)), dtype=torch.float64)
    all_weights = torch.tensor(list(product(weights / weights.sum(), repeat=dimensions)), dtype=torch.float64)
    return all_nodes, all_weights.prod(dim=1)


def gaussian_iwelbo(loc: Tensor, scale: Tensor, x: Tensor, num_samples: int, points: int = 40) -> Tensor:
    """E[log (1/K) Σ_k p(x, z_k)/q(z_k)] of z ~ N(0, 1), x_n | z ~ N(z, 1), by quadrature over all K samples at once."""
    nodes, weights = hermite(num_samples, points)
    z = loc + scale * nodes
    standard = torch.distributions.Normal(loc.new_zeros(()), loc.new_ones(()))
    log_p = standard.log_prob(z) + sum(torch.distributions.Normal(z, 1.0).log_prob(datum) for datum in x)
    log_w = log_p - torch.distributions.Normal(loc, scale).log_prob(z)
    return (weights * (log_w.logsumexp(dim=1) - math.log(num_samples))).sum()


def vae_elbo(encoder: torch.nn.Module, decoder: torch.nn.Module, x: Tensor, points: int = 24) -> Tensor:
    """ELBO (B,) of a Bernoulli VAE on images (B, pixels), with E_q[log p(x | z)] by quadrature; differentiable."""
    loc, log_variance = encoder(x).chunk(2, dim=-1)
    q = torch.distributions.Normal(loc, log_variance.exp().sqrt())
    nodes, weights = hermite(loc.shape[-1], points)
    z = loc + q.scale * nodes.unsqueeze(1)
    likelihood = torch.distributions.Bernoulli(logits=decoder(z), validate_args=False).log_prob(x).sum(dim=-1)
    prior = torch.distributions.Normal(torch.zeros_like(loc), torch.ones_like(loc))
    return (weights.unsqueeze(1) * likelihood).sum(0) - torch.distributions.kl_divergence(q, prior).sum(dim=-1)
