"""Claims on exponential families and natural gradients, questions 2.2.14 to 2.2.17 and 1.1.3.

With sufficient statistics t, natural parameters η and log-normaliser A, the mean parameters are ∇A(η) = E[t(x)] and the
Fisher information is F(η) = ∇²A(η) = Cov[t(x)]. In other parameters θ it is F(θ) = Jᵀ F(η) J with J = ∂η/∂θ. The
natural gradient F(θ)⁻¹ ∇_θ is the direction of steepest ascent per unit of KL, and J carries that of θ to that of η.
"""

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from vi_core.algorithms.gradient import GradientStep
from vi_core.bounds.elbo import ELBO
from vi_core.datasets.synthetic import GammaDraws
from vi_core.distributions.exponential_family import (
    fisher_information,
    gamma_log_normalizer,
    mean_parameters,
    normal_log_normalizer,
)
from vi_core.distributions.normal import Normal
from vi_core.estimators.exact import Exact
from vi_core.families.mean_field import NaturalMeanField
from vi_core.models.conjugate.gamma import GammaLikelihood
from vi_core.optimizers.natural_gradient import NaturalGradient
from vi_core.studies.base import Quantity, doubles
from vi_core.studies.claims.base import Problem, largest, parameters
from vi_core.types import flatten

SHAPE, WIDTH = 2.0, 3.0  # shape and scale of the Gamma


def gamma_points() -> Tensor:
    """Return the data of the reports' Gamma questions, (1000,), in float64."""
    return GammaDraws().load().train.double()


def exponential_family(_: Problem) -> dict[str, Quantity]:
    """∇A(η) = E[t(x)], and F(θ) = JᵀF(η)J for a Normal: questions 2.2.14 and 2.2.15."""
    moments = mean_parameters(gamma_log_normalizer, doubles([-1 / WIDTH, SHAPE - 1])).tolist()
    loc, scale = 0.3, 0.7
    natural = doubles([loc / scale**2, -0.5 / scale**2])
    jacobian = doubles([[1 / scale**2, -2 * loc / scale**3], [0.0, 1 / scale**3]])
    carried = jacobian.T @ fisher_information(normal_log_normalizer, natural) @ jacobian
    return {
        "gamma_mean": Quantity(moments[0], None, float(stats.gamma(SHAPE, scale=WIDTH).mean())),
        "gamma_mean_log": Quantity(moments[1], None, _mean_log()),
        "fisher_normal": largest(carried - Normal(*doubles([loc, scale])).fisher()),
    }


def _mean_log() -> float:
    """Return E[log x], by quadrature over log x."""
    grid = np.linspace(-30, 6, 20_000)
    density = stats.gamma.pdf(np.exp(grid), SHAPE, scale=WIDTH) * np.exp(grid)
    return float(np.trapezoid(grid * density, grid))


def natural_gradient(_: Problem) -> dict[str, Quantity]:
    """F(θ)⁻¹ ∇_θ against the natural gradient in η carried to θ, and ∇_θ by differences: questions 2.2.15, 2.2.17.

    For the mean log-likelihood of an exponential family the gradient in η is the mean of the sufficient statistics
    minus ∇A(η). With η = (−1/scale, shape − 1), a step in η is (step of shape, step of scale) = (δη₂, scale² δη₁).
    """
    points = gamma_points()
    gradient, information = gamma_gradient(points)
    found, differences = torch.linalg.solve(information, gradient), finite_differences(points.numpy())
    eta = doubles([-1 / WIDTH, SHAPE - 1])
    statistics = torch.stack([points.mean(), points.log().mean()])
    slope = statistics - mean_parameters(gamma_log_normalizer, eta)
    in_eta = torch.linalg.solve(fisher_information(gamma_log_normalizer, eta), slope)
    carried = torch.stack([in_eta[1], WIDTH**2 * in_eta[0]])
    pairs = {"natural_gradient": (found, carried.tolist()), "gamma_gradient": (gradient, differences)}
    return {
        f"{name}[{parameter}]": Quantity(value[i].item(), None, exact[i])
        for name, (value, exact) in pairs.items()
        for i, parameter in enumerate(("shape", "scale"))
    }


def gamma_gradient(points: Tensor) -> tuple[Tensor, Tensor]:
    """Return the model's gradient of the mean log-likelihood in (shape, scale), (2,), and its information, (2, 2)."""
    theta = doubles([SHAPE, WIDTH]).requires_grad_()
    z = {"shape": theta[0].reshape(1, 1, 1), "scale": theta[1].reshape(1, 1, 1)}
    model = GammaLikelihood()
    (gradient,) = torch.autograd.grad(model.log_joint(z, model.summarize(points)).sum(), theta)
    return gradient, model.fisher(z, model.summarize(points)).detach()[0, 0, 0]


def finite_differences(points: np.ndarray, step: float = 1e-4) -> tuple[float, float]:
    """Return central differences of scipy's mean log-density in shape and scale; their error is O(step²)."""

    def value(shape: float, scale: float) -> float:
        return float(stats.gamma.logpdf(points, shape, scale=scale).mean())

    of_shape = value(SHAPE + step, WIDTH) - value(SHAPE - step, WIDTH)
    of_scale = value(SHAPE, WIDTH + step) - value(SHAPE, WIDTH - step)
    return of_shape / (2 * step), of_scale / (2 * step)


def natural_step(problem: Problem) -> dict[str, Quantity]:
    """In natural coordinates a step of size 1 is each factor's coordinate update: question 1.1.3."""
    family, q = NaturalMeanField(problem.model.latents, 1).double(), parameters()
    family.assign(q)
    updates = {block: problem.model.update(block, q, problem.x) for block in q}
    GradientStep(problem.model, family, ELBO(), Exact(), NaturalGradient(lr=1.0))(problem.x)
    pairs = zip(flatten(family.variational()), flatten(updates), strict=True)
    return {"natural_step": largest(torch.stack([(a / b - 1).detach() for a, b in pairs]))}


CLAIMS = (exponential_family, natural_gradient, natural_step)
