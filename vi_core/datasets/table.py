"""A table from a CSV file, for models of one's own: features, a target, and what else a likelihood may need.

The data of a model are `x` (B, P), the features; `y` (B,), the target; and, where columns are named for them, `group`
(B,) as codes 0, 1, ..., `weights` (B,) and `offset` (B,). A feature whose cells are all words becomes levels: a column
of 0 and 1 for each level but the first, in alphabetical order. Every cell of a column of numbers must be a finite one.
"""

import math
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from vi_core.datasets.base import Data, Dataset
from vi_core.datasets.columns import column_data
from vi_core.datasets.csv import Name, Row, find_column, is_number, open_table, opened
from vi_core.errors import ConfigError, DataError, require

MISSING = {"", "na", "n/a", "nan", "null"}  # cells without a value, in small letters
ODD_NUMBER = re.compile(
    r"[-+\u2212]?[$\u20ac\u00a3]?\s?([0-9]{1,3}([,.' \u00a0][0-9]{3})+|[0-9]+)([.,][0-9]+)?\s?[%$\u20ac\u00a3]?"
)
"""A number as people write it: with a decimal comma, marks between thousands, a percent or a currency sign."""
SHOWN = 12  # levels and names that the provenance lists


@dataclass(kw_only=True, eq=False)
class TableFile(Dataset):
    """The columns of a table in a CSV file that a model needs, by name.

    Attributes:
        path: The file, with one line of column names; compressed where it ends in .gz.
        target: Column of y, the numbers that the likelihood describes.
        features: Columns of x; None for all others that hold numbers, and [] for none.
        group: Column of levels, words or numbers, of which the model sees codes.
        weights: Column that says how often a row counts.
        offset: Column of known terms, which the model adds to its predictor.
        standardize: Whether features of numbers are scaled to mean 0 and deviation 1 over the training rows.
        missing: What to do about rows with a missing cell (empty, NA, NaN, null): `refuse` or `drop` them.
        test_fraction: Share of the rows that is held out, or None.
        seed: Of the choice of these rows.
        test_column: Column that is 1 in held-out rows and 0 in others, or None.
        num_points: Only the first rows, or None for all.
        batch_size: Rows in a step, or None for all.

    Raises:
        ConfigError: Where path or target are missing, or one column is to be two things.
    """

    path: str | None = None
    target: Name | None = None
    features: list[Name] | None = None
    group: Name | None = None
    weights: Name | None = None
    offset: Name | None = None
    standardize: bool = False
    missing: Literal["refuse", "drop"] = "refuse"
    test_fraction: float | None = None
    seed: int = 0
    test_column: Name | None = None
    num_points: int | None = None
    batch_size: int | None = None

    def __post_init__(self) -> None:
        message = (
            "dataset=table needs a file and the column to be described: dataset.path=<file.csv> dataset.target=<name>."
        )
        require(bool(self.path) and self.target not in (None, ""), message)
        super().__post_init__()
        fraction = self.test_fraction
        require(fraction is None or 0 < fraction < 1, f"dataset.test_fraction={fraction} must lie between 0 and 1.")
        require(
            fraction is None or self.test_column is None,
            "dataset.test_fraction and dataset.test_column both choose the held-out rows; set one of them.",
        )

    def _single(self) -> dict[str, Name]:
        """Return the names of the columns, by setting, that are no features."""
        names = {key: getattr(self, key) for key in ("target", "group", "weights", "offset", "test_column")}
        return {key: name for key, name in names.items() if name is not None}

    def load(self) -> Data:
        """Read the columns; x and y are float64, and group is int64."""
        path = Path(str(self.path)).expanduser().absolute()
        table = read_table(path, self.num_points)
        columns = {key: table.column(name, key) for key, name in self._single().items()}
        features, left_out = self._features(table, [*columns.values()])
        require_roles(table, columns, features)
        table, dropped = self._complete(table, [*columns.values(), *features])
        test = self._test_rows(table, columns.get("test_column"))
        found, notes, names = {}, [], []
        if features:
            found["x"], names = self._matrix(table, features, test)
            notes.append(f"x: {shortened(names)}{', standardized' if self.standardize else ''}")
        found["y"] = table.numbers(columns["target"])
        notes.append(f"y: {table.names[columns['target']]}")
        if "group" in columns:
            found["group"], levels = table.codes(columns["group"])
            refuse_unseen(table, columns["group"], found["group"], levels, test)
            notes.append(f"group: {table.names[columns['group']]}, {len(levels)} levels, {shortened(levels)}")
        for key in ("weights", "offset"):
            if key in columns:
                found[key] = table.numbers(columns[key])
                notes.append(f"{key}: {table.names[columns[key]]}")
        if "weights" in columns:
            table.refuse_where(found["weights"] < 0, columns["weights"], "a weight must not be negative")
        notes += [f"columns of words left out: {shortened(left_out)}"] if left_out else []
        notes += [f"{dropped} rows with missing cells dropped"] if dropped else []
        notes += [f"{int(test.sum())} rows held out"] if bool(test.any()) else []
        kept = {name: value[~test] for name, value in found.items()}
        held_out = {name: value[test] for name, value in found.items()} if bool(test.any()) else None
        data = column_data(kept, f"{path}, {int((~test).sum())} rows; {'; '.join(notes)}", held_out)
        return replace(data, features=tuple(names), left_out=tuple(left_out))

    def _features(self, table: "Cells", used: list[int]) -> tuple[list[int], list[str]]:
        """Return the columns of the features, and the names of columns of words that null leaves out."""
        if self.features is not None:
            return [table.column(name, "features") for name in self.features], []
        others = [i for i in range(len(table.names)) if i not in used]
        table.refuse_unnamed(others)
        words = [i for i in others if table.is_words(i)]
        for i in words:
            table.refuse_odd_numbers(i)
        return [i for i in others if i not in words], [table.names[i] for i in words]

    def _complete(self, table: "Cells", used: list[int]) -> tuple["Cells", int]:
        """Return the rows without missing cells in the columns that are used, and how many others there were."""
        lacking = [next((i for i in used if is_missing(row.cells[i])), None) for row in table.rows]
        if self.missing == "drop":
            kept = [row for row, column in zip(table.rows, lacking, strict=True) if column is None]
            if len(kept) < 2:
                raise DataError(f"{table.path} has {len(kept)} rows without missing cells; at least 2 are needed.")
            return replace(table, rows=kept), len(table.rows) - len(kept)
        for row, column in zip(table.rows, lacking, strict=True):
            if column is not None:
                reason = (
                    "the cell is empty"
                    if not row.cells[column].strip()
                    else f"'{row.cells[column].strip()}' is missing"
                )
                raise DataError(f"{table.place(row, column)}: {reason}; fill it in, or use dataset.missing=drop.")
        return table, 0

    def _test_rows(self, table: "Cells", column: int | None) -> Tensor:
        """Return which rows are held out, (N,) booleans."""
        count = len(table.rows)
        test = torch.zeros(count, dtype=torch.bool)
        if column is not None:
            flags = table.numbers(column)
            table.refuse_where((flags != 0) & (flags != 1), column, "it must be 1 in held-out rows and 0 in others")
            test = flags == 1
        elif self.test_fraction is not None:
            order = torch.randperm(count, generator=torch.Generator().manual_seed(self.seed))
            test[order[: round(self.test_fraction * count)]] = True
        chosen = int(test.sum())
        if (column is not None or self.test_fraction is not None) and not 1 <= chosen <= count - 2:
            setting = "test_column" if column is not None else "test_fraction"
            raise DataError(
                f"dataset.{setting} holds out {chosen} of {count} rows of {table.path}; at least 1 must be held out, "
                "and at least 2 kept."
            )
        return test

    def _matrix(self, table: "Cells", features: Sequence[int], test: Tensor) -> tuple[Tensor, list[str]]:
        """Return the features (N, P) with their names."""
        columns, names = [], []
        for i in features:
            if table.is_words(i):
                codes, levels = table.codes(i)
                refuse_unseen(table, i, codes, levels, test)
                require(
                    len(levels) > 1,
                    f"{table.path}: all cells of feature '{table.names[i]}' are {levels[0]}; leave it out.",
                )
                columns += [(codes == code).double() for code in range(1, len(levels))]
                names += [f"{table.names[i]}={level}" for level in levels[1:]]
            else:
                value = table.numbers(i)
                columns.append(self._standardized(value, value[~test], table, i) if self.standardize else value)
                names.append(table.names[i])
        return torch.stack(columns, dim=1), names

    def _standardized(self, value: Tensor, training: Tensor, table: "Cells", column: int) -> Tensor:
        spread = training.std(correction=0)
        if spread <= 1e-12 * training.abs().max():
            raise DataError(
                f"{table.path}: feature '{table.names[column]}' is {training[0].item():g} in all training rows, and "
                "cannot be standardized; leave it out of dataset.features."
            )
        return (value - training.mean()) / spread


