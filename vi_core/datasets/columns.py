"""Data sets of several named columns: the form that data of one's own have, whatever they were read from.

Columns lie side by side in one matrix (N, width), so that a minibatch is one selection of rows; `Columns`, the data
set's decode, takes rows apart into named tensors again.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vi_core.datasets.base import Data, Dataset
from vi_core.errors import DataError, did_you_mean

LARGEST_WHOLE = {torch.float64: 2**53, torch.float32: 2**24}  # integers that a matrix of the type holds exactly


@dataclass(frozen=True)
class Columns:
    """The decode of rows (B, width) into named tensors.

    Attributes:
        shapes: Shape of one row of each column, by name, in their order in the matrix.
        whole: Names of columns of integers, which are decoded to int64.
        constants: Tensors that are the same for all rows, by name.
    """

    shapes: dict[str, tuple[int, ...]]
    whole: frozenset[str] = frozenset()
    constants: dict[str, Tensor] = field(default_factory=dict)

    def __call__(self, rows: Tensor) -> Any:
        pieces = rows.split([prod(shape) for shape in self.shapes.values()], dim=-1)
        found = {}
        for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True):
            value = piece.reshape(len(rows), *shape)
            found[name] = value.long() if name in self.whole else value
        return found | {name: value.to(rows.device) for name, value in self.constants.items()}

    def with_dtype(self, dtype: torch.dtype) -> "Columns":
        """Return the same decode with constants of another floating type."""
        cast = {n: v.to(dtype) if v.is_floating_point() else v for n, v in self.constants.items()}
        return replace(self, constants=cast)


@dataclass(eq=False)
class InMemory(Dataset):
    """Columns that were passed from Python.

    Attributes:
        data: The tensors.
        batch_size: Rows in a step, or None for all.
    """

    data: Data
    batch_size: int | None = None

    def load(self) -> Data:
        return self.data


def to_tensor(name: str, value: Any) -> Tensor:
    """Return an array, tensor, list or series as a tensor of float64 or int64.

    Raises:
        DataError: For text, missing or infinite values, naming the place.
    """
    try:
        array = on_the_host(value) if isinstance(value, Tensor) else np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise DataError(f"data '{name}' is not an array of numbers ({reason(error)}).") from None
    if array.dtype.kind not in "biuf":
        raise DataError(f"data '{name}' {content(array)}.")
    if np.ma.is_masked(value):
        place = np.argwhere(np.ma.getmaskarray(np.ma.asarray(value)))[0].tolist()
        raise DataError(f"data '{name}' is masked at {place}; fill it in, or drop the row.")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        place = np.argwhere(~np.isfinite(array))[0].tolist()
        raise DataError(f"data '{name}' is {array[tuple(place)]} at {place}; fill it in, or drop the row.")
    if array.dtype.kind == "u" and array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise DataError(f"data '{name}' holds integers above 2^63; use floating numbers.")
    return torch.from_numpy(np.array(array, dtype=np.float64 if array.dtype.kind == "f" else np.int64, order="C"))


def on_the_host(value: Tensor) -> np.ndarray:
    """Return the numbers of a tensor, of any floating type; numpy has none of 16 bits with the exponent of 32."""
    return (value.double() if value.is_floating_point() else value).detach().cpu().numpy()


def reason(error: Exception) -> str:
    """Return why a value cannot be made an array."""
    text = " ".join(str(error).split())
    return "its lists differ in length" if "inhomogeneous" in text else text[:100].rstrip(".")


def content(array: np.ndarray) -> str:
    """Return what an array holds that are no numbers, and what to do."""
    if is_text(array):
        words = "dates or times" if array.dtype.kind in "Mm" else "text"
        return f"holds {words}, not numbers; encode its values as numbers first"
    if array.dtype.kind != "O":
        return f"has type {array.dtype}, not real numbers"
    place = next((place for place, v in np.ndenumerate(array) if not isinstance(v, (int, float))), ())
    found, where = array[place], f" at {list(place)}" if place else ""
    if found is None:  # which also stands among numbers
        return f"has no value{where}; fill it in, or drop the row"
    if isinstance(found, (list, tuple, np.ndarray)):
        return "is not an array of numbers (its lists differ in length)"
    return f"holds a {type(found).__name__}{where}, not a number; give an array or a list of numbers"


def text_columns(data: Any) -> list[str]:
    """Return the names of a data frame's columns of words or dates; a mapping has none, as its names were chosen."""
    return [str(name) for name in data if is_text(data[name])] if hasattr(data, "columns") else []


def is_text(value: Any) -> bool:
    """Whether a column holds words, categories in words or dates."""
    array = np.asarray(value)
    return array.dtype.kind in "USTMm" or (array.dtype.kind == "O" and any(isinstance(v, str) for v in array.flat))


