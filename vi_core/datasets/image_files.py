"""Images of one's own: PNG and JPEG files of a folder and the folders in it, or one array of a NumPy file.

All images have one size and one number of colours. Files are read in the order of their paths, turned as a camera's
note in them says, and transparent pixels are white. An image that is not of the wanted size is scaled until it covers
it, and what stands out is cut off evenly on both sides. Whatever a file holds becomes bytes, so that a pixel has 256
levels, or three times as many for red, green and blue.
"""

import os
import struct
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from vi_core.datasets._images import BYTE_LEVELS, Images
from vi_core.datasets.base import whole
from vi_core.errors import DataError, require

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg")
ARRAYS = (".npy", ".npz")
GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F")  # of Pillow
MOST_BYTES = 2**32  # of all images, which stay in memory
MOST_SIDE = 4096  # rows or columns that `size` may ask for
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, KeyError, struct.error, zlib.error)  # raised by Pillow


@dataclass(kw_only=True, eq=False)
class ImageFiles(Images):
    """The images of a folder or of an array, of which some may be held out.

    Attributes:
        path: Folder with PNG and JPEG files, or an .npy or .npz file with one array: (N, rows, columns), or with a last
            or a second axis of 1 or 3 colours; bytes, or numbers from 0 to 1, which are rounded to 256 levels.
        size: [rows, columns], or one number for both; null for images that have one size.
        colour: `grey`, `rgb`, or `as_is` for images of one kind.
        test_fraction: Share of the images that is held out, or None.
        test_path: Held-out images, like `path`, or None.
        binarization: How intensities become 0s and 1s: none, threshold, dynamic or fixed.
        batch_size: Images in a step, or None for all.
        seed: Start of the generator that chooses held-out images, and draws the pixels of binarization=fixed.
    """

    path: str | None = None
    size: int | Sequence[int] | None = None
    colour: Literal["as_is", "grey", "rgb"] = "as_is"
    test_fraction: float | None = None
    test_path: str | None = None
    binarization: str = "none"
    batch_size: int | None = 100
    seed: int = 0

    def __post_init__(self) -> None:
        require(bool(self.path), "dataset=images needs a folder or an array: dataset.path=<folder or file.npy>.")
        super().__post_init__()
        sides, fraction = [self.size] if isinstance(self.size, int) else list(self.size or ()), self.test_fraction
        require(len(sides) < 3, f"dataset.size={sides} must be one number, or rows and columns.")
        for side in sides:
            whole("size", side, 1, MOST_SIDE)
        self.wanted = (sides[0], sides[-1]) if sides else None
        require(fraction is None or 0 < fraction < 1, f"dataset.test_fraction={fraction} must lie between 0 and 1.")
        require(
            fraction is None or self.test_path is None,
            "dataset.test_fraction and dataset.test_path both choose the held-out images; set one of them.",
        )

    def read(self, generator: torch.Generator) -> tuple[Tensor, Tensor | None, str]:
        path = Path(str(self.path)).expanduser().absolute()
        images = self._images(path)
        if len(images) < 2:
            raise DataError(f"{path} has only {len(images)} image; at least 2 are needed.")
        test = None
        if self.test_path is not None:
            test = self._images(Path(self.test_path).expanduser().absolute())
            if test.shape[1:] != images.shape[1:]:
                shapes = (
                    f"{described(tuple(test.shape[1:]))}, those of dataset.path {described(tuple(images.shape[1:]))}"
                )
                raise DataError(f"the images of dataset.test_path are {shapes}; set dataset.size or dataset.colour.")
        elif self.test_fraction is not None:
            images = images[torch.randperm(len(images), generator=generator)]
            images, test = images.tensor_split([len(images) - self._held_out(len(images))])
        kept = f"{len(images)} images, {described(tuple(images.shape[1:]))}"
        return images, test, f"{path}, {kept}, {0 if test is None else len(test)} held out"

    def classes(self) -> list[str] | None:
        """Return the folder inside `path`, or `test_path`, that each image lies in; None where one is in none."""
        folder = Path(str(self.test_path or self.path)).expanduser().absolute()
        inside = [file.relative_to(folder).parts for file in image_files(folder)]
        if not inside or any(len(parts) < 2 for parts in inside):
            return None
        names = [parts[0] for parts in inside]
        if self.test_fraction is None:
            return names
        order = torch.randperm(len(names), generator=torch.Generator().manual_seed(self.seed)).tolist()
        return [names[place] for place in order[-self._held_out(len(names)) :]]

    def _held_out(self, count: int) -> int:
        """Return how many of `count` images `test_fraction` holds out: one at least, and all but one at most."""
        return min(max(1, round((self.test_fraction or 0.0) * count)), count - 1)

    def _images(self, path: Path) -> Tensor:
        """Return all images of a folder or an array, uint8 (N, rows, columns) or (N, rows, columns, 3)."""
        if not path.exists():
            raise DataError(f"{path} does not exist; name a folder, or an .npy or .npz file.")
        if path.is_dir():
            return torch.from_numpy(self._of_folder(path))
        if path.suffix.lower() in ARRAYS and path.is_file():
            return torch.from_numpy(self._of_array(path))
        raise DataError(f"{path} is neither a folder nor an .npy or .npz file; name the folder that the images are in.")

    def _of_folder(self, folder: Path) -> np.ndarray:
        files = image_files(folder)
        if not files:
            raise DataError(f"{folder} and the folders in it hold no file that ends in {', '.join(SUFFIXES)}.")
        first = read_file(files[0], self.wanted, self.colour)
        images = allocated(folder, len(files), first.shape)
        for place, file in enumerate(files):
            pixels = first if place == 0 else read_file(file, self.wanted, self.colour)
            if pixels.shape != first.shape:
                raise DataError(
                    f"{file} is {described(pixels.shape)}, and {files[0]} is {described(first.shape)}; "
                    f"{way_out(pixels.shape, first.shape)}."
                )
            images[place] = pixels
        return images

    def _of_array(self, path: Path) -> np.ndarray:
        found = channels_last(path, read_array(path))
        first = self._prepared(as_bytes(path, found[:1])[0])
        images = allocated(path, len(found), first.shape)
        for place in range(len(found)):
            images[place] = self._prepared(as_bytes(path, found[place : place + 1])[0])
        return images

    def _prepared(self, pixels: np.ndarray) -> np.ndarray:
        """Return one image of an array, (rows, columns) or (rows, columns, 3), in the wanted size and colour."""
        fits = self.wanted in (None, pixels.shape[:2])
        if fits and self.colour in ("as_is", "grey" if pixels.ndim == 2 else "rgb"):
            return pixels
        from PIL import Image

        return prepared(Image.fromarray(pixels), self.wanted, self.colour)


