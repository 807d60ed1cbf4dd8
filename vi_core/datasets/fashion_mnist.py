"""Fashion-MNIST: 60,000 and 10,000 pictures of clothes, 28 x 28 pixels (Xiao, Rasul, Vollgraf 2017, arXiv:1708.07747).

Only the MD5 of the compressed files is published, which torchvision checks as it downloads them; files that lie there
already are checked against their headers.
"""

import torch

from vi_core.datasets._checks import whole, whole_or_none
from vi_core.datasets._idx import read_images
from vi_core.datasets._images import image_data, require_binarization
from vi_core.datasets.base import Data, Dataset

LEVELS = 255


class FashionMNIST(Dataset):
    """The images in <root>/FashionMNIST/raw, downloaded when missing; `seed` draws those of binarization=fixed."""

    images = True

    def __init__(
        self,
        *,
        root: str = "data",
        binarization: str = "threshold",
        batch_size: int | None = 100,
        seed: int = 0,
        download: bool = True,
    ) -> None:
        require_binarization(binarization)
        whole_or_none("batch_size", batch_size, 1)
        whole("seed", seed, 0, 2**63 - 1)
        self.root = root
        self.binarization = binarization
        self.batch_size = batch_size
        self.seed = seed
        self.download = download

    def load(self) -> Data:
        """Verify and read the files; train has shape (60000, 784), test (10000, 784), both uint8."""
        train, test = read_images(self.root, "FashionMNIST", {}, self.download)
        generator = torch.Generator().manual_seed(self.seed)
        return image_data(train, test, LEVELS, self.binarization, generator, "Fashion-MNIST (Xiao et al. 2017)")
