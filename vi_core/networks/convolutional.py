"""Convolutions for encoders and decoders of images of any size, grey or coloured.

An image of H rows and W columns is a vector of its pixels, row by row, with the colours of a pixel side by side. A
layer of an encoder with kernel k, stride s and padding p = ⌊(k − 1)/2⌋ computes, with zeros around the image,

    y[c, i, j] = b[c] + Σ_{c', u, v} w[c, c', u, v] x[c', s i + u − p, s j + v − p],

and leaves ⌊(n + 2p − k)/s⌋ + 1 of n rows. A layer of a decoder is the transpose of such a map, with the sizes of the
encoder's layer in its place, so that images of every size come out as large as they went in. Convolutions are computed
in the type of the parameters, whatever `matmul` says of the perceptrons' products.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from vi_core.errors import Unsupported, require
from vi_core.networks.mlp import MLP, make_activation

Shape = tuple[int, ...]  # of an image: (rows, columns), or (rows, columns, colours)


class Features(nn.Module, ABC):
    """What an encoder computes of an image ahead of its perceptron.

    Attributes:
        size: Length of the result.
    """

    size: int

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, pixels) to (B, size)."""


class ConvolutionalFeatures(Features):
    """Convolutions, each followed by an activation.

    Args:
        image_shape: (rows, columns) or (rows, columns, colours); known from the data.
        channels: Channels of the layers, from the image to the features.
        kernel: Rows and columns of a kernel.
        stride: Pixels between two places of the kernel; 2 halves rows and columns in each layer.
        activation: See `vi_core.networks.mlp.ACTIVATIONS`.
    """

    def __init__(
        self,
        image_shape: Shape | None,
        /,
        *,
        channels: Sequence[int] = (32, 64),
        kernel: int = 3,
        stride: int = 2,
        activation: str = "leaky_relu",
    ):
        super().__init__()
        self.shape, owner = three_axes(image_shape, "family/features=convolutional"), "family.features"
        sizes = map_sizes(self.shape, channels, kernel, stride, owner)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise([self.shape[2], *channels]):
            layers += [
                nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2),
                make_activation(activation, owner),
            ]
        self.layers = nn.Sequential(*layers)
        self.size = channels[-1] * sizes[-1][0] * sizes[-1][1]

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.unflatten(-1, self.shape).movedim(-1, -3)).flatten(1)


class ConvolutionalDecoder(nn.Module):
    """A perceptron to the smallest map of channels, and transposed convolutions from it to an image.

    Args:
        image_shape: (rows, columns) or (rows, columns, colours).
        inputs: Length of the input.
        hidden: Widths of the perceptron's hidden layers.
        channels: Channels of the maps, from the smallest to the one ahead of the image.
        kernel, stride: Of each transposed convolution.
        activation: See `vi_core.networks.mlp.ACTIVATIONS`.

    Attributes:
        colours: Numbers of a pixel: 1 for grey images.
    """

    def __init__(
        self,
        image_shape: Shape | None,
        inputs: int,
        hidden: Sequence[int],
        channels: Sequence[int],
        kernel: int,
        stride: int,
        activation: str,
    ):
        super().__init__()
        shape = three_axes(image_shape, "model=convolutional_vae")
        sizes = map_sizes(shape, channels, kernel, stride, "model")[::-1]
        padding, layers = (kernel - 1) // 2, list[nn.Module]()
        for (before, after), (small, large) in zip(pairwise([*channels, shape[2]]), pairwise(sizes), strict=True):
            rest = [n - (m - 1) * stride + 2 * padding - kernel for n, m in zip(large, small, strict=True)]
            transposed = nn.ConvTranspose2d(before, after, kernel, stride, padding, (rest[0], rest[1]))
            layers += [make_activation(activation, "model"), transposed]
        self.map, self.colours = (channels[0], *sizes[0]), shape[2]
        self.dense = MLP([inputs, *hidden, channels[0] * sizes[0][0] * sizes[0][1]], activation, "model")
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        """Map (*batch, inputs) to pixels (*batch, rows · columns · colours)."""
        images = self.layers(self.dense(z).reshape(-1, *self.map))
        return images.movedim(-3, -1).reshape(*z.shape[:-1], -1)


def three_axes(image_shape: Shape | None, user: str) -> tuple[int, int, int]:
    """Return (rows, columns, colours) of images; raise `Unsupported` for data that are none, and `user` needs them."""
    if image_shape is None:
        raise Unsupported(f"{user} is for images with rows and columns; use dataset=digits, mnist or images.")
    rows, columns, *colours = image_shape
    return rows, columns, *(colours or [1])  # type: ignore[return-value]


def map_sizes(
    shape: tuple[int, int, int], channels: Sequence[int], kernel: int, stride: int, owner: str
) -> list[tuple[int, int]]:
    """Return (rows, columns) of an image and of the map after each convolution; raise where there is no such map."""
    require(bool(channels) and min(channels) >= 1, f"{owner}.channels={list(channels)} must be numbers of at least 1.")
    require(stride >= 1, f"{owner}.stride={stride} must be at least 1.")
    require(
        kernel >= stride, f"{owner}.kernel={kernel} must be at least {owner}.stride={stride}, or pixels are left out."
    )
    sizes = [shape[:2]]
    for _ in channels:
        rows, columns = ((n + 2 * ((kernel - 1) // 2) - kernel) // stride + 1 for n in sizes[-1])
        sizes.append((rows, columns))
    fits = min(map(min, sizes)) >= 1
    require(
        fits, f"{owner}.channels={list(channels)} are too many layers for {shape[0]} x {shape[1]} pixels; use less."
    )
    return sizes
