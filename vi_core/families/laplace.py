"""Laplace's approximation: q(u) = N(u*, H⁻¹) with the mode u* of log p(u) and −H the Hessian there.

Nothing is trained: mode and curvature are found before the first step, and the run measures the bound of q once. For
the log density of u = T⁻¹(z) with its Jacobian the mode exists for most posteriors whose mode in z does not. Tierney,
Kadane 1986.
"""

import torch
from torch import Tensor

from vi_core.errors import Unsupported
from vi_core.families.normals import DiagonalNormal
from vi_core.families.unconstrained import MOST_FULL, UnconstrainedDistribution, UnconstrainedFamily
from vi_core.types import Latent, Params


class Laplace(UnconstrainedFamily):
    """A Normal at a mode of p in unconstrained space, with the curvature there.

    Args:
        latents: Continuous latents that all data points share.
        replicates: R, searches from different points.
    """

    name = "laplace"
    fixed = True

    def __init__(self, latents: dict[str, Latent], replicates: int = 1, /):
        self.check_latents(latents)
        size = sum(int(torch.Size(latent.unconstrained_shape).numel()) for latent in latents.values())
        if size > MOST_FULL:
            raise Unsupported(
                f"family=laplace needs a matrix of {size} x {size}; use family=low_rank_normal or mean_field_normal."
            )
        super().__init__(latents, replicates, "mode", "full")
        self.layout = {"u": frozenset({"mode", "root"})}

    def variational(self, x: object = None) -> Params:
        """Return the mode u* and the lower triangular A with A Aᵀ = H⁻¹."""
        return {"u": {"mode": self.origin, "root": self.factor}}

    def distribution(self, params: Params) -> UnconstrainedDistribution:
        mode, root = params["u"]["mode"], params["u"]["root"]
        return UnconstrainedDistribution(self.law(loc=torch.zeros_like(mode)), self.space, mode, root)

    def law(self, **parameters: Tensor) -> DiagonalNormal:
        return DiagonalNormal(parameters["loc"], torch.ones_like(parameters["loc"]))
