"""Tables and arrays for models of one's own: what a model sees of them, and one line for each thing that is wrong."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.unit.test_datasets import refusal
from vi_core.datasets.arrays import JSON, NPZ
from vi_core.datasets.base import Data
from vi_core.datasets.table import TableFile
from vi_core.errors import ConfigError, DataError, LabError

TEXT = """a,b,colour,y,school,w,held
1.0,10,red,0,s10,1,0
2.0,30,blue,1,s2,2,0
4.0,20,green,1,s10,1,1
9.0,60,red,0,s2,3,0
"""
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """`write(text) -> path` of a CSV file with that text."""

    def written(text: str = TEXT) -> Path:
        path = tmp_path / "my.csv"
        path.write_text(text)
        return path

    return written


def rows(data: Data, stored: Tensor | None = None) -> dict[str, Tensor]:
    """What a model sees of rows of a data set, of the training rows by default."""
    found = data.decode(data.train if stored is None else stored)
    assert isinstance(found, dict)
    return found


def same(found: Tensor, wanted: list[list[float]] | list[float] | list[int]) -> bool:
    return found.tolist() == wanted


def test_columns_by_their_use(write: Write) -> None:
    table = TableFile(path=str(write()), target="y", features=["b", "colour"], group="school", weights="w", offset="a")
    data = table.load()
    found = rows(data)
    assert set(found) == {"x", "y", "group", "weights", "offset"}
    assert same(found["x"], [[10, 0, 1], [30, 0, 0], [20, 1, 0], [60, 0, 1]])  # blue is the first level
    assert same(found["y"], [0, 1, 1, 0])
    assert (found["group"].dtype, found["group"].tolist()) == (torch.int64, [0, 1, 0, 1])
    assert same(found["weights"], [1, 2, 1, 3])
    assert same(found["offset"], [1, 2, 4, 9])
    assert "x: b, colour=green, colour=red" in data.provenance
    assert "group: school, 2 levels, s10, s2" in data.provenance


def test_features_are_the_other_columns_of_numbers(write: Write) -> None:
    data = TableFile(path=str(write()), target="y", weights="w", test_column="held").load()
    assert same(rows(data)["x"], [[1, 10], [2, 30], [9, 60]])
    assert "columns of words left out: colour, school" in data.provenance
    assert data.left_out == ("colour", "school") and data.to("cpu", torch.float32).left_out == data.left_out
    assert "x" not in rows(TableFile(path=str(write()), target="y", features=[]).load())


def test_levels_of_numbers_are_in_numerical_order(write: Write) -> None:
    path = write("y,g\n1,10\n2,9\n3,10\n")
    assert same(rows(TableFile(path=str(path), target="y", features=[], group="g").load())["group"], [1, 0, 1])


def test_standardized_over_training_rows_alone(write: Write) -> None:
    table = TableFile(path=str(write()), target="y", features=["a"], test_column="held", standardize=True)
    data = table.load()
    training = rows(data)["x"][:, 0]
    assert abs(training.mean().item()) < 1e-12
    assert training.std(correction=0).item() == pytest.approx(1.0)
    assert data.test is not None
    assert rows(data, data.test)["x"].item() == pytest.approx((4.0 - 4.0) / 3.5590260840104371)
    assert rows(data, data.test)["y"].item() == 1.0


def test_new_rows_are_encoded_as_the_training_rows(write: Write, tmp_path: Path) -> None:
    """Mean and deviation, levels and codes are those of the training rows; columns go by name, and y may be missing."""
    chosen = {"features": ["a", "colour"], "group": "school", "weights": "w", "offset": "b"}
    table = TableFile(path=str(write()), target="y", test_column="held", standardize=True, **chosen)  # type: ignore[arg-type]
    new = tmp_path / "new.csv"
    with pytest.raises(DataError, match="no training row has 'green'"):
        table.load()
    table.test_column = None
    training = rows(table.load())
    new.write_text("school,colour,b,a\ns2,red,7,9.0\n")
    found = table.new_rows(new)
    assert found.keys() == {"x", "group", "offset"}
    assert torch.equal(found["x"], training["x"][3:])
    assert same(found["group"], [1]) and same(found["offset"], [7.0])
    new.write_text("school,colour,b,a,y\ns2,red,7,4.0,\n")
    assert "y" not in table.new_rows(new)
    new.write_text("school,colour,b,a,y\ns2,red,7,4.0,1\n")
    assert same(table.new_rows(new)["y"], [1.0])
    for text, wrong in [
        ("school,colour,b\ns2,red,7\n", "features=a is not in"),
        ("school,colour,b,a\ns3,red,7,4.0\n", "row 1 .*'school': no training row has 's3'"),
        ("school,colour,b,a\ns2,,7,4.0\n", "'colour': the cell is empty; fill it in, or leave it out"),
        ("school,colour,b,a\ns2,red,7,high\n", "'high' is not a finite number"),
        ("school,colour,b,a\n", "has no row"),
    ]:
        new.write_text(text)
        with pytest.raises(DataError, match=wrong):
            table.new_rows(new)


def test_test_fraction_depends_on_its_seed_alone(write: Write) -> None:
    path = str(write("y\n" + "\n".join(map(str, range(40)))))
    first, again, other = (TableFile(path=path, target="y", test_fraction=0.25, seed=seed).load() for seed in (0, 0, 1))
    assert first.test is not None
    assert other.test is not None
    assert torch.equal(first.train, again.train)
    assert not torch.equal(first.train, other.train)
    assert sorted([*first.train[:, 0].tolist(), *first.test[:, 0].tolist()]) == list(range(40))
    assert len(first.test) == 10


def test_rows_with_missing_cells_are_dropped_and_counted(write: Write) -> None:
    path = str(write("a,b,y,unused\n1,2,0,\n,3,1,5\nNA,4,1,5\n5,6,0,5\n"))
    data = TableFile(path=path, target="y", features=["a", "b"], missing="drop").load()
    assert same(rows(data)["x"], [[1, 2], [5, 6]])
    assert "2 rows with missing cells dropped" in data.provenance


def test_compressed_tables_are_read(write: Write, tmp_path: Path) -> None:
    packed = tmp_path / "my.csv.gz"
    packed.write_bytes(gzip.compress(TEXT.encode()))
    plain = TableFile(path=str(write()), target="y").load()
    assert TableFile(path=str(packed), target="y").load().checksum == plain.checksum
    packed.write_bytes(gzip.compress(TEXT.encode())[:40])
    assert "not a whole gzip file" in refusal(TableFile(path=str(packed), target="y").load, DataError)


@pytest.mark.parametrize(
    ("settings", "text", "kind", "parts"),
    [
        ({"features": ["a", "y"]}, TEXT, ConfigError, ["dataset.features", "target 'y'"]),
        ({"weights": "y"}, TEXT, ConfigError, ["dataset.weights=y is the target"]),
        ({"test_fraction": 0.5, "test_column": "held"}, TEXT, ConfigError, ["test_fraction", "test_column"]),
        ({"test_fraction": 1.5}, TEXT, ConfigError, ["dataset.test_fraction=1.5"]),
        ({"features": ["aa"]}, TEXT, DataError, ["dataset.features=aa", "Did you mean 'a'?"]),
        ({"features": ["a"]}, TEXT.replace("4.0", "four"), DataError, ["row 3 (line 4), column 'a'", "'four'"]),
        ({"features": ["a"]}, TEXT.replace("4.0", "inf"), DataError, ["row 3", "'inf' is not a finite number"]),
        ({"features": ["a"]}, TEXT.replace("4.0", ""), DataError, ["row 3", "'a'", "empty", "dataset.missing=drop"]),
        ({"weights": "w"}, TEXT.replace(",3,0", ",-3,0"), DataError, ["row 4", "'w'", "negative"]),
        ({"test_column": "b"}, TEXT, DataError, ["row 1", "column 'b'", "1 in held-out rows"]),
        ({"features": ["colour"], "test_column": "held"}, TEXT, DataError, ["row 3", "no training row has 'green'"]),
        ({"group": "colour", "test_column": "held"}, TEXT, DataError, ["row 3", "no training row has 'green'"]),
        ({"features": ["a"], "standardize": True}, "a,y\n3,0\n3,1\n", DataError, ["feature 'a' is 3"]),
        ({"num_points": 5}, TEXT, ConfigError, ["dataset.num_points=5", "at most 4"]),
        ({}, TEXT.replace(",", ";"), DataError, ["separated by semicolons", "comma-separated"]),
        ({}, TEXT.replace(".", "!").replace(",", ";").replace("!", ","), DataError, ["separated by semicolons"]),
        ({}, TEXT.replace(",", "\t"), DataError, ["separated by tabs"]),
        ({}, 'a,y\n"1,5",0\n"2,5",1\n', DataError, ["row 1", "column 'a'", "'1,5'", "decimal points"]),
        ({}, 'a,y\n"1,500",0\n"2,500.25",1\n', DataError, ["'1,500' is not a number"]),
        ({}, "a,y\n10%,0\n20%,1\n", DataError, ["'10%' is not a number"]),
        ({}, "a,a,y\n1,2,0\n3,4,1\n", DataError, ["2 columns called 'a'"]),
        ({}, ",a,y\n0,1,0\n1,2,1\n", DataError, ["column 1 has no name", "dataset.features"]),
        ({}, "a,y,\n1,0,\n2,1,\n", DataError, ["column 3 has no name"]),
    ],
)
def test_refusals(settings: dict[str, object], text: str, kind: type[LabError], parts: list[str], write: Write) -> None:
    path = str(write(text))
    message = refusal(lambda: TableFile(path=path, target="y", **settings).load(), kind)  # type: ignore[arg-type]
    assert [part for part in parts if part not in message] == [], message


def test_arrays_by_name(tmp_path: Path) -> None:
    arrays = {"x": np.arange(6.0).reshape(3, 2), "y": np.array([1, 2, 3]), "limits": np.array([0.5, 1.5]), "k": 4}
    np.savez(tmp_path / "my.npz", **arrays)
    (tmp_path / "my.json").write_text(json.dumps({name: np.asarray(value).tolist() for name, value in arrays.items()}))
    for data in (NPZ(path=str(tmp_path / "my.npz")).load(), JSON(path=str(tmp_path / "my.json")).load()):
        found = rows(data)
        assert same(found["x"], [[0, 1], [2, 3], [4, 5]])
        assert (found["y"].dtype, found["y"].tolist()) == (torch.int64, [1, 2, 3])
        assert same(found["limits"], [0.5, 1.5])
        assert found["k"].item() == 4
        assert same(rows(data, data.train[1:])["x"], [[2, 3], [4, 5]])


def test_words_that_begin_with_digits_are_words(write: Write) -> None:
    """Negative control: dates, addresses and versions are no numbers with odd marks, and are left out."""
    path = write("day,at,version,a,y\n01.02.2020,10.0.0.1,1.2.3,1,0\n2020-01-02,10.0.0.2,1.2.4,2,1\n")
    assert TableFile(path=str(path), target="y").load().left_out == ("day", "at", "version")


@pytest.mark.parametrize(
    "text",
    [
        "[1, 2]",
        '{"y": [1.0], "y": [2.0]}',
        '{"y": [1, null]}',
        '{"y": [1, ',
        '{"y": ["a", "b"]}',
        '{"y": [1, [2]]}',
        "{}",
    ],
)
def test_json_that_is_no_data_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "my.json"
    path.write_text(text)
    assert str(path) in refusal(JSON(path=str(path)).load, DataError)


def test_npz_that_is_no_data_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "my.npz"
    assert "does not exist" in refusal(NPZ(path=str(path)).load, DataError)
    path.write_bytes(b"no archive")
    assert "is not an .npz file" in refusal(NPZ(path=str(path)).load, DataError)
    np.savez(path, y=np.array(["a", "b"]))
    assert "data 'y' holds text" in refusal(NPZ(path=str(path)).load, DataError)
    np.savez(path, y=np.array([object(), object()]))
    assert "data 'y' holds Python's objects" in refusal(NPZ(path=str(path)).load, DataError)
