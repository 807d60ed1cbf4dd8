"""Events with a place and a strength, from three columns of a CSV file that the settings name.

Coordinates are used as they are: a degree of longitude counts like a degree of latitude, with no projection. The
strength is a count, such as the number of stations that reported an event.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from vi_core.datasets.base import Data, Dataset
from vi_core.datasets.csv import read_columns
from vi_core.errors import DataError, require


@dataclass(kw_only=True, eq=False)
class Catalogue(Dataset):
    """A catalogue of events: three columns of a CSV file.

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
    horizontal: str = "long"
    vertical: str = "lat"
    strength: str = "stations"
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
        columns = read_columns(path, chosen, self.num_points)
        for row, value in enumerate(columns[2], start=1):
            if value < 0 or value != int(value):
                raise DataError(
                    f"{path}, row {row}, column '{self.strength}': {value:g} is no count 0, 1, 2, ...; "
                    "name a column of counts with dataset.strength=<name>."
                )
        return Data(
            train=torch.tensor(columns, dtype=torch.float64).T.contiguous(),
            provenance=f"columns {', '.join(chosen.values())} of {path}, {len(columns[0])} rows",
            columns=(f"{self.horizontal} ({self.unit})", f"{self.vertical} ({self.unit})", self.strength),
        )