def named_columns(data: Any, sparing: bool = False) -> dict[str, Tensor]:
    """Return a mapping of arrays, or a data frame without its columns of text, as tensors by name.

    Args:
        data: By name.
        sparing: Whether it may hold nothing, and arrays without elements, as the data of a Stan program may.

    Raises:
        DataError: Where it is no mapping, or holds something else than numbers.
    """
    if not isinstance(data, Mapping) and not hasattr(data, "columns"):
        raise DataError(
            f'data must be a mapping such as {{"x": x, "y": y}} or a data frame, not {type(data).__name__}.'
        )
    left_out = text_columns(data)
    found = {str(name): to_tensor(str(name), data[name]) for name in data if str(name) not in left_out}
    empty = next((name for name, value in found.items() if not value.numel()), None)
    if empty is not None and not sparing:
        raise DataError(f"data '{empty}' is empty, with shape {tuple(found[empty].shape)}.")
    if not found and not sparing:
        raise DataError("data hold nothing.")
    return found


def rows_first(columns: Mapping[str, Tensor], per_replicate: Collection[str], replicates: int) -> dict[str, Tensor]:
    """Return columns whose first axis is that of rows, the axis of replicates second where there is one.

    Args:
        columns: By name, (N, *shape); those with data of their own for each replicate (R, N, *shape).
        per_replicate: Names of the latter.
        replicates: R.

    Raises:
        DataError: For a name that is missing, or a shape that does not fit.
    """
    found = dict(columns)
    for name in per_replicate:
        if name not in found:
            raise DataError(f"per_replicate names '{name}', which the data lack.{did_you_mean(name, found)}")
        value = found[name]
        if value.dim() < 2 or len(value) != replicates:
            raise DataError(
                f"data '{name}' has shape {tuple(value.shape)}, and per_replicate needs ({replicates}, N, ...): rows "
                f"for each of replicates={replicates}."
            )
        found[name] = value.movedim(0, 1)
    return found


def number_of_points(columns: Mapping[str, Tensor]) -> int:
    """Return N, the length that most columns with an axis share, and the longer one of two that are as frequent.

    It is 1 for single numbers alone.
    """
    lengths = [len(value) for value in columns.values() if value.numel() and value.dim()] or [1]
    return max(lengths, key=lambda length: (lengths.count(length), length))


def column_data(columns: Mapping[str, Tensor], provenance: str, test: Mapping[str, Tensor] | None = None) -> Data:
    """Return the data set of named columns.

    Args:
        columns: By name, (N, *shape); a tensor of another length is a constant.
        provenance: Where the numbers come from.
        test: The same columns of held-out points.

    Raises:
        DataError: For integers too large to be exact.
    """
    count = number_of_points(columns)
    rows = {name: value for name, value in columns.items() if value.dim() and value.numel() and len(value) == count}
    constants = {name: value for name, value in columns.items() if name not in rows}
    for name, value in rows.items():
        if not value.is_floating_point() and int(value.abs().max()) > LARGEST_WHOLE[torch.float64]:
            raise DataError(f"data '{name}' holds integers above 2^53, which float64 rounds; use floating numbers.")
    whole = frozenset(name for name, value in rows.items() if not value.is_floating_point())
    decode = Columns({name: tuple(value.shape[1:]) for name, value in rows.items()}, whole, constants)
    held_out = None if test is None else held_out_rows(test, rows)
    return Data(side_by_side(rows), provenance, held_out, decode=decode)


def held_out_rows(test: Mapping[str, Tensor], rows: Mapping[str, Tensor]) -> Tensor:
    """Return columns of held-out points as one matrix.

    Raises:
        DataError: Where one is missing, or has another shape, type or length than its like among the data.
    """
    missing = [name for name in rows if name not in test]
    if missing:
        raise DataError(f"test lacks '{missing[0]}', which the data have; it needs the same names.")
    count = len(test[next(iter(rows))]) if test[next(iter(rows))].dim() else 0
    for name, like in rows.items():
        value = test[name]
        if value.dim() == 0 or len(value) != count or value.shape[1:] != like.shape[1:]:
            wanted = f"({count}, {', '.join(map(str, like.shape[1:]))})"
            raise DataError(f"test '{name}' has shape {tuple(value.shape)}, and {wanted} is needed, as in the data.")
        if value.is_floating_point() and not like.is_floating_point():
            raise DataError(f"test '{name}' holds floating numbers, and the data integers; give both one type.")
    return side_by_side({name: test[name] for name in rows})


def side_by_side(rows: Mapping[str, Tensor]) -> Tensor:
    """Return columns (N, *shape) as one matrix (N, width) in float64; of no columns one row without numbers."""
    if not rows:
        return torch.zeros(1, 0, dtype=torch.float64)
    return torch.cat([value.double().reshape(len(value), -1) for value in rows.values()], dim=1)