def image_files(folder: Path) -> list[Path]:
    """Return the image files of a folder and of those in it, in the order of their paths; hidden ones are left out."""
    found: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        shown = [name for name in names if name.lower().endswith(SUFFIXES) and not name.startswith(".")]
        found += [Path(place, name) for name in shown]
    return sorted(found)


def read_file(file: Path, size: tuple[int, int] | None, colour: str) -> np.ndarray:
    """Return the pixels of a PNG or JPEG file, uint8 (rows, columns) or (rows, columns, 3)."""
    from PIL import Image, ImageOps

    if not file.is_file():
        raise DataError(f"{file} is no regular file; take it out of the folder.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=["PNG", "JPEG"]) as opened:
                return prepared(ImageOps.exif_transpose(opened), size, colour)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise DataError(f"{file} has more than {Image.MAX_IMAGE_PIXELS:,} pixels; make it smaller.") from None
    except UNREADABLE as error:
        unknown = type(error).__name__ == "UnidentifiedImageError"
        said = " ".join(str(error).split())[:80].rstrip(".")
        reason = "is neither a PNG nor a JPEG image" if unknown else f"is damaged or cannot be read ({said})"
        raise DataError(f"{file} {reason}; take it out of the folder, or save it anew.") from None


def prepared(image: "Image", size: tuple[int, int] | None, colour: str) -> np.ndarray:
    """Return the pixels of an image, uint8 (rows, columns) or (rows, columns, 3), in the wanted size and colour."""
    from PIL import Image, ImageOps

    grey = colour == "grey" or (colour == "as_is" and image.mode in GREY_MODES)
    if image.mode.startswith("I"):  # 16 bits, which `convert` would cut off at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        drawn = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", drawn.size, "white"), drawn)
    image = image.convert("L" if grey else "RGB")
    if size is not None and image.size != size[::-1]:
        image = ImageOps.fit(image, (size[1], size[0]), Image.Resampling.BICUBIC)
    return np.asarray(image)


def read_array(path: Path) -> np.ndarray:
    """Return the only array of an .npy or .npz file."""
    try:
        if path.suffix.lower() == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False)
        with np.load(path, allow_pickle=False) as arrays:
            names: list[str] = list(arrays.files)
            if len(names) == 1:
                return arrays[names[0]]
    except Exception as error:  # of a damaged file anything may come
        said = " ".join(str(error).split())[:80].rstrip(".")
        raise DataError(f"{path} is no file of one array of numbers ({said}); write it with numpy.save.") from None
    raise DataError(f"{path} holds {len(names)} arrays ({', '.join(names[:5])}); save the images alone by numpy.save.")


