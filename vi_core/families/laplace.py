"""Laplace's approximation: q(u) = N(u*, H⁻¹) with the mode u* of log p(u) and −H the Hessian there.

Nothing is trained: mode and curvature are found before the first step, and the run measures the bound of q once. For
the log density of u = T⁻¹(z) with its Jacobian the mode exists for most posteriors whose mode in z does not. Tierney,
Kadane 1986.
"""

from vi_core.families._placed import PlacedNormal
from vi_core.types import Latent


class Laplace(PlacedNormal):
    """A Normal at a mode of p in unconstrained space, with the curvature there.

    Args:
        latents: Continuous latents that all data points share.
        replicates: R, searches from different points.
    """

    name = "laplace"

    def __init__(self, latents: dict[str, Latent], replicates: int = 1, /):
        super().__init__(latents, replicates)
