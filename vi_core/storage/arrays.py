"""Reader of .npz files: arrays of numbers that take the bytes which they declare; nothing is unpickled."""

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vi_core.storage.reading import MOST_BYTES, damaged, regular_file

NUMBERS = "biuf"  # kinds of NumPy's types without pickled objects, texts and structures
PLAIN = NUMBERS + "U"  # with texts


class Arrays(dict[str, np.ndarray]):
    """Arrays of a file by name; asking for one that it does not have is a `DataError`."""

    def __init__(self, path: Path, arrays: Mapping[str, np.ndarray]):
        super().__init__(arrays)
        self.path = path

    def __missing__(self, name: str) -> np.ndarray:
        raise damaged(self.path, f"it has no array '{name}'")


def read_arrays(path: Path, kinds: str = NUMBERS) -> Arrays:
    """Return the arrays of an .npz file, whose types are of the given kinds; nothing in it is unpickled."""
    regular_file(path, MOST_BYTES)
    try:
        with zipfile.ZipFile(path) as archive:
            check_arrays(archive, kinds)
        with np.load(path, allow_pickle=False) as arrays:
            return Arrays(path, {name: arrays[name] for name in arrays})
    except Exception as error:  # of zipfile, zlib and NumPy
        raise damaged(path, error) from error


def check_arrays(archive: zipfile.ZipFile, kinds: str) -> None:
    """Raise `ValueError` unless each array is of one of the kinds, and takes the bytes that its shape declares."""
    entries = archive.infolist()
    if sum(entry.file_size for entry in entries) > MOST_BYTES:
        raise ValueError(f"its arrays have more than {MOST_BYTES} bytes")
    for entry in entries:
        with archive.open(entry) as file:
            version = np.lib.format.read_magic(file)
            header = "read_array_header_1_0" if version == (1, 0) else "read_array_header_2_0"
            shape, _, dtype = getattr(np.lib.format, header)(file)
            size = math.prod(shape) * dtype.itemsize + file.tell()
        if dtype.kind not in kinds:
            raise ValueError(f"{entry.filename} holds no numbers but {dtype}")
        if size != entry.file_size or min(shape, default=0) < 0:
            raise ValueError(f"{entry.filename} declares {size} bytes and has {entry.file_size}")
