"""MNIST and its twin Fashion-MNIST: 60,000 and 10,000 images of 28 x 28 pixels, from files or a download.

MNIST are handwritten digits (LeCun, Bottou, Bengio, Haffner 1998), Fashion-MNIST pictures of clothes (Xiao, Rasul,
Vollgraf 2017, arXiv:1708.07747). Of the latter only the MD5 of the compressed files is published, which torchvision
checks as it downloads them; files that lie there already are checked against their headers.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from vi_core.datasets._idx import read_classes, read_images
from vi_core.datasets._images import Images

CHECKSUMS = {  # MD5 of the uncompressed files
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
CLOTHES = ("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


@dataclass(kw_only=True, eq=False)
class StoredImages(Images):
    """Images in four files of a folder, which may be downloaded.

    Attributes:
        root: Folder that holds <name of the data set>/raw.
        download: Whether missing files may be downloaded.
    """

    root: str = "data"
    download: bool = True


class MNIST(StoredImages):
    """The images in <root>/MNIST/raw, verified by their MD5.

    Attributes:
        binarization: How grey levels become 0s and 1s: none, threshold, dynamic or fixed.
        batch_size: Images in a step, or None for all.
        seed: Start of the generator that draws the pixels of binarization=fixed.
        root: Folder that holds MNIST/raw.
        download: Whether missing files may be downloaded.
    """

    def read(self, generator: torch.Generator) -> tuple[Tensor, Tensor, str]:
        images = read_images(self.root, "MNIST", CHECKSUMS, self.download)
        return *images, "MNIST (LeCun et al. 1998), MD5 verified"

    def classes(self) -> list[str]:
        """Return the digit of each test image."""
        return [str(label) for label in read_classes(self.root, "MNIST")]


class FashionMNIST(StoredImages):
    """The images in <root>/FashionMNIST/raw.

    Attributes:
        binarization: How grey levels become 0s and 1s: none, threshold, dynamic or fixed.
        batch_size: Images in a step, or None for all.
        seed: Start of the generator that draws the pixels of binarization=fixed.
        root: Folder that holds FashionMNIST/raw.
        download: Whether missing files may be downloaded.
    """

    def read(self, generator: torch.Generator) -> tuple[Tensor, Tensor, str]:
        return *read_images(self.root, "FashionMNIST", {}, self.download), "Fashion-MNIST (Xiao et al. 2017)"

    def classes(self) -> list[str]:
        """Return what each test image shows."""
        return [CLOTHES[label] for label in read_classes(self.root, "FashionMNIST")]
