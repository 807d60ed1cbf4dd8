"""MNIST: 60,000 and 10,000 handwritten digits of 28 x 28 pixels (LeCun, Bottou, Bengio, Haffner 1998)."""

from dataclasses import dataclass

import torch

from vi_core.datasets._idx import read_images
from vi_core.datasets._images import BYTE_LEVELS, image_data, require_binarization
from vi_core.datasets.base import Data, Dataset

CHECKSUMS = {  # MD5 of the uncompressed files
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


@dataclass(kw_only=True, eq=False)
class MNIST(Dataset):
    """The images in <root>/MNIST/raw, verified by their MD5.

    Attributes:
        root: Folder that holds MNIST/raw.
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
        train, test = read_images(self.root, "MNIST", CHECKSUMS, self.download)
        generator = torch.Generator().manual_seed(self.seed)
        provenance = "MNIST (LeCun et al. 1998), MD5 verified"
        return image_data(train, test, BYTE_LEVELS, self.binarization, generator, provenance)
