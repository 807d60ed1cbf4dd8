"""The history of a run: what it recorded over its steps, on the host, and its file trace.csv."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vi_core.errors import DataError
from vi_core.storage.files import replacing
from vi_core.storage.reading import MOST_BYTES, regular_file

INDEX = ("step", "replicate")


SHOWN, SHOWN_EACH = 6, 8  # columns, and replicates in a line, that `repr` shows


@dataclass(frozen=True, repr=False)
class History:
    """Rows of a run: T intervals of R replicates.

    Attributes:
        bound: The name of the bound's column.
        step: (T,) last step of each interval.
        seconds: (T,) since the start of the loop.
        columns: Name -> (T, R): the bound and its terms, `latent.parameter`, `E[latent]`, `grad_norm`, `held_out`.
    """

    bound: str
    step: np.ndarray
    seconds: np.ndarray
    columns: dict[str, np.ndarray]

    def __repr__(self) -> str:
        """Rows, columns and last values, in a few lines."""
        rows, replicates = self.columns[self.bound].shape
        steps = f"steps {self.step[0]} to {self.step[-1]}" if rows else "no steps"
        lines = [f"History: {rows} rows, {steps}, {replicates} replicates; values at the end"]
        for name, values in list(self.columns.items())[: SHOWN if rows else 0]:
            more = " ..." if replicates > SHOWN_EACH else ""
            lines.append(f"  {name}: {', '.join(f'{value:.5g}' for value in values[-1, :SHOWN_EACH])}{more}")
        if len(self.columns) > SHOWN:
            lines.append(f"  and {len(self.columns) - SHOWN} more columns, by name in .columns")
        return "\n".join(lines)

    def expectations(self) -> dict[str, np.ndarray]:
        """Return the columns E[latent] by scalar, each (T, R): `E[beta][0]` is of beta[0]."""
        return {name[2:].replace("]", "", 1): v for name, v in self.columns.items() if name.startswith("E[")}

    def write(self, path: Path) -> None:
        """Write one line for each step and replicate, replicates varying fastest; nine significant digits."""
        replicates = self.columns[self.bound].shape[1]
        table = [np.repeat(self.step, replicates), np.tile(np.arange(replicates), len(self.step))]
        table += [values.reshape(-1) for values in self.columns.values()] + [np.repeat(self.seconds, replicates)]
        template = "%d,%d," + ",".join(["%.9g"] * (len(self.columns) + 1))
        lines = [",".join([*INDEX, *self.columns, "seconds"])]
        lines += [template % row for row in zip(*(column.tolist() for column in table), strict=True)]
        with replacing(path) as unfinished:
            unfinished.write_text("\n".join(lines) + "\n")


def read_history(path: Path) -> History:
    """Read what `History.write` wrote.

    Raises:
        DataError: In one line, where the file is missing or is no history.
    """
    try:
        with regular_file(path, MOST_BYTES).open(encoding="utf-8") as lines:
            names = lines.readline().strip().split(",")
            rows = [line for line in lines if line.strip()]
        if tuple(names[:2]) != INDEX or names[-1] != "seconds" or len({*names}) < max(len(names), 4):
            raise ValueError("its columns are others")
        table = np.loadtxt(rows, delimiter=",", ndmin=2, comments=None) if rows else np.empty((0, 0))
        if not rows or table.shape[1] != len(names):
            raise ValueError("it has no rows, or rows of another width")
        replicates = int(table[:, 1].max()) + 1
        grid = table.reshape(-1, replicates, len(names))
        if not in_order(grid[..., 0], grid[..., 1]):
            raise ValueError("its steps and replicates are not in order")
    except (ValueError, OverflowError) as error:
        raise DataError(f"{path} is not a trace of this program, or it is damaged ({error}).") from error
    columns = {name: grid[..., i] for i, name in enumerate(names) if i >= 2 and name != "seconds"}
    return History(names[2], grid[:, 0, 0].astype(np.int64), grid[:, 0, -1], columns)


def in_order(steps: np.ndarray, replicates: np.ndarray) -> bool:
    """Whether steps (T, R) are whole and increase, the same for all of the replicates (T, R) 0, ..., R − 1."""
    whole = np.isfinite(steps).all() and (steps == steps[:, :1].round()).all() and steps[0, 0] >= 1
    return bool(whole and (np.diff(steps[:, 0]) > 0).all() and (replicates == np.arange(replicates.shape[1])).all())
