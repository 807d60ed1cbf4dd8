"""Gamma data with unknown shape and scale, for maximum likelihood: VI with a point mass and a flat prior.

    x_n | shape α, scale β ~ Gamma(α, β),   log p(x | α, β) = (α − 1) log x − x/β − log Γ(α) − α log β.

The objective is the log-likelihood *per point*, (1/n) Σ log p(x_n | α, β): it has the same maximum as the sum, and a
learning rate means the same for any n. Its sufficient statistics are the means of x and of log x. Its Fisher
information is that of one point, [[ψ₁(α), 1/β], [1/β, α/β²]] with ψ₁ the trigamma function: the expectation of the
negative Hessian, since E[x] = αβ. Lehmann, Casella 1998, section 2.5.
"""

import math
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from vi_core.distributions import supports
from vi_core.distributions.gamma import digamma_less_log
from vi_core.errors import Unsupported
from vi_core.models.base import Factors, Model
from vi_core.types import Latent, Latents


class GammaStatistics(NamedTuple):
    """Sufficient statistics of positive data, each a scalar tensor."""

    mean: Tensor
    mean_log: Tensor


class GammaLikelihood(Model):
    """Gamma data with positive latents `shape` and `scale` shared by all points; `scale` is 1/rate."""

    objective: ClassVar[str] = "log-likelihood per point"

    def __init__(self):
        super().__init__()
        self.latents = {"shape": Latent(supports.positive), "scale": Latent(supports.positive)}

    def check_data(self, x: Tensor) -> None:
        if x.dim() != 1 or bool((x <= 0).any()):
            raise Unsupported("model=gamma describes single positive numbers; use dataset=gamma, or a column of them.")

    def summarize(self, x: Tensor) -> GammaStatistics:
        """Reduce data (N,) to sufficient statistics."""
        return GammaStatistics(x.mean(), x.log().mean())

    def factors(self, z: Latents, x: GammaStatistics) -> Factors:
        shape, scale = z["shape"], z["scale"]
        mean = (shape - 1) * x.mean_log - x.mean / scale - torch.lgamma(shape) - shape * scale.log()
        return {"likelihood": (mean, frozenset({"shape", "scale"}))}

    def exact(self, x: GammaStatistics) -> dict[str, float]:
        """Return the maximum of the likelihood: log α − ψ(α) = log x̄ − mean log x, β = x̄/α.

        The left side falls from infinity to zero, so that bisection of log α finds the root.
        """
        mean, gap = float(x.mean), math.log(float(x.mean)) - float(x.mean_log)
        low, high = math.log(1e-8), math.log(1e16)
        for _ in range(200):
            middle = 0.5 * (low + high)
            alpha = torch.tensor(math.exp(middle), dtype=torch.float64)
            low, high = (middle, high) if float(-digamma_less_log(alpha)) > gap else (low, middle)
        return {"shape": math.exp(low), "scale": mean / math.exp(low)}

    def fisher(self, z: Latents, x: GammaStatistics) -> Tensor:
        """Return the information per point on (shape, scale), (*batch, 2, 2), at z, each (*batch)."""
        shape, scale = z["shape"], z["scale"]
        cross = 1 / scale
        rows = [torch.stack([torch.polygamma(1, shape), cross], -1), torch.stack([cross, shape / scale.square()], -1)]
        return torch.stack(rows, dim=-2)
