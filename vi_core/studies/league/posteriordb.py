"""Reader of a clone of posteriordb: posteriors as Stan programs with data and reference draws.

Magnusson, Torgander, Bürkner, Zhang, Carpenter, Vehtari 2024, "posteriordb: testing, benchmarking and developing
Bayesian inference algorithms". Below `posterior_database` a clone has one JSON file for each posterior, which names a
program, a data set and a file of draws; data and draws are zipped JSON. Names of quantities count from one there
(`theta[1]`), and from zero here.
"""

import json
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vi_core.errors import ConfigError, did_you_mean
from vi_core.storage.reading import MOST_TEXT, damaged, read_json, regular_file

DATABASE = "posterior_database"
MOST_CONTENT = 2**28  # bytes of JSON in a zipped file


@dataclass(frozen=True)
class Posterior:
    """One posterior of the database.

    Attributes:
        name: As the database has it.
        program: Path of the Stan program.
        data: Its data by name.
        reference: Draws (N,) of each scalar by latent and index, such as ("theta", (0,)).
    """

    name: str
    program: Path
    data: dict[str, Any]
    reference: dict[tuple[str, tuple[int, ...]], np.ndarray]


@dataclass(frozen=True)
class Database:
    """A clone of posteriordb.

    Attributes:
        root: Its folder, with `posterior_database` in it.
    """

    root: Path

    @property
    def folder(self) -> Path:
        """The folder of the database; `ConfigError` where there is none."""
        folder = self.root / DATABASE
        if not (folder / "posteriors").is_dir():
            raise ConfigError(
                f"study.root={self.root} is no clone of posteriordb: there is no {DATABASE}/posteriors in it; clone "
                "https://github.com/stan-dev/posteriordb and give its folder."
            )
        return folder

    @cached_property
    def names(self) -> list[str]:
        """Posteriors whose reference draws are in the clone, in alphabetical order."""
        return [path.stem for path in sorted((self.folder / "posteriors").glob("*.json")) if self._draws(path.stem)]

    def chosen(self, only: Sequence[str], without: Sequence[str]) -> list[str]:
        """Return the names in `only`, all if it is empty, but for those in `without`; `ConfigError` for others."""
        for name in only:
            if name not in self.names:
                raise ConfigError(
                    f"study.only={name} is no posterior with reference draws in this clone."
                    f"{did_you_mean(name, self.names)}"
                )
        return [name for name in only or self.names if name not in without]

    def _draws(self, name: str) -> Path | None:
        """Return the file of reference draws of a posterior, or None where it has none."""
        reference = read_json(self.folder / "posteriors" / f"{name}.json").get("reference_posterior_name")
        path = self.folder / "reference_posteriors" / "draws" / "draws" / f"{reference}.json.zip"
        return path if reference and path.is_file() else None

    def read(self, name: str) -> Posterior:
        """Return a posterior by name; `DataError` for a file that is missing or damaged."""
        about = read_json(self.folder / "posteriors" / f"{name}.json")
        model = read_json(self.folder / "models" / "info" / f"{about['model_name']}.info.json")
        data = read_json(self.folder / "data" / "info" / f"{about['data_name']}.info.json")
        draws = self._draws(name)
        assert draws is not None
        program = self.folder / model["model_implementations"]["stan"]["model_code"]
        return Posterior(
            name, program, unzipped(self.folder / f"{data['data_file']}.zip"), reference_draws(unzipped(draws))
        )


def unzipped(path: Path) -> Any:
    """Return the content of the one JSON file in a zip file."""
    regular_file(path, MOST_TEXT)
    try:
        with zipfile.ZipFile(path) as archive:
            (entry,) = [each for each in archive.infolist() if not each.filename.startswith("__MACOSX")]
            if entry.file_size > MOST_CONTENT:
                raise ValueError(f"it holds {entry.file_size} bytes")
            return json.loads(archive.read(entry))
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise damaged(path, error) from error


def reference_draws(chains: list[dict[str, list[float]]]) -> dict[tuple[str, tuple[int, ...]], np.ndarray]:
    """Return draws (N,) of all chains by latent and index from zero."""
    return {index_of(name): np.concatenate([np.asarray(chain[name], float) for chain in chains]) for name in chains[0]}


def index_of(name: str) -> tuple[str, tuple[int, ...]]:
    """Return latent and index from zero of a name such as `theta[2,1]`."""
    latent, *rest = re.split(r"[\[\],]", name.rstrip("]"))
    return latent, tuple(int(part) - 1 for part in rest)
