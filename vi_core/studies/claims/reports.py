"""Formulas that a report has wrong, as the report prints them, each beside the right value in the column `exact`.

docs/identities.md says where they stand and what is wrong. The check of such a quantity expects the
report's number, or its difference from the right one, so that it fails where a formula here is not the printed one.
"""

import math

import numpy as np
import torch
from scipy import special, stats

from vi_core.distributions.exponential_family import gamma_log_normalizer, mean_parameters
from vi_core.distributions.gamma import Exponential
from vi_core.distributions.normal import Normal
from vi_core.distributions.transforms import Exponential as Logarithms
from vi_core.distributions.transforms import Softplus
from vi_core.estimators.closed_form_kl import ClosedFormKL, DetachedLatent
from vi_core.estimators.exact import Exact
from vi_core.estimators.score_function.coefficients import InSample
from vi_core.estimators.score_function.estimator import ScoreFunction, per_sample_scores
from vi_core.estimators.score_function.scopes import Everything
from vi_core.families.mean_field import MeanField
from vi_core.families.normal_gamma import NormalGammaFamily
from vi_core.models.diffusion.process import Diffusion, Linear
from vi_core.models.mixtures.one_pass import Components, log_weights, responsibilities, squared_distances
from vi_core.studies.base import Quantity, average, doubles
from vi_core.studies.claims.base import CONCENTRATION, LOC, RATE, SCALE, Problem, Rule, normal_gamma, parameters
from vi_core.studies.claims.gradients import by_name, gradients, stored_gradient
from vi_core.studies.claims.natural import SHAPE, WIDTH, gamma_gradient, gamma_points
from vi_core.training.batches import steps_per_epoch

FEW = 5  # samples of an estimate with an in-sample coefficient: few enough that its bias shows
PRINTED_INVERSE = np.array([[0.24922, -1.15022], [-1.15022, 6.90734]])  # of the Fisher information, in report 001
PAIRS = 50  # S of 000's control variate


def report_000(problem: Problem) -> dict[str, Quantity]:
    """Equation 14, the control variate's code, and the natural gradient with J for its own inverse."""
    rule = Rule()
    log_tau = rule.mean(np.log(rule.tau))
    score = special.digamma(CONCENTRATION) - math.log(RATE) + log_tau
    gradient, information = gamma_gradient(gamma_points())
    jacobian = torch.diag(doubles([1.0, 1 / WIDTH**2]))
    in_eta = torch.linalg.inv(jacobian.T) @ information @ torch.linalg.inv(jacobian)
    printed = jacobian.T @ torch.linalg.solve(in_eta, jacobian @ gradient)
    right = torch.linalg.solve(information, gradient)
    family = MeanField(problem.model.latents, 1, positive=Softplus()).double()
    family.assign(parameters())
    sloped = gradients(problem, Exact(), family)[0, 1].item()
    return {
        "report_000_mean_score": Quantity(float(score), None, 0.0),
        "report_000_coefficients": coefficients_of_pairs(problem),
        "report_000_softplus_slope": Quantity(rule.gradient(problem)["scale"], None, sloped),
        "report_000_natural_gradient": Quantity(printed[1].item(), None, right[1].item()),
    }


def coefficients_of_pairs(problem: Problem) -> Quantity:
    """Return the share of the gradient's variance that the mean score explains: nearly all by 000's code, none at a*.

    The code takes the S × 2 matrix of f and h to `torch.cov`, which sees S variables with two observations each, and
    multiplies the score by the S × S result. The gradient is that of q(tau)'s rate.
    """
    batches = problem.num_samples // PAIRS
    z = problem.joint(batches).sample(PAIRS)
    h = per_sample_scores(problem.family(batches), parameters(batches), z)[1][3, :, :, 0]
    log_q = problem.joint(batches).log_prob_terms(z)["tau"][:, :, 0]
    f = (problem.model.log_joint(z, problem.x)[:, :, 0] - log_q) * h
    matrices = torch.stack([torch.cov(torch.stack(pair, dim=1)) for pair in zip(f.T, h.T, strict=True)])
    printed = f - torch.einsum("rij,jr->ir", matrices, h) / h.var(dim=0)
    right = f - InSample()(f[None], h[None])[0] * h
    return Quantity(share(printed.mean(dim=0), h.mean(dim=0)), None, share(right.mean(dim=0), h.mean(dim=0)))


