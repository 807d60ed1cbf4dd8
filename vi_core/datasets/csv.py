"""Columns of numbers from a CSV file: the data sets `csv` and `catalogue`, and their reader.

The file is UTF-8 text, comma separated, with one line of column names. Everything that is not a finite number in its
place is refused with its row and column: a value that is silently dropped or filled changes the posterior. Rows are
counted from 1 below the names, lines from 1 at the top of the file, as editors do.
"""

import contextlib
import csv
import gzip
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TextIO, cast

import torch

from vi_core.datasets.base import Data, Dataset
from vi_core.errors import DataError, did_you_mean, require

Name = str | float | bool  # of a column, as YAML and the command line read it: `1e3` is 1000.0, `true` is True
WORDS = {"yes": True, "on": True, "no": False, "off": False}  # that YAML reads as booleans too, in small letters
NUMBER = re.compile(r"[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|inf(inity)?|nan)", re.IGNORECASE)


@dataclass(kw_only=True, eq=False)
class CSV(Dataset):
    """The numbers in one column of a CSV file.

    Attributes:
        path: The file, with one line of column names.
        column: Name of the column, also where YAML reads it as a number or a boolean; None for the only numeric one.
        num_points: Only the first rows, or None for all.
        batch_size: Rows in a step, or None for all.

    Raises:
        ConfigError: Where no path is given.
    """

    path: str | None = None
    column: Name | None = None
    num_points: int | None = None
    batch_size: int | None = None

    def __post_init__(self) -> None:
        message = "dataset=csv needs a file: dataset.path=<file.csv>, and dataset.column=<name> in it."
        require(bool(self.path), message)
        super().__post_init__()

    def load(self) -> Data:
        """Read the column; train has shape (N,) and type float64."""
        path = Path(str(self.path)).expanduser().absolute()
        column, numbers = read_column(path, self.column, self.num_points)
        return Data(torch.tensor(numbers, dtype=torch.float64), f"column '{column}' of {path}, {len(numbers)} rows")


class Row(NamedTuple):
    """One row of a table.

    Attributes:
        number: From 1, below the column names.
        line: Number of its last line in the file, from 1.
        cells: The text of each cell.
    """

    number: int
    line: int
    cells: list[str]


def read_column(path: Path, column: Name | None, num_points: int | None) -> tuple[str, list[float]]:
    """Return name and numbers of the chosen column, or of the only numeric one, in the first `num_points` rows.

    Raises:
        DataError: In one line with file, row and column, for whatever is wrong with the file.
    """
    with opened(path) as file:
        names, rows = open_table(file, path)
        index = find_column(column, names, path) if column is not None else only_numeric(names, rows, path, num_points)
    ((name, numbers),) = read_columns(path, {"column": names[index]}, num_points)
    return name, numbers


def read_columns(path: Path, columns: Mapping[str, Name], num_points: int | None) -> list[tuple[str, list[float]]]:
    """Return name and numbers of several columns, N floats for each.

    Args:
        path: The file.
        columns: Setting of the data set (for messages) -> name of a column.
        num_points: How many rows are read; None for all.

    Raises:
        DataError: Where the file or a cell of these columns is not as it should be.
        ConfigError: Where the file has fewer rows than `num_points`.
    """
    with opened(path) as file:
        names, rows = open_table(file, path)
        indices = [find_column(name, names, path, setting) for setting, name in columns.items()]
        table = [[number(row, i, names[i], path) for i in indices] for row in islice(rows, num_points)]
    if not table:
        raise DataError(f"{path} has no row below its column names; at least 1 is needed.")
    require(
        num_points is None or len(table) == num_points,
        f"dataset.num_points={num_points} must be at most {len(table)}, the number of rows of {path}.",
    )
    return [(names[i], list(numbers)) for i, numbers in zip(indices, zip(*table, strict=True), strict=True)]


@contextlib.contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """Context manager: opens a regular file, which is read twice; one whose name ends in .gz is unpacked.

    Errors of the operating system, the text encoding and the CSV reader become a `DataError`.
    """
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise DataError(f"{path} is a pipe or a device; save its content in a file, and name that.")
        reader = gzip.open if path.suffix == ".gz" else open
        with reader(path, "rt", encoding="utf-8-sig", newline="") as file:
            yield cast(TextIO, file)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reasons = {
            FileNotFoundError: "does not exist; name another file with dataset.path=<file.csv>.",
            IsADirectoryError: "is a folder; name a file in it with dataset.path=<file.csv>.",
            UnicodeDecodeError: "is not UTF-8 text; save it as comma-separated UTF-8.",
            csv.Error: f"is not a valid CSV file: {error}.",
        }
        reason = reasons.get(type(error)) or f"cannot be read: {getattr(error, 'strerror', error)}."
        raise DataError(f"{path} {reason}") from None


def open_table(file: TextIO, path: Path) -> tuple[list[str], Iterator[Row]]:
    """Return the column names of an open CSV file, and an iterator over the rows below them."""
    reader = csv.reader(file, skipinitialspace=True, strict=True)
    names = next((cells for cells in reader if cells), None)
    if names is None:
        raise DataError(f"{path} is empty; it must hold a line of column names, then the numbers.")
    separator = next((mark for mark in (";", "\t") if len(names) == 1 and mark in names[0]), None)
    if separator is not None:
        shown = "tabs" if separator == "\t" else "semicolons"
        raise DataError(f"{path} is separated by {shown}; save it comma-separated, with decimal points.")
    rows = (Row(i, reader.line_num, cells) for i, cells in enumerate(reader, start=1))
    return [name.strip() for name in names], full_rows(rows, len(names), path)


