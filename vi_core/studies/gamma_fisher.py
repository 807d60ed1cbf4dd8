"""The Fisher information of a Gamma in two parametrisations, each by three routes: report 001, question 2.2.16.

With shape α, scale β, sufficient statistics (x, log x) and natural parameters η = (−1/β, α − 1),

    F(η) = [[αβ², β], [β, ψ₁(α)]],    F(α, β) = Jᵀ F(η) J = [[ψ₁(α), 1/β], [1/β, α/β²]],
    J = ∂η/∂(α, β) = [[0, 1/β²], [1, 0]],    F(η)⁻¹ = [[ψ₁/β², −1/β], [−1/β, α]] / (αψ₁ − 1).

In (α, rate = 1/β) it is [[ψ₁(α), −1/rate], [−1/rate, α/rate²]], with J = [[0, −1], [1, 0]]: F(η) with its rows in
another order and other signs, and neither of the two.

What it does to a gradient is drawn at the start of the reports' descent on 1,000 points, shape 0.5 and scale 8: the
gradients of the first epoch under both metrics, which 001 and 004 announce and do not print.

The routes are the closed form, automatic differentiation (∇²A of the log-normaliser) and the covariance of the score
over draws. The information tells how fast KL(p_θ ‖ p_θ+δ) ≈ ½ δᵀF δ grows, which is what the first figure shows.
"""

import math

import numpy as np
import torch
from torch import Tensor

from vi_core.distributions.exponential_family import fisher_information, gamma_log_normalizer
from vi_core.distributions.gamma import Gamma, kl_gamma
from vi_core.errors import require
from vi_core.per_replicate import require_positive
from vi_core.studies.base import Figures, Finding, Form, Quantity, Records, Study, doubles, entries
from vi_core.studies.claims.natural import RATE_OF_STEPS, START, finite_differences, gamma_gradient, gamma_points

LEVELS = (0.01, 0.05, 0.2)  # of the contours of the divergence, in nats
GRID = 161  # points of each axis of the figure


