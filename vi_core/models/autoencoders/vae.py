"""The variational autoencoder's generative half: a Bernoulli decoder on a standard Normal latent.

    z ~ N(0, I_D),   x | z ~ Bernoulli(sigmoid(decoder(z))), pixel by pixel.

With logits l, log p(x | z) = Σ (x·l − log(1 + e^l)); probabilities are never formed, so nothing saturates.
Kingma, Welling 2014; Rezende, Mohamed, Wierstra 2014.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from vi_core.distributions import supports
from vi_core.distributions.normal import Normal, kl_normal
from vi_core.errors import Unsupported, require
from vi_core.models.base import Factors, Layout, Model
from vi_core.networks import bernoulli
from vi_core.networks.mlp import MLP
from vi_core.types import Latent, Latents, Params


class VAE(Model):
    """The model above, with latent `z` per image.

    Args:
        event_size: Number of pixels of an image; known from the data.
        latent_dim: D.
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
        """Diagonal Normals."""
        return layout == {"z": frozenset({"loc", "scale"})}

    def check_data(self, x: Tensor) -> None:
        if x.dim() != 2 or bool((x < 0).any()) or bool((x > 1).any()):
            raise Unsupported(
                "model=vae describes images with pixels in [0, 1]; use dataset=digits, mnist or fashion_mnist."
            )

    def log_likelihood(self, z: Latents, x: Tensor) -> Tensor:
        """Return log p(x | z), (K, R, B), for latents (K, R, B, D) and images (B, pixels) with values in [0, 1]."""
        return bernoulli.log_likelihood(self.decoder, z["z"], x)

    def factors(self, z: Latents, x: Tensor) -> Factors:
        prior = self._prior(z["z"]).log_prob(z["z"]).sum(dim=-1)
        mentioned = frozenset({"z"})
        return {"likelihood": (self.log_likelihood(z, x), mentioned), "prior": (prior, mentioned)}

    def kl(self, params: Params) -> Tensor:
        """KL(q(z | x) ‖ N(0, I)), with shape (R, B)."""
        q = Normal(**params["z"])
        return kl_normal(q, self._prior(q.loc)).sum(dim=-1)

    def pixel_means(self, z: Latents) -> Tensor:
        return self.decoder(z["z"]).sigmoid()

    def sample_prior(self, num_samples: int) -> Latents:
        weight = next(self.decoder.parameters())
        return {"z": torch.randn(num_samples, 1, 1, self.latent_dim, dtype=weight.dtype, device=weight.device)}

    @staticmethod
    def _prior(like: Tensor) -> Normal:
        return Normal(like.new_zeros(()), like.new_ones(()))
