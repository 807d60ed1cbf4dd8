"""Arrays by name from a file or the settings: the data sets `npz`, `json` and `lynx_hare`, for models of one's own.

Arrays whose first axis has the length that most of them share are rows, of which minibatches take some; all others are
constants. Names and shapes are those of the file.
"""

import json
import zipfile
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from vi_core.datasets.base import Data, Dataset
from vi_core.datasets.columns import column_data, named_columns, number_of_points
from vi_core.errors import DataError, require


@dataclass(kw_only=True, eq=False)
class ArrayFile(Dataset):
    """A file of arrays by name; subclasses read one format.

    Attributes:
        path: The file.
        batch_size: Rows in a step, or None for all.

    Raises:
        ConfigError: Where no path is given.
    """

    suffix: ClassVar[str]
    format: ClassVar[str]
    path: str | None = None
    batch_size: int | None = None

    def __post_init__(self) -> None:
        require(bool(self.path), f"dataset={self.suffix} needs a file: dataset.path=<file.{self.suffix}>.")
        super().__post_init__()

    def load(self) -> Data:
        """Read all entries, as float64 or int64."""
        path = Path(str(self.path)).expanduser().absolute()
        try:
            found = self.entries(path)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
            raise DataError(f"{path} {reason(path, error, self.format)}") from error
        return arrays_of(path, found)

    def new_rows(self, path: Path) -> dict[str, Tensor]:
        data = replace(self, path=str(path)).load()
        return data.decode(data.train)

    @abstractmethod
    def entries(self, path: Path) -> Mapping[str, Any]:
        """Return what the file holds, by name; whatever its reader raises says that it is of another format."""


@dataclass(kw_only=True, eq=False)
class NPZ(ArrayFile):
    """The arrays of a NumPy file, as `numpy.savez` writes it."""

    suffix, format = "npz", "an .npz file of numbers"

    def entries(self, path: Path) -> Mapping[str, Any]:
        if path.is_file() and not zipfile.is_zipfile(path):
            raise DataError(f"{path} is not an .npz file; write one by numpy.savez('{path.stem}.npz', x=x, y=y).")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: self.array(path, arrays, name) for name in arrays.files}

    @staticmethod
    def array(path: Path, arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
        """Return one array of the file; raise `DataError` for Python's objects, which are not loaded."""
        try:
            return arrays[name]
        except ValueError as error:
            if "allow_pickle" not in str(error):
                raise
            reason = "holds Python's objects, such as lists that differ in length; save arrays of numbers"
            raise DataError(f"{path}: data '{name}' {reason}.") from None


@dataclass(kw_only=True, eq=False)
class JSON(ArrayFile):
    """The numbers and nested lists of a JSON file, which holds one object."""

    suffix, format = "json", "valid JSON"

    def entries(self, path: Path) -> Mapping[str, Any]:
        found = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=partial(self.once, path))
        if not isinstance(found, dict):
            raise DataError(f'{path} must hold one object of numbers and lists by name, such as {{"y": [1.5, 2.0]}}.')
        return found

    @staticmethod
    def once(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """Return the entries of an object; raise `DataError` for a name that stands twice: one would be lost."""
        names = [name for name, _ in pairs]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise DataError(f"{path} has '{twice}' twice; rename one of them.")
        return dict(pairs)


@dataclass(kw_only=True, eq=False)
class Numbers(Dataset):
    """Numbers and nested lists by name, in the settings.

    Attributes:
        values: By name.
        source: Where the numbers come from.
        batch_size: Rows in a step, or None for all.
    """

    values: dict[str, Any]
    source: str
    batch_size: int | None = None

    def load(self) -> Data:
        """Return the arrays, as float64 or int64."""
        return column_data(named_columns(self.values), self.source)


def arrays_of(path: Path, found: Mapping[str, Any]) -> Data:
    """Return the data set of a file's arrays by name; raise `DataError` in one line for what is no array of numbers."""
    try:
        columns = named_columns(found, sparing=bool(found))
        count = number_of_points(columns)
        described = ", ".join(f"{name} {tuple(value.shape)}" for name, value in columns.items())
        data = column_data(columns, f"{path}, {count} rows; {described}")
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return data


def reason(path: Path, error: Exception, kind: str) -> str:
    """Return why a file cannot be read."""
    if isinstance(error, FileNotFoundError):
        return "does not exist; name another file with dataset.path=."
    if path.is_dir():
        return "is a folder; name a file in it with dataset.path=."
    return f"is not {kind} ({' '.join(str(error).split())[:80].rstrip('.')})."
