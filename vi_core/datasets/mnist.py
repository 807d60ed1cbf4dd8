"""MNIST: 60,000 and 10,000 handwritten digits of 28 x 28 pixels (LeCun, Bottou, Bengio, Haffner 1998)."""

import torch

from vi_core.datasets._checks import whole, whole_or_none
from vi_core.datasets._idx import read_images
from vi_core.datasets._images import image_data, require_binarization
from vi_core.datasets.base import Data, Dataset

CHECKSUMS = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
LEVELS = 255


class MNIST(Dataset):
    """The images in <root>/MNIST/raw, downloaded when missing; `seed` draws those of binarization=fixed."""

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
        train, test = read_images(self.root, "MNIST", CHECKSUMS, self.download)
        generator = torch.Generator().manual_seed(self.seed)
        return image_data(train, test, LEVELS, self.binarization, generator, "MNIST (LeCun et al. 1998), MD5 verified")
