"""Images as bytes, and the binarizations that make their pixels the 0s and 1s of a Bernoulli likelihood.

A pixel is an integer from 0 to L (255 for MNIST, 16 for scikit-learn's digits), or three of them for red, green and
blue, and the model sees, for each number b,

    none        b / L, in [0, 1]: `convolutional_vae` gives these levels probabilities; the other autoencoders use the
                value as if it were a Bernoulli mean (their "likelihood" is then no probability of the data, so its
                values compare with nothing else);
    threshold   1 if b > L / 2 else 0, which is `torch.round(b / L)`, as 1/2 rounds to the even 0;
    dynamic     a new draw of Bernoulli(b / L) for each batch (Burda, Grosse, Salakhutdinov 2016, section 5);
    fixed       one draw of Bernoulli(b / L) at load (as Salakhutdinov and Murray 2008 did; the values of their
                own draw differ).
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from vi_core.datasets.base import Data, Dataset
from vi_core.errors import did_you_mean, require

BYTE_LEVELS = 255  # largest grey level of an image with one byte for each pixel
Rule = Callable[[Tensor, int, torch.dtype], Tensor]  # (stored pixels (B, D), levels, dtype) -> numbers (B, D)


def grey(pixels: Tensor, levels: int, dtype: torch.dtype) -> Tensor:
    """Return pixels (B, D) from 0 to `levels` as numbers from 0 to 1."""
    return pixels.to(dtype) / levels


def threshold(pixels: Tensor, levels: int, dtype: torch.dtype) -> Tensor:
    """Return 1 for pixels (B, D) above half of `levels`, else 0; in place, in a fourth of the time."""
    return pixels.to(dtype).gt_(levels // 2)


def dynamic(pixels: Tensor, levels: int, dtype: torch.dtype) -> Tensor:
    """Return draws of Bernoulli(pixels / levels), (B, D), from the default random stream of the device."""
    shades = grey(pixels, levels, dtype)
    return (torch.rand_like(shades) < shades).to(dtype)  # torch.bernoulli draws this when compiled, and others when not


# Pixels of `fixed` are stored as 0 and 1 already, with one level.
RULES: dict[str, Rule] = {"none": grey, "threshold": threshold, "dynamic": dynamic, "fixed": grey}


@dataclass(frozen=True)
class Pixels:
    """Decode of images: maps stored pixels to what the model sees.

    Attributes:
        levels: Largest grey level.
        rule: How a pixel becomes a number, one of `RULES`.
        dtype: Floating type of the result.
    """

    levels: int
    rule: Rule
    dtype: torch.dtype = torch.float32

    def __call__(self, batch: Tensor) -> Tensor:
        """Return what the model sees of stored pixels (B, D), with the same shape, on the same device."""
        return self.rule(batch, self.levels, self.dtype)

    def expected(self, batch: Tensor) -> Tensor:
        """Return the expectation of what the model sees of pixels (B, D): grey values for dynamic binarization."""
        rule = grey if self.rule is dynamic else self.rule
        return rule(batch, self.levels, self.dtype)

    def with_dtype(self, dtype: torch.dtype) -> "Pixels":
        """Return the same decode with results of type `dtype`."""
        return replace(self, dtype=dtype)


@dataclass(kw_only=True, eq=False)
class Images(Dataset):
    """Images of bytes, of which some may be held out.

    Attributes:
        binarization: How grey levels become 0s and 1s: none, threshold, dynamic or fixed.
        batch_size: Images in a step, or None for all.
        seed: Start of the generator that `read` may use, and that draws the pixels of binarization=fixed.
        levels: Largest grey level.
    """

    binarization: str = "threshold"
    batch_size: int | None = 100
    seed: int = 0
    images = True
    levels: ClassVar[int] = BYTE_LEVELS

    def __post_init__(self) -> None:
        known, hint = ", ".join(RULES), did_you_mean(self.binarization, RULES)
        require(self.binarization in RULES, f"dataset.binarization={self.binarization} must be one of {known}.{hint}")
        super().__post_init__()

    @abstractmethod
    def read(self, generator: torch.Generator) -> tuple[Tensor, Tensor | None, str]:
        """Return training and test images, uint8 (N, rows, columns) or (N, rows, columns, 3), and their origin."""

    def load(self) -> Data:
        generator = torch.Generator().manual_seed(self.seed)
        train, test, provenance = self.read(generator)
        return image_data(train, test, self.levels, self.binarization, generator, provenance)


def image_data(
    train: Tensor, test: Tensor | None, levels: int, binarization: str, generator: torch.Generator, provenance: str
) -> Data:
    """Return flattened images with the decode of their binarization.

    Args:
        train: uint8 pixels from 0 to `levels`, (N, rows, columns) or (N, rows, columns, 3).
        test: Held-out ones, (M, ...), or None.
        levels: Largest grey level.
        binarization: A key of `RULES`.
        generator: Random stream of the `fixed` draws, train before test; the other binarizations do not touch it.
        provenance: Where the images come from; the binarization is added.
    """

    def stored(x: Tensor) -> Tensor:
        if binarization == "fixed":
            x = torch.empty_like(x).bernoulli_(grey(x, levels, torch.float32), generator=generator)
        return x.flatten(1)

    return Data(
        train=stored(train),
        provenance=f"{provenance}; binarization {binarization}",
        test=None if test is None else stored(test),
        decode=Pixels(1 if binarization == "fixed" else levels, RULES[binarization]),
        image_shape=tuple(train.shape[1:]),
        levels=levels + 1 if binarization == "none" else 2,
    )