@dataclass(frozen=True)
class Cells:
    """The rows of a table as text.

    Attributes:
        path: The file.
        names: Of its columns.
        rows: Below the names.
    """

    path: Path
    names: list[str]
    rows: list[Row]

    def column(self, name: Name, setting: str) -> int:
        """Return the index of a column; `setting` is the key of the data set that names it."""
        return find_column(name, self.names, self.path, setting)

    def place(self, row: Row, column: int) -> str:
        """Return where a cell is, for messages."""
        return f"{self.path}, row {row.number} (line {row.line}), column '{self.names[column]}'"

    def is_words(self, column: int) -> bool:
        """Whether a column has values, and none of them is a number."""
        cells = [row.cells[column] for row in self.rows if not is_missing(row.cells[column])]
        return bool(cells) and not any(map(is_number, cells))

    def refuse_unnamed(self, columns: Sequence[int]) -> None:
        """Raise `DataError` where one of several columns cannot be told from others by its name."""
        for i in columns:
            if not self.names[i]:
                raise DataError(
                    f"{self.path}: column {i + 1} has no name, as the row numbers of data frames have none, or after a "
                    "comma at the end; name it, or choose columns with dataset.features=[<name>,...]."
                )
            if self.names.count(self.names[i]) > 1:
                count = self.names.count(self.names[i])
                raise DataError(f"{self.path} has {count} columns called '{self.names[i]}'; rename all but one.")

    def refuse_odd_numbers(self, column: int) -> None:
        """Raise `DataError` where cells hold numbers with decimal commas, thousands or signs, and no words."""
        for row in self.rows:
            cell = row.cells[column].strip()
            if ODD_NUMBER.fullmatch(cell):
                raise DataError(
                    f"{self.place(row, column)}: '{cell}' is not a number; write decimal points, no commas and no "
                    "signs, or leave the column out with dataset.features=[<name>,...]."
                )

    def numbers(self, column: int) -> Tensor:
        """Return the numbers of a column, (N,); raise `DataError` for the first cell that is no finite number."""
        return torch.tensor([self._number(row, column) for row in self.rows], dtype=torch.float64)

    def _number(self, row: Row, column: int) -> float:
        value = float(row.cells[column]) if is_number(row.cells[column]) else math.nan
        if math.isfinite(value):
            return value
        found = row.cells[column].strip()[:40]
        raise DataError(f"{self.place(row, column)}: '{found}' is not a finite number; correct it or remove the row.")

    def codes(self, column: int) -> tuple[Tensor, list[str]]:
        """Return the place of each cell among the levels, (N,) int64, and the levels: in order as numbers or words."""
        cells = [row.cells[column].strip() for row in self.rows]
        numeric = all(map(is_number, cells))
        levels = sorted(set(cells), key=(lambda cell: (float(cell), cell)) if numeric else (lambda cell: (0.0, cell)))
        place = {level: code for code, level in enumerate(levels)}
        return torch.tensor([place[cell] for cell in cells]), levels

    def refuse_where(self, wrong: Tensor, column: int, reason: str) -> None:
        """Raise `DataError` for the first row where `wrong` (N,) holds."""
        if bool(wrong.any()):
            row = self.rows[int(wrong.nonzero()[0])]
            raise DataError(f"{self.place(row, column)}: '{row.cells[column].strip()}': {reason}.")


