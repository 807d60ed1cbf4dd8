"""The images that all contenders see: MNIST where it is, else images of the same shape.

No operation of a training step takes longer for one pixel value than for another, so that the times do not depend on
which images these are. The bounds that contenders reach do, and are compared on the same ones.
"""

from pathlib import Path

import numpy as np
import torch

from vi_core.datasets._images import image_data
from vi_core.datasets.base import Data, Dataset
from vi_core.datasets.mnist import MNIST

SIDE = 28
PIXELS = SIDE**2
COUNT = 60_000
LEVELS = 255


class StoredImages(Dataset):
    """Images (N, 784) from the array `images` of an .npz file, thresholded.

    Args:
        path: The file.
        batch_size: Images in a step.
    """

    images = True

    def __init__(self, *, path: str, batch_size: int | None = 128):
        self.path, self.batch_size = path, batch_size

    def load(self) -> Data:
        train = torch.from_numpy(read_images(self.path)).reshape(-1, SIDE, SIDE)
        return image_data(train, train[:SIDE], LEVELS, "threshold", torch.Generator(), "images of the benchmark")


def read_images(path: str) -> np.ndarray:
    """Return the images (N, 784), uint8."""
    with np.load(path) as arrays:
        return arrays["images"]


def write_images(root: str, path: Path) -> str:
    """Write the images of MNIST in `root`, or synthetic ones, to `path`; return what they are."""
    found = (Path(root).expanduser() / "MNIST" / "raw" / "train-images-idx3-ubyte").is_file()
    images = MNIST(root=root, download=False).load().train.numpy() if found else synthetic(COUNT)
    np.savez(path, images=images)
    return "MNIST" if found else "synthetic images of MNIST's shape"


def synthetic(count: int) -> np.ndarray:
    """Return images (count, 784), uint8: ten blurred spots each, with a few pixels turned."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    centres = random.uniform(6, 22, size=(10, 2))
    spots = [np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 18).ravel() > 0.4 for y, x in centres]
    chosen = np.stack(spots)[random.integers(10, size=count)]
    return np.where(chosen ^ (random.random((count, PIXELS), dtype=np.float32) < 0.05), LEVELS, 0).astype(np.uint8)
