"""Formulas that a report has wrong, as the report prints them, each beside the right value in the column `exact`.

docs/identities.md says where they stand and what is wrong. The check of such a quantity expects the
report's number, or its difference from the right one, so that it fails where a formula here is not the printed one.
"""

import math

import numpy as np
import torch
from scipy import special

from vi_core.distributions.transforms import Exponential
from vi_core.estimators.closed_form_kl import DetachedLatent
from vi_core.estimators.score_function.coefficients import InSample
from vi_core.estimators.score_function.estimator import ScoreFunction, per_sample_scores
from vi_core.estimators.score_function.scopes import Everything
from vi_core.families.normal_gamma import NormalGammaFamily
from vi_core.studies.base import Quantity, average, doubles
from vi_core.studies.claims.base import CONCENTRATION, LOC, RATE, SCALE, Problem, Rule, normal_gamma
from vi_core.studies.claims.gradients import by_name, gradients, stored_gradient
from vi_core.studies.claims.natural import SHAPE, WIDTH, gamma_gradient, gamma_points

FEW = 5  # samples of an estimate with an in-sample coefficient: few enough that its bias shows
PRINTED_INVERSE = np.array([[0.24922, -1.15022], [-1.15022, 6.90734]])  # of the Fisher information, in report 001
SOFTPLUS_RAW = 1.0  # where the slope of softplus is taken


def report_000(problem: Problem) -> dict[str, Quantity]:
    """Equation 14, the control variate's code, and the natural gradient with J for its own inverse."""
    rule, samples = Rule(), 50
    log_tau = rule.mean(np.log(rule.tau))
    score = special.digamma(CONCENTRATION) - math.log(RATE) + log_tau
    gradient, information = gamma_gradient(gamma_points())
    jacobian = torch.diag(doubles([1.0, 1 / WIDTH**2]))
    in_eta = torch.linalg.inv(jacobian.T) @ information @ torch.linalg.inv(jacobian)
    printed = jacobian.T @ torch.linalg.solve(in_eta, jacobian @ gradient)
    right = torch.linalg.solve(information, gradient)
    slope = 1 / (1 + math.exp(-SOFTPLUS_RAW))
    return {
        "report_000_mean_score": Quantity(float(score), None, 0.0),
        "report_000_coefficients": Quantity(float(torch.cov(torch.randn(samples, 2)).numel()), None, 1.0),
        "report_000_softplus_slope": Quantity(1.0, None, slope),
        "report_000_natural_gradient": Quantity(printed[1].item(), None, right[1].item()),
    }


def report_001(problem: Problem) -> dict[str, Quantity]:
    """The score with ψ(lambda_N), the ELBO as KL(p ‖ q), the inverse, the Hessian in (shape, scale), the NLL."""
    rule, ratio = Rule(), 100.0
    log_w = rule.log_weights(problem)
    score = math.log(RATE) + rule.mean(np.log(rule.tau)) - special.digamma(ratio)
    matrix = np.array([[SHAPE * WIDTH**2, WIDTH], [WIDTH, special.polygamma(1, SHAPE)]])
    points = gamma_points()
    common = SHAPE * math.log(WIDTH) + math.lgamma(SHAPE) + points.mean().item() / WIDTH
    term = (SHAPE - 1) * points.log().mean().item()
    return {
        "report_001_mean_score": Quantity(float(score), None, 0.0),
        "report_001_elbo": Quantity(rule.mean(np.exp(log_w) * log_w), None, rule.mean(log_w)),
        "report_001_inverse": Quantity(float((matrix @ PRINTED_INVERSE)[0, 0]), None, 1.0),
        "report_001_hessian": Quantity(_hessian_in_scale(), None, SHAPE / WIDTH**2),
        "report_001_likelihood": Quantity(common + term, None, common - term),
    }


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
    return {
        "report_001_in_sample": average(biased["rate"], exact["rate"]),
        "report_001_detached": Quantity(detached["loc"].mean().item(), None, exact["loc"]),
    }


def report_003(_: Problem) -> dict[str, Quantity]:
    """Two normalisers of a 2-D Normal, the responsibilities, the inverse of a distribution function, an average.

    The normalisers are integrated on a grid of 0.1 over [−20, 20]², where the density is far below rounding.
    """
    grid = np.linspace(-20, 20, 401)
    squares, area = grid[:, None] ** 2 + grid**2, (grid[1] - grid[0]) ** 2
    tau = 0.5
    mass = float(np.sqrt(tau / (2 * math.pi)) * np.exp(-tau * squares / 2).sum() * area)
    inverted = float(2 * math.pi * np.exp(-squares / 2).sum() * area)
    logits, rate, level = np.log([0.3, 0.7]) - np.array([1.0, 2.5]), 2.0, 0.25
    return {
        "report_003_density": Quantity(mass, None, 1.0),
        "report_003_normaliser": Quantity(inverted, None, 1.0),
        "report_003_responsibilities": Quantity(float(logits.sum()), None, float(special.softmax(logits).sum())),
        "report_003_inverse_cdf": Quantity(1 - math.exp(-rate * -math.log(1 - level) / level), None, level),
        "report_003_epoch_average": Quantity(171.54891246152442, None, 171.54891246152442 * 59_900 / 60_000),
    }


def report_004(problem: Problem) -> dict[str, Quantity]:
    """The hand-made score of mu_N, (mu − mu_N)/lambda_N, without tau and with a precision taken for a variance."""
    family = NormalGammaFamily(problem.model.latents, 1, positive=Exponential()).double()
    ratio = 1 / SCALE**2
    q = normal_gamma(*(doubles(value).reshape(1, 1) for value in (LOC, ratio, CONCENTRATION, RATE)))
    z = {"mu": doubles(LOC + 0.1).reshape(1, 1, 1), "tau": doubles(0.6).reshape(1, 1, 1)}
    _, right = per_sample_scores(family, q, z)
    return {"report_004_score": Quantity(0.1 / ratio, None, right[0].item())}


CLAIMS = (report_000, report_001, report_001_estimators, report_003, report_004)
