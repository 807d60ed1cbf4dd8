"""A variational autoencoder with a convolutional decoder, for images of any size, grey or coloured:

    z ~ N(0, I_D),    x_d | z ~ rounded logistic with o_d = decoder(z)_d and scale s_c,  for each pixel and colour d.

The law of a pixel is a probability of its grey levels, see `vi_core.distributions.grey_levels`; how many there are is
known from the data. On images of 0 and 1 it is Bernoulli(sigmoid(o_d)), as in `vae`. On more levels each colour c has a
scale s_c that is fitted too. The bound is a number of nats of a probability, for all images.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vi_core.distributions import grey_levels
from vi_core.errors import Unsupported
from vi_core.models.autoencoders.vae import NormalLatent
from vi_core.networks.convolutional import ConvolutionalDecoder, Shape
from vi_core.types import Latents

SCALE = 0.1  # first scale s, in units of the range of a pixel: |o| < 5 are then the levels inside


class ConvolutionalVAE(NormalLatent):
    """Rounded logistic pixels on a standard Normal, with latent `z` (D,) per image.

    Args:
        image_shape: (rows, columns) or (rows, columns, colours); known from the data.
        levels: Grey levels of a pixel; known from the data.
        latent_dim: D, dimension of the latent.
        hidden: Widths of the hidden layers between the latent and the smallest map.
        channels: Channels of the maps, from the smallest to the one ahead of the image.
        kernel: Rows and columns of a kernel.
        stride: How many times as many rows and columns a map has as the one before.
        activation: See `vi_core.networks.mlp.ACTIVATIONS`.
    """

    log_scale: Tensor

    def __init__(
        self,
        image_shape: Shape | None,
        levels: int | None,
        /,
        *,
        latent_dim: int = 20,
        hidden: Sequence[int] = (200,),
        channels: Sequence[int] = (64, 32),
        kernel: int = 3,
        stride: int = 2,
        activation: str = "leaky_relu",
    ):
        super().__init__(latent_dim)
        self.decoder = ConvolutionalDecoder(image_shape, latent_dim, hidden, channels, kernel, stride, activation)
        self.levels, self.colours = levels or 2, self.decoder.colours
        log_scale = torch.full((self.colours,), math.log(SCALE))
        if self.levels > 2:
            self.log_scale = nn.Parameter(log_scale)
        else:  # it cancels
            self.register_buffer("log_scale", log_scale, persistent=False)

    def check_data(self, x: Tensor) -> None:
        if x.dim() != 2 or grey_levels.off_grid(x, self.levels):
            raise Unsupported(
                f"model=convolutional_vae describes pixels with {self.levels} levels from 0 to 1, and these are others."
            )

    def outputs(self, z: Latents) -> Tensor:
        """Return the decoder's output o, (K, R, B, places, colours)."""
        return self.decoder(z["z"]).unflatten(-1, (-1, self.colours))

    def log_likelihood(self, z: Latents, x: Tensor) -> Tensor:
        pixels, scale = x.unflatten(-1, (-1, self.colours)), self.log_scale.exp()
        return grey_levels.log_probability(pixels, self.outputs(z), scale, self.levels).sum(dim=(-2, -1))

    def pixel_means(self, z: Latents) -> Tensor:
        """Return E[x | z], (K, *batch, pixels)."""
        return grey_levels.mean(self.outputs(z), self.log_scale.exp(), self.levels).flatten(-2)