def read_table(path: Path, num_points: int | None) -> Cells:
    """Return the rows of a CSV file, which may be compressed by gzip.

    Raises:
        DataError: In one line, for whatever is wrong with the file.
        ConfigError: Where it has fewer rows than `num_points`.
    """
    with opened(path) as file:
        try:
            names, rows = open_table(file, path)
            table = list(islice(rows, num_points))
        except (EOFError, zlib.error) as error:
            raise DataError(f"{path} is not a whole gzip file ({error}).") from error
    if len(table) < 2:
        count = "only 1 row" if table else "no row"
        raise DataError(f"{path} has {count} below its column names; at least 2 are needed.")
    require(
        num_points is None or len(table) == num_points,
        f"dataset.num_points={num_points} must be at most {len(table)}, the number of rows of {path}.",
    )
    if all(map(is_number, names)):
        raise DataError(f"{path} starts with numbers; its first line must name the columns.")
    return Cells(path, names, table)


def is_missing(cell: str) -> bool:
    """Whether a cell has no value."""
    return cell.strip().lower() in MISSING


def require_roles(table: Cells, columns: Mapping[str, int], features: Sequence[int]) -> None:
    """Raise `ConfigError` where a feature is named twice, or the target is something else too.

    Args:
        table: Whose columns they are.
        columns: By setting, those that are no features.
        features: The columns of x.
    """
    target, names = columns["target"], table.names
    twice = next((names[i] for i in features if features.count(i) > 1), None)
    require(twice is None, f"dataset.features names '{twice}' twice; leave one out.")
    name = names[target]
    message = f"dataset.features holds the target '{name}', which would predict itself; leave it out."
    require(target not in features, message)
    for key in (key for key, column in columns.items() if column == target and key != "target"):
        raise ConfigError(f"dataset.{key}={name} is the target; name another column, or null.")


def refuse_unseen(table: Cells, column: int, codes: Tensor, levels: list[str], test: Tensor) -> None:
    """Raise `DataError` for a level that only held-out rows have, of which a fit learns nothing."""
    unseen = sorted(set(codes[test].tolist()) - set(codes[~test].tolist()))
    if unseen:
        row = table.rows[int((codes == unseen[0]).nonzero()[0])]
        raise DataError(
            f"{table.place(row, column)}: '{levels[unseen[0]]}' is in held-out rows alone; choose others with "
            "dataset.seed, or with dataset.test_column."
        )


def shortened(names: Sequence[str]) -> str:
    """Return names in a line, the first ones of many."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
