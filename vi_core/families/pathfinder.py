"""Pathfinder: the best of the Normals that an L-BFGS search for a mode passes, by its ELBO.

Nothing is trained: each replicate climbs once from a point of its own, and takes the Normal that
`vi_core.algorithms.pathfinder` derives. The run measures the bound of q once. Zhang, Carpenter, Gelman, Vehtari 2022.
"""

from vi_core.errors import require
from vi_core.families._placed import PlacedNormal
from vi_core.types import Latent


class Pathfinder(PlacedNormal):
    """A Normal on the way to a mode of p in unconstrained space, with a curvature that the gradients on it estimate.

    Args:
        latents: Continuous latents that all data points share.
        replicates: R, single paths from different points.
        memory: J, the steps behind a point from which the curvature there is estimated; 6 in the paper, whose matrices
            are of low rank.
    """

    name = "pathfinder"

    def __init__(self, latents: dict[str, Latent], replicates: int = 1, /, *, memory: int = 20):
        super().__init__(latents, replicates)
        require(memory >= 1, f"family.memory={memory} must be at least 1.")
        self.memory = memory