def share(values: torch.Tensor, of: torch.Tensor) -> float:
    """Return the squared correlation of two samples, (N,)."""
    return torch.corrcoef(torch.stack([values, of]))[0, 1].square().item()


def report_001(problem: Problem) -> dict[str, Quantity]:
    """The score with ψ(lambda_N), the ELBO as KL(p ‖ q), the inverse, the Hessian in (shape, scale), the NLL."""
    rule, ratio = Rule(), 100.0
    log_w = rule.log_weights(problem)
    score = math.log(RATE) + rule.mean(np.log(rule.tau)) - special.digamma(ratio)
    matrix = np.array([[SHAPE * WIDTH**2, WIDTH], [WIDTH, special.polygamma(1, SHAPE)]])
    mean = mean_parameters(gamma_log_normalizer, doubles([-1 / WIDTH, SHAPE - 1]))[0].item()
    points = gamma_points()
    common = SHAPE * math.log(WIDTH) + math.lgamma(SHAPE) + points.mean().item() / WIDTH
    term = (SHAPE - 1) * points.log().mean().item()
    return {
        "report_001_mean_score": Quantity(float(score), None, 0.0),
        "report_001_elbo": Quantity(rule.mean(np.exp(log_w - problem.evidence) * log_w), None, rule.mean(log_w)),
        "report_001_inverse": Quantity(float((matrix @ PRINTED_INVERSE)[0, 0]), None, 1.0),
        "report_001_hessian": Quantity(_hessian_in_scale(), None, SHAPE / WIDTH**2),
        "report_001_mean": Quantity(WIDTH * (1 / WIDTH), None, mean),
        "report_001_log_product": log_product(),
        "report_001_likelihood": Quantity(common + term, None, common - term),
    }


def log_product() -> Quantity:
    """Return 4.1.26's −log Π_t q(x_t−1 | x_0)/q(x_t | x_0), by its ends, beside the library's sum of logarithms."""
    process = Diffusion(Linear().betas(100), lambda state: state)
    start, t = doubles([[0.5]]), torch.arange(1, 101)
    laws = [process.marginal(start, step[None]) for step in t]
    states = [law.loc + 0.3 * law.scale for law in laws]
    logs = torch.stack([law.log_prob(x).squeeze() for law, x in zip(laws, states, strict=True)])
    first, last = (stats.norm.logpdf(states[i].item(), laws[i].loc.item(), laws[i].scale.item()) for i in (0, -1))
    return Quantity(float(last - first), None, (logs[:-1] - logs[1:]).sum().item())


def _hessian_in_scale() -> float:
    """Return ∂²/∂scale² of A = shape log scale + log Γ(shape): negative, as no Fisher information is."""
    theta = doubles([SHAPE, WIDTH])
    hessian = torch.autograd.functional.hessian(lambda t: t[0] * t[1].log() + torch.lgamma(t[0]), theta)
    assert isinstance(hessian, torch.Tensor)
    return hessian[1, 1].item()


