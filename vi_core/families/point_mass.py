"""Point masses: q(z) = δ(z − value), under which VI is maximum a posteriori, and maximum likelihood for a flat prior.

The entropy of a point mass is minus infinity, the same for every value, and is left out: log q counts as zero, and the
ELBO is log p(x, value).
"""

from torch import Tensor

from vi_core.distributions import supports
from vi_core.distributions.transforms import Positive
from vi_core.errors import Unsupported, require
from vi_core.families._packed import Entry, PackedFamily
from vi_core.families.base import VariationalDistribution, refuse_local
from vi_core.types import Latent, Latents, Params


class PointMassDistribution(VariationalDistribution):
    """All mass on `value`, for each latent (*batch, *event)."""

    def __init__(self, params: Params):
        self.values = {name: group["value"] for name, group in params.items()}
        self.parents = {name: frozenset() for name in params}

    def rsample(self, num_samples: int) -> Latents:
        return {name: value.expand(num_samples, *value.shape) for name, value in self.values.items()}

    def log_prob_terms(self, z: Latents) -> dict[str, Tensor]:
        """Zero by convention, with shape (K, *batch)."""
        return {name: value.new_zeros(value.shape[:3]) for name, value in z.items()}

    def moments(self) -> dict[str, tuple[Tensor, Tensor]]:
        return {name: (value, value.new_zeros(value.shape)) for name, value in self.values.items()}


class PointMass(PackedFamily):
    """One value for each latent.

    Args:
        latents: The model's latents; all shared by the data points.
        replicates: R, independent copies.
        positive: How positive values are stored.
        values: Initial value of each latent, in the order of the model's latents.
    """

    has_scores = False

    def __init__(
        self,
        latents: dict[str, Latent],
        replicates: int = 1,
        /,
        *,
        positive: Positive,
        values: list[float],
    ):
        refuse_local(latents, "point_mass")
        require(
            len(values) == len(latents),
            f"family.values={values} must have one number for each latent: {', '.join(latents)}.",
        )
        if any(latent.support not in (supports.real, supports.positive) for latent in latents.values()):
            raise Unsupported("family=point_mass stores real and positive values only.")
        entries = [
            Entry(name, "value", latent.shape, value, positive if latent.support == supports.positive else None)
            for (name, latent), value in zip(latents.items(), values, strict=True)
        ]
        super().__init__(entries, replicates)

    def distribution(self, params: Params) -> VariationalDistribution:
        return PointMassDistribution(params)
