"""Images of independent Bernoulli pixels, decoded from a latent: what the autoencoders of this folder share.

    x | z ~ Bernoulli(sigmoid(decoder(h(z)))), pixel by pixel.

With logits l, log p(x | z) = Σ (x·l − log(1 + e^l)); probabilities are never formed, so that nothing saturates.
"""

from abc import abstractmethod

from torch import Tensor

from vi_core.errors import Unsupported
from vi_core.models.base import Model
from vi_core.networks import bernoulli
from vi_core.networks.mlp import MLP
from vi_core.types import Latents


class BernoulliImages(Model):
    """A model of images (B, pixels) with values in [0, 1].

    Attributes:
        decoder: The network from h(z) to the logits of the pixels.
    """

    decoder: MLP

    @abstractmethod
    def decoded(self, z: Latents) -> Tensor:
        """Return h(z), the input of the decoder, (K, *batch, inputs)."""

    def check_data(self, x: Tensor) -> None:
        if x.dim() != 2 or bool((x < 0).any()) or bool((x > 1).any()):
            name = type(self).__module__.rpartition(".")[2]  # which is also that of its YAML file
            raise Unsupported(f"model={name} describes pixels in [0, 1]; use dataset=digits, mnist or fashion_mnist.")

    def log_likelihood(self, z: Latents, x: Tensor) -> Tensor:
        """Return log p(x | z), (K, R, B), for latents (K, R, B, *event) and images (B, pixels) in [0, 1]."""
        return bernoulli.log_likelihood(self.decoder, self.decoded(z), x)

    def pixel_means(self, z: Latents) -> Tensor:
        """Return E[x | z], (K, *batch, pixels)."""
        return self.decoder(self.decoded(z)).sigmoid()
