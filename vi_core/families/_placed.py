"""A Normal in unconstrained space that is found before the first step and never moves."""

from abc import abstractmethod

from torch import Tensor, ones_like, zeros_like

from vi_core.errors import Unsupported
from vi_core.families.normals import DiagonalNormal
from vi_core.families.unconstrained import MOST_FULL, Space, UnconstrainedDistribution, UnconstrainedFamily
from vi_core.types import Latent, Params


class PlacedNormal(UnconstrainedFamily):
    """An abstract family of N(u*, A Aᵀ), whose mean and root are the origin and the preconditioner.

    Args:
        latents: Continuous latents that all data points share.
        replicates: R, searches from different points.
    """

    fixed = True

    @abstractmethod
    def __init__(self, latents: dict[str, Latent], replicates: int):
        self.check_latents(latents)
        size = Space(latents).size
        if size > MOST_FULL:
            raise Unsupported(
                f"family={self.name} needs a matrix of {size} x {size}; use family=low_rank_normal or "
                "mean_field_normal."
            )
        super().__init__(latents, replicates, "mode", "full")
        self.layout = {"u": frozenset({"mean", "root"})}

    def variational(self, x: object = None) -> Params:
        """Return the mean u* and the lower triangular A."""
        return {"u": {"mean": self.origin, "root": self.factor}}

    def distribution(self, params: Params) -> UnconstrainedDistribution:
        mean, root = params["u"]["mean"], params["u"]["root"]
        return UnconstrainedDistribution(self.law(loc=zeros_like(mean)), self.space, mean, root, self.name)

    def law(self, **parameters: Tensor) -> DiagonalNormal:
        return DiagonalNormal(parameters["loc"], ones_like(parameters["loc"]))
