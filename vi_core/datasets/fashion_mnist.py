"""Fashion-MNIST: 60,000 and 10,000 pictures of clothes, 28 x 28 pixels (Xiao, Rasul, Vollgraf 2017, arXiv:1708.07747).

Only the MD5 of the compressed files is published, which torchvision checks as it downloads them; files that lie there
already are checked against their headers.
"""

from dataclasses import dataclass

import torch

from vi_core.datasets._idx import read_images
from vi_core.datasets._images import BYTE_LEVELS, image_data, require_binarization
from vi_core.datasets.base import Data, Dataset


@dataclass(kw_only=True, eq=False)
class FashionMNIST(Dataset):
    """The images in <root>/FashionMNIST/raw.

    Attributes:
        root: Folder that holds FashionMNIST/raw.
        binarization: How grey levels become 0s and 1s: none, threshold, dynamic or fixed.
        batch_size: Images in a step, or None for all.
        seed: Start of the generator that draws the pixels of binarization=fixed.
        download: Whether missing files may be downloaded.
    """

    root: str = "data"
    binarization: str = "threshold"
    batch_size: int | None = 100
    seed: int = 0
    download: bool = True
    images = True

    def __post_init__(self) -> None:
        require_binarization(self.binarization)
        super().__post_init__()

    def load(self) -> Data:
        """Verify and read the files; train has shape (60000, 784), test (10000, 784), both uint8."""
        train, test = read_images(self.root, "FashionMNIST", {}, self.download)
        generator = torch.Generator().manual_seed(self.seed)
        return image_data(train, test, BYTE_LEVELS, self.binarization, generator, "Fashion-MNIST (Xiao et al. 2017)")