class GammaFisher(Study):
    """Fisher information of Gamma(shape, scale), with its inverse and determinant.

    Args:
        shape: α, positive.
        scale: β, positive.
        num_samples: Draws of the Monte Carlo route, at least 2.
    """

    def __init__(self, *, shape: float = 2.0, scale: float = 3.0, num_samples: int = 100_000):
        require_positive("study", shape=shape, scale=scale)
        require(num_samples >= 2, f"study.num_samples={num_samples} must be at least 2.")
        self.shape, self.scale, self.num_samples = shape, scale, num_samples

    def run(self) -> Finding:
        a, b, trigamma = self.shape, self.scale, self._trigamma()
        by_autograd = fisher_information(gamma_log_normalizer, doubles([-1 / b, a - 1]))
        jacobian, factor = doubles([[0.0, 1 / b**2], [1.0, 0.0]]), a * trigamma - 1
        natural, inverse = doubles([[a * b**2, b], [b, trigamma]]), doubles([[trigamma / b**2, -1 / b], [-1 / b, a]])
        quantities = {
            **entries("natural", by_autograd, natural),
            **entries("natural_inverse", by_autograd.inverse(), inverse / factor),
            **entries("shape_scale", jacobian.T @ by_autograd @ jacobian, self.information()),
            **entries("shape_rate", self._in_rate(by_autograd), doubles([[trigamma, -b], [-b, a * b**2]])),
            "determinant_factor": Quantity(by_autograd.det().item() / b**2, None, factor),
            **self._monte_carlo(),
        }
        first, records = first_epoch()
        return Finding(quantities | first, self._divergence() | records)

    def _in_rate(self, natural: Tensor) -> Tensor:
        """Return F(α, rate) = JᵀF(η)J, (2, 2), with rate = 1/β and J = ∂η/∂(α, rate) = [[0, −1], [1, 0]]."""
        jacobian = doubles([[0.0, -1.0], [1.0, 0.0]])
        return jacobian.T @ natural @ jacobian

    def information(self) -> Tensor:
        """Return F(α, β) in closed form, (2, 2)."""
        a, b = self.shape, self.scale
        return doubles([[self._trigamma(), 1 / b], [1 / b, a / b**2]])

    def _trigamma(self) -> float:
        return torch.polygamma(1, doubles(self.shape)).item()

    def _monte_carlo(self) -> dict[str, Quantity]:
        """Return the covariance of the score: products of its components, averaged over draws.

        The score in (α, β) is (log(x/β) − ψ(α), x/β² − α/β). Its mean is zero, so that the mean of the products is the
        covariance, which is the Fisher information.
        """
        a, b = self.shape, self.scale
        x = self._law().rsample(self.num_samples)
        score = torch.stack([(x / b).log() - torch.digamma(doubles(a)), x / b**2 - a / b])
        products = score.unsqueeze(0) * score.unsqueeze(1)
        errors = products.std(dim=-1) / math.sqrt(self.num_samples)
        return entries("monte_carlo", products.mean(dim=-1), self.information(), errors)

    def _law(self) -> Gamma:
        return Gamma(*doubles([self.shape, 1 / self.scale]))

    def _divergence(self) -> dict[str, np.ndarray]:
        """Evaluate KL(p ‖ p_θ) and its quadratic form on a grid of (shape, scale) that holds both contours.

        The ellipse ½ δᵀFδ = c reaches √(2 c (F⁻¹)_ii) along axis i. The grid reaches twice as far, for the largest
        level.
        """
        reach = 2 * math.sqrt(2 * max(LEVELS)) * self.information().inverse().diagonal().sqrt()
        centre = doubles([self.shape, self.scale])
        ends = zip(centre.tolist(), reach.tolist(), strict=True)
        axes = [torch.linspace(max(c / 8, c - r), c + r, GRID) for c, r in ends]
        shapes, scales = torch.meshgrid(*(axis.double() for axis in axes), indexing="xy")
        divergence = kl_gamma(self._law(), Gamma(shapes, 1 / scales))
        offset = torch.stack([shapes, scales], dim=-1) - centre
        quadratic = 0.5 * torch.einsum("...i,ij,...j->...", offset, self.information(), offset)
        named = {"shape": axes[0], "scale": axes[1], "divergence": divergence, "quadratic": quadratic, "centre": centre}
        return {name: value.numpy() for name, value in named.items()}

    def forms(self) -> dict[str, Form]:
        axis, surface = Form((GRID,), ascending=True), Form((GRID, GRID))
        found = {"shape": axis, "scale": axis, "divergence": surface, "quadratic": surface, "centre": Form((2,))}
        first = {"shape": axis, "scale": axis, "nll": surface, "divergence": surface, "level": Form((1,))}
        first |= {"start": Form((2,)), "steps": Form((2, 2))}
        return found | {f"first_{name}": form for name, form in first.items()}

    def figures(self, records: Records) -> Figures:
        from vi_core.plots.reports import first_epoch_figure
        from vi_core.plots.studies import contour_figure

        figure = contour_figure(
            records["shape"],
            records["scale"],
            {"KL divergence": records["divergence"], "½ δᵀF δ": records["quadratic"]},
            LEVELS,
            point=tuple(records["centre"]),
            axes=("shape", "scale"),
            title="gamma_fisher: the Fisher information as curvature of the KL",
            unit="nats",
        )
        first = {name.removeprefix("first_"): records[name] for name in records if name.startswith("first_")}
        title = "the first step at lr 0.1, under both metrics"
        return {"divergence": figure, "first_epoch": first_epoch_figure(first, title=title)}


def first_epoch() -> tuple[dict[str, Quantity], dict[str, np.ndarray]]:
    """Return both gradients of the NLL at the reports' start, beside differences, and what the figure is drawn from.

    The grid holds a step of size 0.1 along each, and the laws that are as far from the start as that of the natural
    gradient, by the KL divergence.
    """
    ascent, information = gamma_gradient(points := gamma_points(), START)
    exact, centre = -doubles(finite_differences(points.numpy(), place=START)), doubles(START)
    gradients = -torch.stack([ascent, torch.linalg.solve(information, ascent)])
    routes = torch.stack([exact, torch.linalg.solve(information, exact)])
    quantities = {
        f"{name}[{parameter}]": Quantity(gradients[i, j].item(), None, routes[i, j].item())
        for i, name in enumerate(("first_gradient", "first_natural_gradient"))
        for j, parameter in enumerate(("shape", "scale"))
    }
    steps, law = -RATE_OF_STEPS * gradients, Gamma(centre[0], 1 / centre[1])
    axes = [torch.linspace(low, high, GRID).double() for low, high in ((0.4, 0.7), (6.8, 9.2))]
    shapes, scales = torch.meshgrid(*axes, indexing="xy")
    mean, mean_log = points.mean(), points.log().mean()
    records = {
        "shape": axes[0],
        "scale": axes[1],
        "nll": shapes * scales.log() + shapes.lgamma() - (shapes - 1) * mean_log + mean / scales,
        "divergence": kl_gamma(law, Gamma(shapes, 1 / scales)),
        "level": (0.5 * steps[1] @ information @ steps[1]).reshape(1),
        "start": centre,
        "steps": steps,
    }
    return quantities, {f"first_{name}": value.numpy() for name, value in records.items()}
