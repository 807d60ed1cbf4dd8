"""Events with a place and a strength, from three columns of a CSV file that the settings name.

The places are used as they are: a degree of longitude counts like a degree of latitude, as in report 003. The strength
is a count, such as the number of stations that reported an event.
"""

from pathlib import Path

import torch

from vi_core.datasets._checks import whole_or_none
from vi_core.datasets.base import Data, Dataset, identity
from vi_core.datasets.csv import read_columns
from vi_core.errors import DataError, require


class Catalogue(Dataset):
    """The columns `horizontal`, `vertical` and `strength` of the CSV file at `path`.

    Only the first `num_points` rows, or all. `unit` is what the figures call the unit of both coordinates.
    """

    def __init__(
        self,
        *,
        path: str | None = None,
        horizontal: str = "long",
        vertical: str = "lat",
        strength: str = "stations",
        unit: str = "degrees",
        num_points: int | None = None,
        batch_size: int | None = None,
    ) -> None:
        require(bool(path), "dataset=catalogue needs a file of events: dataset.path=<file.csv>.")
        whole_or_none("num_points", num_points, 2)
        whole_or_none("batch_size", batch_size, 1)
        self.path, self.unit, self.num_points, self.batch_size = str(path), unit, num_points, batch_size
        self.chosen = {"horizontal": horizontal, "vertical": vertical, "strength": strength}

    def load(self) -> Data:
        """Read the columns; train has shape (N, 3) and type float64."""
        path = Path(self.path).expanduser().absolute()
        columns = read_columns(path, self.chosen, self.num_points)
        strength = self.chosen["strength"]
        for row, value in enumerate(columns[2], start=1):
            if value < 0 or value != int(value):
                raise DataError(
                    f"{path}, row {row}, column '{strength}': {value:g} is no count 0, 1, 2, ...; "
                    "name a column of counts with dataset.strength=<name>."
                )
        horizontal, vertical = (f"{self.chosen[name]} ({self.unit})" for name in ("horizontal", "vertical"))
        return Data(
            train=torch.tensor(columns, dtype=torch.float64).T.contiguous(),
            test=None,
            truth={},
            provenance=f"columns {', '.join(self.chosen.values())} of {path}, {len(columns[0])} rows",
            decode=identity,
            image_shape=None,
            columns=(horizontal, vertical, strength),
        )
