"""Reader of the four IDX files of MNIST and its twins, in the folder <root>/<name>/raw as torchvision lays them out.

An IDX file starts with two zero bytes, the type of the numbers (8: unsigned bytes) and the number of dimensions, then
has each dimension as a big-endian 32-bit integer, then the bytes (http://yann.lecun.com/exdb/mnist). So the header
announces the size, and a file cut short by a lost connection or a full disk is found before it is read.
"""

import contextlib
import hashlib
import io
import math
import os
import socket
import struct
import tempfile
import textwrap
import zlib
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from pathlib import Path

from torch import Tensor

from vi_core.datasets._torchvision import import_torchvision
from vi_core.errors import DataError

KINDS = {"images": 3, "labels": 1}  # and the dimensions of their arrays
DIMENSIONS = {f"{part}-{kind}-idx{n}-ubyte": n for part in ("train", "t10k") for kind, n in KINDS.items()}
UNSIGNED_BYTE = 8  # code of the type in an IDX header
TIMEOUT_S = 20.0  # of one network operation of a download


def read_images(root: str, name: str, checksums: Mapping[str, str], download: bool) -> tuple[Tensor, Tensor]:
    """Verify the four files in <root>/<name>/raw, and read the images of two of them.

    Args:
        root: Folder that holds the data sets.
        name: Class of torchvision.datasets that knows where to download the files, `MNIST` or `FashionMNIST`.
        checksums: MD5 of the uncompressed files, by file name, as far as they are known.
        download: Whether missing files may be downloaded.

    Returns:
        uint8 pixels of the training and of the test images, with shape (N, rows, columns).

    Raises:
        DataError: Where a file is missing and cannot be downloaded, or is not what its header or MD5 says.
    """
    folder = Path(root).expanduser().absolute() / name / "raw"
    read = import_torchvision("torchvision.datasets.mnist").read_image_file
    try:
        missing = [file for file in DIMENSIONS if not (folder / file).is_file()]
        if missing:
            provide(folder, name, missing, download)
        for file, dimensions in DIMENSIONS.items():
            verify(folder / file, dimensions, checksums.get(file))
        return read(str(folder / "train-images-idx3-ubyte")), read(str(folder / "t10k-images-idx3-ubyte"))
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}.") from None


def read_classes(root: str, name: str) -> list[int]:
    """Return the labels of the test images, each from 0 to 9, of files that `read_images` has verified."""
    folder = Path(root).expanduser().absolute() / name / "raw"
    read = import_torchvision("torchvision.datasets.mnist").read_label_file
    return read(str(folder / "t10k-labels-idx1-ubyte")).tolist()


def provide(folder: Path, name: str, missing: list[str], download: bool) -> None:
    """Download the missing files; raise `DataError` with the reason and the way out where that is not possible."""
    reason = "dataset.download=false"
    if download:
        try:
            return fetch(folder, name, missing)
        except (OSError, RuntimeError, HTTPException, EOFError, zlib.error) as error:
            reason = f"the download failed ({textwrap.shorten(str(error), 300)})"
    raise DataError(
        f"{folder} lacks {', '.join(missing)}, and {reason}: put the four uncompressed files there,"
        " or give dataset.root=<folder> that holds them, or use dataset=digits, which needs no file."
    )


def fetch(folder: Path, name: str, missing: list[str]) -> None:
    """Download by torchvision to a temporary folder, then move the missing files, so that none is incomplete."""
    root = folder.parent.parent
    root.mkdir(parents=True, exist_ok=True)
    source = getattr(import_torchvision("torchvision.datasets"), name)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as beside:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), timeout(TIMEOUT_S):
            source(beside, download=True)
        folder.mkdir(parents=True, exist_ok=True)
        for file in missing:
            os.replace(Path(beside) / name / "raw" / file, folder / file)


@contextlib.contextmanager
def timeout(seconds: float) -> Iterator[None]:
    """Context manager: new sockets give up after `seconds`; torchvision sets no limit, and would wait for minutes."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def verify(path: Path, dimensions: int, md5: str | None) -> None:
    """Raise `DataError` for a file whose header, size or MD5 is not the expected one."""
    remedy = "delete it and run again with dataset.download=true, or replace it."
    with path.open("rb") as file:
        header = file.read(4 + 4 * dimensions)
    size = path.stat().st_size
    if size < 4 + 4 * dimensions:
        raise DataError(f"{path} is truncated: {size} bytes are not even a header; {remedy}")
    magic, *shape = struct.unpack(f">{1 + dimensions}I", header)
    if magic != UNSIGNED_BYTE << 8 | dimensions:
        raise DataError(f"{path} is no uncompressed IDX file of bytes in {dimensions} dimensions; {remedy}")
    expected = len(header) + math.prod(shape)
    if size != expected:
        kind = "truncated" if size < expected else "too long"
        raise DataError(f"{path} is {kind}: {size} bytes where its header announces {expected}; {remedy}")
    if md5 is not None and (found := file_md5(path)) != md5:
        raise DataError(f"{path} is corrupt: its MD5 is {found} instead of {md5}; {remedy}")


def file_md5(path: Path) -> str:
    """Return the MD5 of a file, in hexadecimal digits; it detects accidents, and is no protection against an attack."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
