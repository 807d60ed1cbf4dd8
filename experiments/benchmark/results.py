"""Rows of the benchmark: their file, their table, and what follows from them."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from vi_core.errors import DataError
from vi_core.storage.reading import read_text

from ..results.files import csv_text, write_text

OURS = "ours"
LARGEST = 1e15  # of the numbers in a table


@dataclass(frozen=True)
class Row:
    """What was measured of one contender at one problem; fields without a number are None.

    `compile_s` is the first call, which compiles where there is something to compile; the statistics are over
    repetitions, in `unit`. `at` is the abscissa of a curve, and `threads` is None where the program chooses.
    """

    problem: str
    contender: str
    mode: str
    at: float | None
    status: str
    startup_s: float | None
    compile_s: float | None
    median: float | None
    q1: float | None
    q3: float | None
    min: float | None
    unit: str
    threads: int | None
    repetitions: int
    note: str


NUMBERS = {"at", "startup_s", "compile_s", "median", "q1", "q3", "min"}
COLUMNS = tuple(column.name for column in fields(Row))


def write_rows(rows: Iterable[Row], path: Path) -> None:
    """Write benchmark.csv: six digits, empty where there is no number."""
    cells = [["" if v is None else f"{v:.6g}" if isinstance(v, float) else v for v in astuple(row)] for row in rows]
    write_text(path, csv_text([COLUMNS, *cells]))


def read_rows(path: Path) -> list[Row]:
    """Read what `write_rows` wrote, or raise `DataError` in one line."""
    text = read_text(path)
    try:
        table = list(csv.reader(io.StringIO(text), strict=True))
        if not table or tuple(table[0]) != COLUMNS:
            raise ValueError("its columns are others")
        rows = [parse(cells) for cells in table[1:]]
        check_problems(rows)
    except (csv.Error, ValueError) as error:
        raise DataError(f"{path} is not the table of a benchmark, or it is damaged ({error}).") from error
    return rows


def parse(cells: Sequence[str]) -> Row:
    """Return the row of one line; raise `ValueError` where it is not one that `write_rows` writes."""
    record = dict(zip(COLUMNS, cells, strict=True))
    numbers = {name: amount(record[name]) if record[name] else None for name in NUMBERS}
    threads = int(record["threads"]) if record["threads"] else None
    words = {name: record[name] for name in ("problem", "contender", "mode", "status", "unit", "note")}
    row = Row(**words, **numbers, threads=threads, repetitions=int(record["repetitions"]))  # type: ignore[arg-type]
    statistics = [row.min, row.q1, row.median, row.q3]
    found = [value for value in statistics if value is not None]
    if len(found) not in (0, len(statistics)) or found != sorted(found) or 0.0 in found or row.at == 0:
        raise ValueError(f"the numbers of {label(row)} at {row.problem} are not times with quartiles")
    return row


def amount(text: str) -> float:
    """Return a number from 0 to `LARGEST`."""
    value = float(text)
    if not 0 <= value <= LARGEST:
        raise ValueError(f"{text[:40]} is no number from 0 to {LARGEST:g}")
    return value


def check_problems(rows: Iterable[Row]) -> None:
    """Raise `ValueError` unless the rows of a problem have one unit, and are all of a curve or none."""
    kinds = {row.problem: (row.unit, row.at is None) for row in rows}
    for row in rows:
        if kinds[row.problem] != (row.unit, row.at is None):
            raise ValueError(f"the rows of {row.problem} have several units, or places of a curve in some alone")


def label(row: Row) -> str:
    """Return how a contender is called in tables and figures."""
    return f"{row.contender} ({row.mode})" if row.mode else row.contender


def quantities(rows: Sequence[Row]) -> dict[str, float]:
    """Return what targets are about, by name, as far as it was measured.

    `time.<problem>.<contender>`: its median, for `ours` that of its fastest mode;
    `ratio.<problem>.<contender>`: that of the contender over that of ours;
    `ratio_bfloat16.<problem>.<contender>`: the same with bfloat16 products;
    `flat.<curve>`: the largest median of ours over the smallest, in the mode where that is largest.
    """
    found: dict[str, float] = {}
    for problem in dict.fromkeys(row.problem for row in rows):
        timed = [row for row in rows if row.problem == problem and row.median is not None]
        if any(row.at is not None for row in timed):
            found |= _flatness(problem, timed)
            continue
        times: dict[str, float] = {}
        for row in timed:
            times[row.contender] = min(row.median or 0.0, times.get(row.contender, float("inf")))
        found |= {f"time.{problem}.{name}": value for name, value in times.items()}
        for own, prefix in ((OURS, "ratio"), (f"{OURS}_bfloat16", "ratio_bfloat16")):
            others = {name: value for name, value in times.items() if not name.startswith(OURS)}
            if own in times:
                found |= {f"{prefix}.{problem}.{name}": value / times[own] for name, value in others.items()}
    return found


def _flatness(problem: str, timed: Sequence[Row]) -> dict[str, float]:
    medians: dict[str, list[float]] = {}
    for row in timed:
        if row.contender == OURS and row.median is not None:
            medians.setdefault(row.mode, []).append(row.median)
    spreads = [max(values) / min(values) for values in medians.values() if len(values) > 1]
    return {f"flat.{problem}": max(spreads)} if spreads else {}
