"""Point masses: q(z) = δ(z − value), with which VI is maximum a posteriori, and maximum likelihood for a flat prior.

The entropy of a point mass is minus infinity for every value. It is left out: log q is zero by convention, and the ELBO
is log p(x, value).
"""

from collections.abc import Sequence

from torch import Size, Tensor

from vi_core.distributions import supports
from vi_core.distributions.transforms import Positive
from vi_core.errors import require
from vi_core.families._packed import Entry, PackedFamily
from vi_core.families.base import VariationalDistribution
from vi_core.types import Latent, Latents, Params


class PointMassDistribution(VariationalDistribution):
    """All mass on `value`, for each latent (*batch, *event)."""

    kind = "point mass"

    def __init__(self, params: Params):
        self.values = {name: group["value"] for name, group in params.items()}

    def shapes(self) -> dict[str, Size]:
        return {name: value.shape for name, value in self.values.items()}

    def rsample(self, num_samples: int) -> Latents:
        return {name: value.expand(num_samples, *value.shape) for name, value in self.values.items()}

    def log_prob_terms(self, z: Latents) -> dict[str, Tensor]:
        """Zero by convention, with shape (K, *batch)."""
        return {name: value.new_zeros(value.shape[:3]) for name, value in z.items()}

    def moments(self) -> dict[str, tuple[Tensor, Tensor]]:
        return {name: (value, value.new_zeros(value.shape)) for name, value in self.values.items()}

    def quantiles(self, levels: Sequence[float]) -> dict[str, tuple[Tensor, ...]]:
        return {name: (value,) * len(levels) for name, value in self.values.items()}


class PointMass(PackedFamily):
    """One value for each latent.

    Args:
        latents: The model's latents; all shared by the data points.
        replicates: R, independent copies.
        positive: Transform of positive values.
        values: Initial value of each latent, in the order of the model's latents.
    """

    name = "point_mass"
    has_scores = False

    def __init__(self, latents: dict[str, Latent], replicates: int = 1, /, *, positive: Positive, values: list[float]):
        self.check_latents(latents)
        counted = len(values) == len(latents)
        require(counted, f"family.values={values} must have one number for each latent: {', '.join(latents)}.")
        entries = [
            Entry(name, "value", latent.shape, value, positive if latent.support == supports.positive else None)
            for (name, latent), value in zip(latents.items(), values, strict=True)
        ]
        super().__init__(entries, replicates)
        self.latents = latents

    def distribution(self, params: Params) -> VariationalDistribution:
        return PointMassDistribution(params)
