"""A table from a CSV file, for models of one's own: features, a target, and what else a likelihood may need.

The data of a model are `x` (B, P), the features; `y` (B,), the target; and, where columns are named for them, `group`
(B,) as codes 0, 1, ..., `weights` (B,) and `offset` (B,). A feature whose cells are all words becomes levels: a column
of 0 and 1 for each level but the first, in alphabetical order. Every cell of a column of numbers must be a finite one.
"""

import math
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

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
        source = self._source()
        table, test, encoding = source.table, source.test, source.encoding
        found = encoding.arrays(table)
        if "weights" in found:
            column = table.column(encoding.columns["weights"], "weights")
            table.refuse_where(found["weights"] < 0, column, "a weight must not be negative")
        kept = {name: value[~test] for name, value in found.items()}
        held_out = {name: value[test] for name, value in found.items()} if bool(test.any()) else None
        notes = [*encoding.notes(self.standardize), *source.notes]
        data = column_data(kept, f"{table.path}, {int((~test).sum())} rows; {'; '.join(notes)}", held_out)
        return replace(data, features=tuple(encoding.names), left_out=tuple(source.left_out))

    def new_rows(self, path: Path) -> dict[str, Tensor]:
        encoding, table = self._source().encoding, read_table(path.expanduser().absolute(), None, least=1)
        needed = {key: name for key, name in encoding.columns.items() if key in ("group", "offset")}
        used = [table.column(name, key) for key, name in needed.items()]
        used += [table.column(feature.name, "features") for feature in encoding.features]
        row, column = next(table.missing(used), (None, 0))
        if row is not None:
            raise DataError(f"{table.place(row, column)}: {table.described(row, column)}; fill it in, or leave it out.")
        if (target := encoding.columns["target"]) in table.names:
            observed = table.column(target, "target")
            needed |= {} if any(table.missing([observed])) else {"target": target}
        return replace(encoding, columns=needed).arrays(table)

    def _source(self) -> "Source":
        """Read the file, choose the held-out rows, and learn from the others how columns become numbers."""
        table = read_table(Path(str(self.path)).expanduser().absolute(), self.num_points)
        columns = {key: table.column(name, key) for key, name in self._single().items()}
        features, left_out = self._features(table, [*columns.values()])
        require_roles(table, columns, features)
        table, dropped = self._complete(table, [*columns.values(), *features])
        test = self._test_rows(table, columns.pop("test_column", None))
        training = replace(table, rows=[row for row, held in zip(table.rows, test.tolist(), strict=True) if not held])
        encoding = Encoding(
            columns={key: table.names[column] for key, column in columns.items()},
            features=[self._encoded(training, i) for i in features],
            levels=training.levels(columns["group"]) if "group" in columns else [],
        )
        notes = [f"columns of words left out: {shortened(left_out)}"] if left_out else []
        notes += [f"{dropped} rows with missing cells dropped"] if dropped else []
        notes += [f"{int(test.sum())} rows held out"] if bool(test.any()) else []
        return Source(table, test, encoding, left_out, notes)

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
        lacking = table.missing(used)
        if self.missing == "drop":
            dropped = {row.number for row, _ in lacking}
            kept = [row for row in table.rows if row.number not in dropped]
            if len(kept) < 2:
                raise DataError(f"{table.path} has {len(kept)} rows without missing cells; at least 2 are needed.")
            return replace(table, rows=kept), len(dropped)
        for row, column in lacking:
            reason = table.described(row, column)
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

    def _encoded(self, training: "Cells", column: int) -> "Feature":
        """Return how a column of features becomes numbers."""
        name = training.names[column]
        if training.is_words(column):
            levels = training.levels(column)
            require(len(levels) > 1, f"{training.path}: all cells of feature '{name}' are {levels[0]}; leave it out.")
            return Feature(name, levels)
        if not self.standardize:
            return Feature(name)
        value = training.numbers(column)
        spread = value.std(correction=0)
        if spread <= 1e-12 * value.abs().max():
            raise DataError(
                f"{training.path}: feature '{name}' is {value[0].item():g} in all training rows, and "
                "cannot be standardized; leave it out of dataset.features."
            )
        return Feature(name, middle=value.mean().item(), spread=spread.item())


