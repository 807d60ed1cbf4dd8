"""The generative model of a variational autoencoder: a Bernoulli decoder on a standard Normal latent.

    z ~ N(0, I_D),   x | z ~ Bernoulli(sigmoid(decoder(z))), pixel by pixel.

Kingma, Welling 2014; Rezende, Mohamed, Wierstra 2014.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from vi_core.distributions import supports
from vi_core.distributions.normal import Normal, kl_normal, standard_normal
from vi_core.errors import require
from vi_core.models.autoencoders._images import BernoulliImages
from vi_core.models.base import Factors, Layout
from vi_core.networks.mlp import MLP
from vi_core.types import Latent, Latents, Params


class VAE(BernoulliImages):
    """A Bernoulli decoder on a standard Normal, with latent `z` (D,) per image.

    Args:
        event_size: Number of pixels of an image; known from the data.
        latent_dim: D, dimension of the latent.
        hidden: Widths of the decoder's hidden layers, from the latent to the image.
        activation: See `vi_core.networks.mlp.ACTIVATIONS`.
    """

    def __init__(
        self,
        event_size: int,
        /,
        *,
        latent_dim: int = 20,
        hidden: Sequence[int] = (200, 200),
        activation: str = "leaky_relu",
    ):
        super().__init__()
        require(latent_dim >= 1, f"model.latent_dim={latent_dim} must be at least 1.")
        self.latent_dim = latent_dim
        self.latents = {"z": Latent(supports.real, (latent_dim,), local=True)}
        self.decoder = MLP([latent_dim, *hidden, event_size], activation, "model")

    def knows(self, layout: Layout) -> bool:
        """Whether q is a diagonal Normal."""
        return layout == {"z": frozenset({"loc", "scale"})}

    def decoded(self, z: Latents) -> Tensor:
        return z["z"]

    def factors(self, z: Latents, x: Tensor) -> Factors:
        prior = standard_normal(z["z"]).log_prob(z["z"]).sum(dim=-1)
        mentioned = frozenset({"z"})
        return {"likelihood": (self.log_likelihood(z, x), mentioned), "prior": (prior, mentioned)}

    def kl(self, params: Params) -> Tensor:
        """KL(q(z | x) ‖ N(0, I)), with shape (R, B)."""
        q = Normal(**params["z"])
        return kl_normal(q, standard_normal(q.loc)).sum(dim=-1)

    def sample_prior(self, num_samples: int) -> Latents:
        weight = next(self.decoder.parameters())
        return {"z": torch.randn(num_samples, 1, 1, self.latent_dim, dtype=weight.dtype, device=weight.device)}
