"""Amortised Normals: q(z | x) = N(loc(x), diag scale(x)²) with both from one encoder network.

The encoder's head yields loc and the log-variance, as in Kingma, Welling 2014, appendix C.
"""

from collections.abc import Sequence
from typing import Any

from vi_core.distributions import supports
from vi_core.distributions.normal import Normal
from vi_core.families.base import Family, all_local
from vi_core.families.mean_field import MeanFieldDistribution
from vi_core.networks.mlp import MLP
from vi_core.types import Latent, Params


class AmortizedNormal(Family):
    """An encoder network for a model with one real latent vector per data point.

    Args:
        latents: The model's latents: one, real, local, with shape (D,).
        replicates: R; 1, since the network has one set of weights.
        event_size: Length of a flattened data point; known from the data.
        hidden: Widths of the encoder's hidden layers, from the image to the latent.
        activation: See `vi_core.networks.mlp.ACTIVATIONS`.
    """

    name = "amortized_normal"
    described = "one real vector for each data point"
    amortized = True

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
        self.check_latents(latents, replicates)
        ((self.latent, latent),) = latents.items()
        self.replicates = 1
        self.layout = {self.latent: frozenset({"loc", "scale"})}
        self.encoder = MLP([event_size, *hidden, 2 * latent.shape[0]], activation, "family")

    @classmethod
    def describes(cls, latents: dict[str, Latent]) -> bool:
        return len(latents) == 1 and all_local(latents, supports.real, 1)

    def variational(self, x: Any = None) -> Params:
        """Encode images (B, inputs) into loc and scale, each (1, B, D)."""
        loc, log_variance = self.encoder(x).unsqueeze(0).chunk(2, dim=-1)
        return {self.latent: {"loc": loc, "scale": (0.5 * log_variance).exp()}}

    def distribution(self, params: Params) -> MeanFieldDistribution:
        return MeanFieldDistribution({self.latent: Normal(**params[self.latent])}, {self.latent: 1})