def channels_last(path: Path, array: np.ndarray) -> np.ndarray:
    """Return an array as (N, rows, columns) or (N, rows, columns, 3)."""
    if array.ndim == 4 and array.shape[3] not in (1, 3) and array.shape[1] in (1, 3):
        array = np.moveaxis(array, 1, 3)
    fits = array.ndim == 3 or (array.ndim == 4 and array.shape[3] in (1, 3))
    if not fits or not array.size:
        raise DataError(
            f"{path} has an array of shape {array.shape}; images are (N, rows, columns), or with an axis of 1 or 3 "
            "colours last or second."
        )
    return array[..., 0] if array.ndim == 4 and array.shape[3] == 1 else array


def as_bytes(path: Path, array: np.ndarray) -> np.ndarray:
    """Return numbers from 0 to 1, or integers from 0 to 255, as bytes."""
    kind, most = array.dtype.kind, 1 if array.dtype.kind in "fb" else BYTE_LEVELS
    if kind not in "fbiu":
        raise DataError(f"{path} holds {array.dtype}; images are bytes, or numbers from 0 to 1.")
    if not (array.min() >= 0 and array.max() <= most):  # NaN is neither
        found = f"from {array.min():.4g} to {array.max():.4g}"
        raise DataError(f"{path} has numbers {found} of type {array.dtype}, which should lie between 0 and {most}.")
    return (array * np.float64(BYTE_LEVELS)).round().astype(np.uint8) if most == 1 else array.astype(np.uint8)


def allocated(path: Path, count: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return an empty array for `count` images; raise where they would not fit into memory."""
    size = count * int(np.prod(shape))
    if size > MOST_BYTES:
        raise DataError(
            f"{path}: {count} images, {described(shape)}, take {size / 1e9:.1f} GB, and {MOST_BYTES / 1e9:.1f} GB are "
            "the most; set a smaller dataset.size."
        )
    return np.empty((count, *shape), dtype=np.uint8)


def described(shape: tuple[int, ...]) -> str:
    """Return the shape of an image in words."""
    return f"{shape[0]} x {shape[1]} {'in colour' if len(shape) == 3 else 'grey'}"


def way_out(one: tuple[int, ...], other: tuple[int, ...]) -> str:
    """Return the settings that make two images alike."""
    size = "dataset.size=[rows,columns]" if one[:2] != other[:2] else ""
    colour = "dataset.colour=grey or rgb" if len(one) != len(other) else ""
    return "set " + " and ".join(filter(None, (size, colour)))
