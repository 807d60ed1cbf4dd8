"""The 1,797 handwritten digits of 8 x 8 pixels and 17 grey levels that scikit-learn carries: images with no download.

They are the test part of the "Optical Recognition of Handwritten Digits" of the UCI repository (Alpaydin and Kaynak
1998). Their order follows the writers, so they are shuffled, by a seed of their own, before some are held out.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
from torch import Tensor

from vi_core.datasets._images import Images
from vi_core.datasets.base import whole

NUM_IMAGES = 1797


@dataclass(kw_only=True, eq=False)
class Digits(Images):
    """All images in shuffled order, the last `num_test` held out.

    Attributes:
        binarization: How grey levels become 0s and 1s: none, threshold, dynamic or fixed.
        batch_size: Images in a step, or None for all.
        seed: Start of the generator that shuffles, and draws the pixels of binarization=fixed.
        num_test: Held-out images, from 1 to 1795.
    """

    num_test: Annotated[int, partial(whole, least=1, most=NUM_IMAGES - 2)] = 297
    levels = 16

    def read(self, generator: torch.Generator) -> tuple[Tensor, Tensor, str]:
        """Shuffle and split into (1797 - num_test, 8, 8) training images and (num_test, 8, 8) test images."""
        images = shuffled(0, generator).to(torch.uint8).unflatten(1, (8, 8))
        provenance = f"scikit-learn's digits (UCI optical recognition, 1998), shuffled by torch seed {self.seed}"
        return images[: -self.num_test], images[-self.num_test :], provenance

    def classes(self) -> list[str]:
        """Return the digit of each held-out image."""
        digits = shuffled(1, torch.Generator().manual_seed(self.seed))
        return [str(digit) for digit in digits[-self.num_test :].tolist()]


def shuffled(part: int, generator: torch.Generator) -> Tensor:
    """Return the images (1797, 64), part 0, or their digits (1797,), part 1, in the order that `generator` draws."""
    from sklearn.datasets import load_digits  # a slow import that only this data set needs

    return torch.from_numpy(load_digits(return_X_y=True)[part])[torch.randperm(NUM_IMAGES, generator=generator)]