def report_001_estimators(problem: Problem) -> dict[str, Quantity]:
    """The in-sample coefficient, said to be without bias, and z detached where the path derivative is asked for."""
    exact = stored_gradient(problem)
    in_sample = ScoreFunction(num_samples=FEW, coefficient=InSample(), scope=Everything())
    biased = by_name(gradients(problem, in_sample, problem.family(problem.num_samples // FEW)))
    detached = by_name(gradients(problem, DetachedLatent(num_samples=1), problem.family(100)))
    pathwise = by_name(gradients(problem, ClosedFormKL(num_samples=1), problem.family(1000)))
    return {
        "report_001_in_sample": average(biased["rate"], exact["rate"]),
        "report_001_detached": Quantity(detached["loc"].mean().item(), None, exact["loc"]),
        "report_001_instability": Quantity(detached["loc"].std().item(), None, pathwise["loc"].std().item()),
    }


def report_003(problem: Problem) -> dict[str, Quantity]:
    """Two normalisers of a 2-D Normal, the responsibilities, the inverse of a distribution function, an average.

    The normalisers are integrated on a grid of 0.1 over [−20, 20]², where the density is far below rounding. Of an
    epoch's average stands the factor: points seen, over the divisor.
    """
    tau, points, batch = 0.5, 60_000, 100
    steps = steps_per_epoch(points, batch)
    return {
        "report_003_density": masses(math.sqrt(tau / (2 * math.pi)), tau),
        "report_003_normaliser": masses(2 * math.pi, 1.0),
        "report_003_responsibilities": responsibilities_of_an_event(),
        "report_003_inverse_cdf": inverse_cdf(problem.num_samples),
        "report_003_epoch_average": Quantity(points / (batch * (steps - 1)), None, points / (batch * steps)),
    }


def masses(factor: float, tau: float) -> Quantity:
    """Return the mass of factor · exp(−tau |x|²/2) beside that of the library's N(0, I/tau)."""
    grid = torch.linspace(-20, 20, 401, dtype=torch.float64)
    kernel, one = (-tau * grid.square() / 2).exp(), Normal(*doubles([0.0, tau**-0.5])).log_prob(grid).exp()
    area = (grid[1] - grid[0]).item() ** 2
    return Quantity(factor * kernel.sum().item() ** 2 * area, None, one.sum().item() ** 2 * area)


def responsibilities_of_an_event() -> Quantity:
    """Return the sum over k of the exponents a_k, which 003 takes for responsibilities, beside the library's sum.

    By hand a = (log 0.3 − 1/4, log 0.7 − 1 + 3 log 2).
    """
    places, counts = doubles([[1.0, 0.0]]), doubles([3.0])
    mixture = Components(
        constant=doubles([[0.3, 0.7]]).log(),
        place=doubles([[[0.0, 0.0], [1.0, 2.0]]]),
        precision=doubles([0.5]),
        log_strength=doubles([[1.0, 2.0]]).log(),
    )
    printed = log_weights(mixture, squared_distances(mixture, places), counts).sum().item()
    return Quantity(printed, None, responsibilities(mixture, places, counts).sum().item())


def inverse_cdf(count: int) -> Quantity:
    """Return the mean of F(z) by 003's z = −log(1 − y)/y, beside the library's draws: y is uniform, with mean 1/2."""
    rate = 2.0
    z = Exponential(doubles(rate)).rsample(count)
    y = -torch.expm1(-rate * z)
    printed = -torch.expm1(rate * torch.log1p(-y) / y)
    return average(printed, y.mean().item())


def report_004(problem: Problem) -> dict[str, Quantity]:
    """The hand-made score of mu_N, (mu − mu_N)/lambda_N, without tau and with a precision taken for a variance."""
    family = NormalGammaFamily(problem.model.latents, 1, positive=Logarithms()).double()
    ratio = 1 / SCALE**2
    q = normal_gamma(*(doubles(value).reshape(1, 1) for value in (LOC, ratio, CONCENTRATION, RATE)))
    z = {"mu": doubles(LOC + 0.1).reshape(1, 1, 1), "tau": doubles(0.6).reshape(1, 1, 1)}
    _, right = per_sample_scores(family, q, z)
    return {"report_004_score": Quantity(0.1 / ratio, None, right[0].item())}


CLAIMS = (report_000, report_001, report_001_estimators, report_003, report_004)
