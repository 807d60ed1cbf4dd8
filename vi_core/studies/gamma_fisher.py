"""The Fisher information of a Gamma in two parametrisations, each by three routes: report 001, question 2.2.16.

With shape α, scale β, sufficient statistics (x, log x) and natural parameters η = (−1/β, α − 1),

    F(η) = [[αβ², β], [β, ψ₁(α)]],    F(α, β) = Jᵀ F(η) J = [[ψ₁(α), 1/β], [1/β, α/β²]],
    J = ∂η/∂(α, β) = [[0, 1/β²], [1, 0]],    F(η)⁻¹ = [[ψ₁/β², −1/β], [−1/β, α]] / (αψ₁ − 1).

The routes are the closed form, automatic differentiation (∇²A of the log-normaliser) and the covariance of the score
over draws. The information tells how fast KL(p_θ ‖ p_θ+δ) ≈ ½ δᵀF δ grows, which is what the figure shows.
"""

import math

import numpy as np
import torch
from torch import Tensor

from vi_core.distributions.exponential_family import fisher_information, gamma_log_normalizer
from vi_core.distributions.gamma import Gamma, kl_gamma
from vi_core.errors import require
from vi_core.studies.base import Figures, Finding, Quantity, Records, Study

LEVELS = (0.01, 0.05, 0.2)  # of the contours of the divergence, in nats
GRID = 161  # points of each axis of the figure
ENTRIES = ((0, 0), (0, 1), (1, 1))  # the distinct entries of a symmetric 2 x 2 matrix


class GammaFisher(Study):
    """Fisher information of Gamma(shape, scale), with its inverse and determinant.

    Args:
        shape: α, positive.
        scale: β, positive.
        num_samples: Draws of the Monte Carlo route, at least 2.
    """

    def __init__(self, *, shape: float = 2.0, scale: float = 3.0, num_samples: int = 100_000):
        for name, value in {"shape": shape, "scale": scale}.items():
            require(0 < value < math.inf, f"study.{name}={value} must be positive and finite.")
        require(num_samples >= 2, f"study.num_samples={num_samples} must be at least 2.")
        self.shape, self.scale, self.num_samples = shape, scale, num_samples

    def run(self) -> Finding:
        natural = torch.tensor([-1 / self.scale, self.shape - 1], dtype=torch.float64)
        by_autograd = fisher_information(gamma_log_normalizer, natural)
        jacobian = torch.tensor([[0.0, 1 / self.scale**2], [1.0, 0.0]], dtype=torch.float64)
        a, b, trigamma = self.shape, self.scale, self._trigamma()
        factor = a * trigamma - 1
        quantities = {
            **_entries("natural", by_autograd, _matrix(a * b**2, b, trigamma)),
            **_entries("natural_inverse", by_autograd.inverse(), _matrix(trigamma / b**2, -1 / b, a) / factor),
            **_entries("shape_scale", jacobian.T @ by_autograd @ jacobian, self.information()),
            "determinant_factor": Quantity(by_autograd.det().item() / b**2, None, factor),
            **self._monte_carlo(),
        }
        return Finding(quantities, self._divergence())

    def information(self) -> Tensor:
        """Return F(α, β) in closed form, (2, 2)."""
        return _matrix(self._trigamma(), 1 / self.scale, self.shape / self.scale**2)

    def _trigamma(self) -> float:
        return torch.polygamma(1, torch.tensor(self.shape, dtype=torch.float64)).item()

    def _monte_carlo(self) -> dict[str, Quantity]:
        """Return the covariance of the score: products of its components, averaged over draws."""
        a, b = self.shape, self.scale
        x = self._law().rsample(self.num_samples)
        digamma = torch.digamma(torch.tensor(a, dtype=torch.float64))
        score = torch.stack([(x / b).log() - digamma, x / b**2 - a / b])
        products = score.unsqueeze(0) * score.unsqueeze(1)
        means, errors = products.mean(dim=-1), products.std(dim=-1) / math.sqrt(self.num_samples)
        exact = self.information()
        return {
            f"monte_carlo[{i},{j}]": Quantity(means[i, j].item(), errors[i, j].item(), exact[i, j].item())
            for i, j in ENTRIES
        }

    def _law(self) -> Gamma:
        return Gamma(*torch.tensor([self.shape, 1 / self.scale], dtype=torch.float64))

    def _divergence(self) -> dict[str, np.ndarray]:
        """Evaluate KL(p ‖ p_θ) and its quadratic form on a grid of (shape, scale) that holds both contours."""
        reach = 2 * math.sqrt(2 * max(LEVELS)) * self.information().inverse().diagonal().sqrt()
        centre = torch.tensor([self.shape, self.scale], dtype=torch.float64)
        ends = zip(centre.tolist(), reach.tolist(), strict=True)
        axes = [torch.linspace(max(c / 8, c - r), c + r, GRID) for c, r in ends]
        shapes, scales = torch.meshgrid(*(axis.double() for axis in axes), indexing="xy")
        divergence = kl_gamma(self._law(), Gamma(shapes, 1 / scales))
        offset = torch.stack([shapes, scales], dim=-1) - centre
        quadratic = 0.5 * torch.einsum("...i,ij,...j->...", offset, self.information(), offset)
        named = {"shape": axes[0], "scale": axes[1], "divergence": divergence, "quadratic": quadratic, "centre": centre}
        return {name: value.numpy() for name, value in named.items()}

    def figures(self, records: Records) -> Figures:
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
        return {"divergence": figure}


def _matrix(first: float, cross: float, second: float) -> Tensor:
    return torch.tensor([[first, cross], [cross, second]], dtype=torch.float64)


def _entries(name: str, found: Tensor, exact: Tensor) -> dict[str, Quantity]:
    """Return the distinct entries of a symmetric 2 x 2 matrix beside those by another route."""
    return {f"{name}[{i},{j}]": Quantity(found[i, j].item(), None, exact[i, j].item()) for i, j in ENTRIES}