@dataclass(frozen=True)
class Feature:
    """A column that becomes one column of x, or one for each of its levels but the first.

    Attributes:
        name: Of the column.
        levels: Its words; empty for numbers.
        middle, spread: What is subtracted from numbers, and what they are then divided by.
    """

    name: str
    levels: Sequence[str] = ()
    middle: float = 0.0
    spread: float = 1.0

    @property
    def names(self) -> list[str]:
        """Names of the columns of x."""
        return [f"{self.name}={level}" for level in self.levels[1:]] or [self.name]

    def values(self, table: "Cells") -> list[Tensor]:
        """Return the columns of x, each (N,)."""
        column = table.column(self.name, "features")
        if not self.levels:
            return [(table.numbers(column) - self.middle) / self.spread]
        codes = table.codes(column, self.levels)
        return [(codes == code).double() for code in range(1, len(self.levels))]


@dataclass(frozen=True)
class Encoding:
    """How the cells of a table become the arrays that a model sees, as the training rows have it.

    Attributes:
        columns: Names of the columns that are no features, by setting.
        features: The columns of x.
        levels: Of the column `group`.
    """

    columns: dict[str, str]
    features: list[Feature]
    levels: Sequence[str]

    @property
    def names(self) -> list[str]:
        """Names of the columns of x."""
        return [name for feature in self.features for name in feature.names]

    def arrays(self, table: "Cells") -> dict[str, Tensor]:
        """Return the arrays by name; raise `DataError` for a cell that is not as those of the training rows."""
        found = {}
        if self.features:
            found["x"] = torch.stack([value for feature in self.features for value in feature.values(table)], dim=1)
        for key, name in self.columns.items():
            column = table.column(name, key)
            found["y" if key == "target" else key] = (
                table.codes(column, self.levels) if key == "group" else table.numbers(column)
            )
        return found

    def notes(self, standardized: bool) -> list[str]:
        """Return what the provenance says of the columns."""
        own = {key: f"{'y' if key == 'target' else key}: {name}" for key, name in self.columns.items()}
        if "group" in own:
            own["group"] += f", {len(self.levels)} levels, {shortened(self.levels)}"
        x = [f"x: {shortened(self.names)}{', standardized' if standardized else ''}"] if self.features else []
        return [*x, *own.values()]


class Source(NamedTuple):
    """What `TableFile` has read.

    Attributes:
        table: The rows that are used, with those that are held out.
        test: Which are held out, (N,) booleans.
        encoding: Of the columns.
        left_out: Names of columns of words that are no features.
        notes: What the provenance says of the rows.
    """

    table: "Cells"
    test: Tensor
    encoding: Encoding
    left_out: list[str]
    notes: list[str]


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

    def levels(self, column: int) -> list[str]:
        """Return the levels of a column: in order as numbers or words."""
        cells = {row.cells[column].strip() for row in self.rows}
        numeric = all(map(is_number, cells))
        return sorted(cells, key=(lambda cell: (float(cell), cell)) if numeric else (lambda cell: (0.0, cell)))

    def codes(self, column: int, levels: Sequence[str]) -> Tensor:
        """Return the place of each cell among the levels, (N,) int64; raise `DataError` for one that is not there."""
        place = {level: code for code, level in enumerate(levels)}
        for row in self.rows:
            if row.cells[column].strip() not in place:
                raise DataError(
                    f"{self.place(row, column)}: no training row has '{row.cells[column].strip()}', of which the fit "
                    f"has learnt nothing; they have {shortened(levels)}. Leave the row out, or choose other held-out "
                    "rows with dataset.seed or dataset.test_column."
                )
        return torch.tensor([place[row.cells[column].strip()] for row in self.rows])

    def missing(self, columns: Sequence[int]) -> Iterator[tuple[Row, int]]:
        """Yield each row that has a missing cell in one of the columns, and the first such column."""
        for row in self.rows:
            column = next((i for i in columns if is_missing(row.cells[i])), None)
            if column is not None:
                yield row, column

    def described(self, row: Row, column: int) -> str:
        """Return what a missing cell holds, for messages."""
        found = row.cells[column].strip()
        return f"'{found}' is missing" if found else "the cell is empty"

    def refuse_where(self, wrong: Tensor, column: int, reason: str) -> None:
        """Raise `DataError` for the first row where `wrong` (N,) holds."""
        if bool(wrong.any()):
            row = self.rows[int(wrong.nonzero()[0])]
            raise DataError(f"{self.place(row, column)}: '{row.cells[column].strip()}': {reason}.")


def read_table(path: Path, num_points: int | None, least: int = 2) -> Cells:
    """Return the rows of a CSV file, at least `least`, which may be compressed by gzip.

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
    if len(table) < least:
        count = "only 1 row" if table else "no row"
        raise DataError(
            f"{path} has {count} below its column names; at least {least} {'are' if least > 1 else 'is'} needed."
        )
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


def shortened(names: Sequence[str]) -> str:
    """Return names in a line, the first ones of many."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