def full_rows(rows: Iterator[Row], width: int, path: Path) -> Iterator[Row]:
    """Yield the rows that have cells, after checking that each has `width`; blank lines may stand only at the end."""
    blank = None
    for row in rows:
        if blank is not None and row.cells:
            raise DataError(f"{path}, row {blank.number} (line {blank.line}) is blank; remove it, or fill it in.")
        if not row.cells:
            blank = blank or row
        elif len(row.cells) == width:
            yield row
        else:
            where = f"{path}, row {row.number} (line {row.line})"
            raise DataError(f"{where} has {len(row.cells)} cells where the first line names {width} columns.")


def find_column(column: Name, names: list[str], path: Path, setting: str = "column") -> int:
    """Return the index of the column called `column`, or whose name YAML reads as that number or boolean.

    `setting` is the key of the data set that names the column.
    """
    if not isinstance(column, str):
        alike = [name for name in names if reads_as(name, column)]
        alike = alike or [name for name in names if WORDS.get(name.lower()) is column]
        if len(set(alike)) > 1:
            quoted = f'["{alike[0]}"]' if setting == "features" else f'"{alike[0]}"'
            words = f"put the name in double quotes inside single ones: dataset.{setting}='{quoted}'"
            raise DataError(f"{path} has columns {', '.join(alike)}; {words}.")
        column = alike[0] if alike else str(column)
    if names.count(column) == 1:
        return names.index(column)
    if column in names:
        raise DataError(f"{path} has {names.count(column)} columns called '{column}'; rename all but one.")
    hint = did_you_mean(column, names)
    raise DataError(f"dataset.{setting}={column} is not in {path}, which has {', '.join(names)}.{hint}")


def reads_as(name: str, value: float | bool) -> bool:
    """Whether YAML or the command line makes `value` of a column's name."""
    if isinstance(value, bool):
        return name.lower() == str(value).lower()
    try:
        number = float(name)
    except ValueError:
        return False
    return number == value or (math.isnan(number) and math.isnan(value))


def only_numeric(names: list[str], rows: Iterator[Row], path: Path, num_points: int | None) -> int:
    """Return the index of the only column that holds numbers and no words, as soon as the others are ruled out.

    Empty cells of that column, and words further down, are refused later, when `number` reads them.
    """
    if all(is_number(name) for name in names):
        raise DataError(f"{path} starts with numbers; its first line must name the columns.")
    if len(names) == 1:
        return 0
    numeric = empty = list(range(len(names)))
    for row in islice(rows, num_points):
        empty = [i for i in empty if not row.cells[i].strip()]
        numeric = [i for i in numeric if is_number(row.cells[i]) or not row.cells[i].strip()]
        if len(numeric) == 1:
            return numeric[0]
    numeric = [i for i in numeric if i not in empty]
    if len(numeric) == 1:
        return numeric[0]
    if not numeric:
        raise DataError(f"{path} has no numeric column among {', '.join(names)}.")
    found = ", ".join(names[i] for i in numeric)
    raise DataError(f"{path} has several numeric columns; choose one with dataset.column=<name>: {found}.")


def is_number(cell: str) -> bool:
    """Whether the cell is a decimal number in ASCII digits, or a word for an infinity or for NaN."""
    return NUMBER.fullmatch(cell.strip()) is not None


def number(row: Row, index: int, column: str, path: Path) -> float:
    """Return the finite number in one cell, or raise `DataError` with its row, line and column."""
    cell = row.cells[index]
    value = float(cell) if is_number(cell) else math.nan
    if math.isfinite(value):
        return value
    where = f"{path}, row {row.number} (line {row.line}), column '{column}'"
    found = f"'{cell.strip()[:40]}' is not a finite number" if cell.strip() else "the cell is empty"
    raise DataError(f"{where}: {found}; correct it or remove the row.")


@dataclass(kw_only=True, eq=False)
class Catalogue(Dataset):
    """A catalogue of events with a place and a strength: three columns of a CSV file.

    Coordinates are used as they are: a degree of longitude counts like a degree of latitude, with no projection. The
    strength is a count, such as the number of stations that reported an event.

    Attributes:
        path: The file, with one line of column names.
        horizontal, vertical: Columns of the coordinates.
        strength: Column of counts 0, 1, 2, ...
        unit: Unit of both coordinates, for the axes of figures.
        num_points: Only the first rows, or None for all.
        batch_size: Rows in a step, or None for all.

    Raises:
        ConfigError: Where no path is given.
    """

    path: str | None = None
    horizontal: Name = "long"
    vertical: Name = "lat"
    strength: Name = "stations"
    unit: str = "degrees"
    num_points: int | None = None
    batch_size: int | None = None

    def __post_init__(self) -> None:
        require(bool(self.path), "dataset=catalogue needs a file of events: dataset.path=<file.csv>.")
        super().__post_init__()

    def load(self) -> Data:
        """Read the columns; train has shape (N, 3) and type float64."""
        path = Path(str(self.path)).expanduser().absolute()
        chosen = {name: getattr(self, name) for name in ("horizontal", "vertical", "strength")}
        names, columns = zip(*read_columns(path, chosen, self.num_points), strict=True)
        horizontal, vertical, strength = names
        for row, value in enumerate(columns[2], start=1):
            if value < 0 or value != int(value):
                raise DataError(
                    f"{path}, row {row}, column '{strength}': {value:g} is no count 0, 1, 2, ...; "
                    "name a column of counts with dataset.strength=<name>."
                )
        return Data(
            train=torch.tensor(columns, dtype=torch.float64).T.contiguous(),
            provenance=f"columns {', '.join(names)} of {path}, {len(columns[0])} rows",
            columns=(f"{horizontal} ({self.unit})", f"{vertical} ({self.unit})", strength),
        )
