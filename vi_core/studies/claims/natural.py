"""Claims on exponential families and natural gradients, questions 2.2.14 to 2.2.17 and 1.1.3.

With sufficient statistics t, natural parameters η and log-normaliser A, the mean parameters are ∇A(η) = E[t(x)] and the
Fisher information is F(η) = ∇²A(η) = Cov[t(x)]. In other parameters θ it is F(θ) = Jᵀ F(η) J with J = ∂η/∂θ. The
natural gradient F(θ)⁻¹ ∇_θ is the direction of steepest ascent per unit of KL, and J carries that of θ to that of η.
"""

import numpy as np
import torch
from scipy import special, stats
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
START, RATE_OF_STEPS = (0.5, 8.0), 0.1  # of the reports' gradient descent, question 2.2.19


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


def gamma_gradient(points: Tensor, place: tuple[float, float] = (SHAPE, WIDTH)) -> tuple[Tensor, Tensor]:
    """Return the model's gradient of the mean log-likelihood in (shape, scale), (2,), and its information, (2, 2)."""
    theta = doubles(place).requires_grad_()
    z = {"shape": theta[0].reshape(1, 1, 1), "scale": theta[1].reshape(1, 1, 1)}
    model = GammaLikelihood()
    (gradient,) = torch.autograd.grad(model.log_joint(z, model.summarize(points)).sum(), theta)
    return gradient, model.fisher(z, model.summarize(points)).detach()[0, 0, 0]


def first_steps(_: Problem) -> dict[str, Quantity]:
    """The natural gradient shrinks the step where the law is stiff and lengthens it where it is not: question 2.2.19.

    At the reports' start the information has one large and one small eigenvalue, along shape and along scale. Report
    001 has it the other way round. The other route is the closed form of F and central differences.
    """
    gradient, information = gamma_gradient(points := gamma_points(), START)
    natural = torch.linalg.solve(information, gradient)
    (shape, scale), slope = START, np.array(finite_differences(points.numpy(), place=START))
    matrix = np.array([[special.polygamma(1, shape), 1 / scale], [1 / scale, shape / scale**2]])
    curvatures, exact = torch.linalg.eigvalsh(information), np.linalg.eigvalsh(matrix)
    steps = {"gradient_step": (gradient, slope), "natural_gradient_step": (natural, np.linalg.solve(matrix, slope))}
    found = {
        f"{name}[{parameter}]": Quantity(RATE_OF_STEPS * step[i].item(), None, RATE_OF_STEPS * float(true[i]))
        for name, (step, true) in steps.items()
        for i, parameter in enumerate(("shape", "scale"))
    }
    stiffness = {"stiff": 1, "shallow": 0}
    return found | {
        f"curvature[{n}]": Quantity(curvatures[i].item(), None, float(exact[i])) for n, i in stiffness.items()
    }


def finite_differences(
    points: np.ndarray, step: float = 1e-4, place: tuple[float, float] = (SHAPE, WIDTH)
) -> tuple[float, float]:
    """Return central differences of scipy's mean log-density in shape and scale; their error is O(step²)."""

    def value(shape: float, scale: float) -> float:
        return float(stats.gamma.logpdf(points, shape, scale=scale).mean())

    a, b = place
    of_shape, of_scale = value(a + step, b) - value(a - step, b), value(a, b + step) - value(a, b - step)
    return of_shape / (2 * step), of_scale / (2 * step)


def natural_step(problem: Problem) -> dict[str, Quantity]:
    """In natural coordinates a step of size 1 is each factor's coordinate update: question 1.1.3."""
    family, q = NaturalMeanField(problem.model.latents, 1).double(), parameters()
    family.assign(q)
    updates = {block: problem.model.update(block, q, problem.x) for block in q}
    GradientStep(problem.model, family, ELBO(), Exact(), NaturalGradient(lr=1.0))(problem.x)
    pairs = zip(flatten(family.variational()), flatten(updates), strict=True)
    return {"natural_step": largest(torch.stack([(a / b - 1).detach() for a, b in pairs]))}


CLAIMS = (exponential_family, natural_gradient, first_steps, natural_step)
