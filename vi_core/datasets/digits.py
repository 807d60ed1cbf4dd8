"""The 1,797 handwritten digits of 8 x 8 pixels and 17 grey levels that scikit-learn carries: images with no download.

They are the test part of the "Optical Recognition of Handwritten Digits" of the UCI repository (Alpaydin and Kaynak
1998). Their order follows the writers, so they are shuffled, by a seed of their own, before some are held out.
"""

from dataclasses import dataclass

import torch

from vi_core.datasets._checks import whole
from vi_core.datasets._images import image_data, require_binarization
from vi_core.datasets.base import Data, Dataset

LEVELS = 16
NUM_IMAGES = 1797


@dataclass(kw_only=True, eq=False)
class Digits(Dataset):
    """All images in shuffled order, the last `num_test` held out.

    Attributes:
        binarization: How grey levels become 0s and 1s: none, threshold, dynamic or fixed.
        batch_size: Images in a step, or None for all.
        seed: Start of the generator that shuffles, and draws the pixels of binarization=fixed.
        num_test: Held-out images, from 1 to 1795.
    """

    binarization: str = "threshold"
    batch_size: int | None = 100
    seed: int = 0
    num_test: int = 297
    images = True

    def __post_init__(self) -> None:
        require_binarization(self.binarization)
        super().__post_init__()
        whole("num_test", self.num_test, 1, NUM_IMAGES - 2)

    def load(self) -> Data:
        """Shuffle and split; train has shape (1797 - num_test, 64), test (num_test, 64), both uint8."""
        from sklearn.datasets import load_digits  # a slow import that only this data set needs

        images = torch.from_numpy(load_digits(return_X_y=True)[0]).to(torch.uint8).unflatten(1, (8, 8))
        generator = torch.Generator().manual_seed(self.seed)
        images = images[torch.randperm(NUM_IMAGES, generator=generator)]
        train, test = images[: -self.num_test], images[-self.num_test :]
        provenance = f"scikit-learn's digits (UCI optical recognition, 1998), shuffled by torch seed {self.seed}"
        return image_data(train, test, LEVELS, self.binarization, generator, provenance)
