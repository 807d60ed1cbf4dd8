"""Rows of the league: one for each replicate of each fit, in a CSV file that grows while the league runs."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from vi_core.errors import DataError
from vi_core.storage.files import replacing
from vi_core.storage.reading import damaged, read_text

Key = tuple[str, str, int]  # posterior, method, seed


@dataclass(frozen=True)
class Row:
    """One fit beside its reference.

    Attributes:
        posterior, method, seed, replicate: What was fitted, and how.
        status: `fitted`, or why there is no fit, in one line.
        elbo: Of q, in nats.
        mean_error, sd_low, sd_high, energy: As in `Score`.
        good: Whether q is within the limits.
        trust: The verdict: good, corrected or poor.
        corrected_good: Whether the moments corrected by importance sampling are within the limits.
        k_hat, kl_gap, ess, shift, stretch: What the verdict read.
        gradients: Gradient evaluations of the replicate, those of its start included.
        seconds: Of the fit, over its replicates.
    """

    posterior: str
    method: str
    seed: int
    replicate: int
    status: str
    elbo: float = float("nan")
    mean_error: float = float("nan")
    sd_low: float = float("nan")
    sd_high: float = float("nan")
    energy: float = float("nan")
    good: bool = False
    trust: str = "poor"
    corrected_good: bool = False
    k_hat: float = float("nan")
    kl_gap: float = float("nan")
    ess: float = float("nan")
    shift: float = float("nan")
    stretch: float = float("nan")
    gradients: int = 0
    seconds: float = 0.0

    @property
    def key(self) -> Key:
        """Of the fit that the row belongs to."""
        return self.posterior, self.method, self.seed

    @property
    def fitted(self) -> bool:
        """Whether there is a q."""
        return self.status == FITTED


FITTED = "fitted"
COLUMNS = tuple(column.name for column in fields(Row))
PARSE = {"int": int, "float": float, "str": str, "bool": lambda text: {"True": True, "False": False}[text]}


def write_rows(rows: Iterable[Row], path: Path) -> None:
    """Write all rows, complete or not at all."""
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    for row in rows:
        table.writerow({name: f"{v:.6g}" if isinstance(v, float) else v for name, v in asdict(row).items()})
    with replacing(path) as unfinished:
        unfinished.write_text(text.getvalue(), encoding="utf-8")


def read_rows(path: Path) -> list[Row]:
    """Return what `write_rows` wrote; `DataError` in one line for another content."""
    types = {column.name: PARSE[str(getattr(column.type, "__name__", column.type))] for column in fields(Row)}
    reader = csv.DictReader(io.StringIO(read_text(path)))
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise damaged(path, "it has other columns")
    try:
        return [Row(**{name: types[name](record[name]) for name in COLUMNS}) for record in reader]
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path} is no table of the league, or it is damaged ({error!r}).") from error


@dataclass(frozen=True)
class Share:
    """Fits of one method.

    Attributes:
        fits: How many were tried.
        good: How many are within the limits.
        trusted_good, trusted_bad, corrected_good, corrected_bad, refused_good, refused_bad: Counts by verdict. Those of
            `corrected` are judged by the corrected moments, the others by q's.
    """

    fits: int
    good: int
    trusted_good: int
    trusted_bad: int
    corrected_good: int
    corrected_bad: int
    refused_good: int
    refused_bad: int


def share(rows: Sequence[Row]) -> Share:
    """Count rows by verdict and by truth."""
    trusted, corrected, refused = ([row for row in rows if row.trust == kind] for kind in ("good", "corrected", "poor"))
    mended = sum(row.corrected_good for row in corrected)
    sound = [sum(row.good for row in group) for group in (trusted, refused)]
    return Share(
        len(rows),
        sum(row.good for row in rows),
        sound[0],
        len(trusted) - sound[0],
        mended,
        len(corrected) - mended,
        sound[1],
        len(refused) - sound[1],
    )
