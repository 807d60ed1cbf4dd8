"""Amortised Normals: q(z | x) = N(loc(x), diag scale(x)²) with both from one encoder network.

The encoder's head yields loc and the log-variance, as in Kingma, Welling 2014, appendix C.
"""

from collections.abc import Sequence

from torch import Tensor

from vi_core.distributions import supports
from vi_core.distributions.normal import Normal
from vi_core.errors import Unsupported
from vi_core.families.base import Family, VariationalDistribution, refuse_replicates, suited_family
from vi_core.networks.mlp import MLP
from vi_core.types import Latent, Latents, Params


class AmortizedNormalDistribution(VariationalDistribution):
    """A diagonal Normal on one latent, with parameters (1, B, D)."""

    def __init__(self, name: str, factor: Normal):
        self.name, self.factor = name, factor
        self.parents = {name: frozenset()}

    def rsample(self, num_samples: int) -> Latents:
        return {self.name: self.factor.rsample(num_samples)}

    def log_prob_terms(self, z: Latents) -> dict[str, Tensor]:
        return {self.name: self.factor.log_prob(z[self.name]).sum(dim=-1)}

    def moments(self) -> dict[str, tuple[Tensor, Tensor]]:
        return {self.name: (self.factor.mean, self.factor.scale)}


class AmortizedNormal(Family):
    """An encoder network for a model with one real latent vector per data point.

    Args:
        latents: The model's latents: one, real, local, with shape (D,).
        replicates: R; 1, since the network has one set of weights.
        event_size: Length of a flattened data point; known from the data.
        hidden: Widths of the encoder's hidden layers, from the image to the latent.
        activation: See `vi_core.networks.mlp.ACTIVATIONS`.
    """

    def __init__(
        self,
        latents: dict[str, Latent],
        replicates: int = 1,
        event_size: int = 1,
        /,
        *,
        hidden: Sequence[int] = (200, 200),
        activation: str = "leaky_relu",
    ):
        super().__init__()
        (name, latent), *others = latents.items()
        if others or not latent.local or latent.support != supports.real or len(latent.shape) != 1:
            raise Unsupported(
                "family=amortized_normal needs a model with one real latent vector per data point, "
                f"but the model has {', '.join(latents)}; use family={suited_family(latents)}."
            )
        refuse_replicates(replicates, "amortized_normal")
        self.name, self.replicates = name, 1
        self.layout = {name: frozenset({"loc", "scale"})}
        self.encoder = MLP([event_size, *hidden, 2 * latent.shape[0]], activation, "family")

    def variational(self, x: Tensor | None = None) -> Params:
        """Encode images (B, inputs) into loc and scale, each (1, B, D)."""
        assert x is not None
        loc, log_variance = self.encoder(x).unsqueeze(0).chunk(2, dim=-1)
        return {self.name: {"loc": loc, "scale": (0.5 * log_variance).exp()}}

    def distribution(self, params: Params) -> VariationalDistribution:
        return AmortizedNormalDistribution(self.name, Normal(**params[self.name]))
