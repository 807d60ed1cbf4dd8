"""Hostile inputs: data files, numbers and YAML that look right and are not, and unusual ones that are right."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from tests.conftest import SMOKE, CommandLine, Result, configuration, summary_of
from tests.faults import tally
from vi_core.datasets.base import Data, Dataset
from vi_core.datasets.csv import CSV, find_column
from vi_core.errors import ConfigError, DataError
from vi_core.schema import check_part, construct
from vi_core.storage.reading import MOST_NODES, count_nodes


def refused(result: Result, *words: str) -> bool:
    """Whether there is one line, with these words, and no traceback; counted."""
    said = result.code == 1 and result.err.count("\n") == 1 and all(word in result.err for word in words)
    tally("hostile inputs", "right" if said else "wrong")
    return said


@pytest.mark.parametrize(
    "cell", ["1_000", "\u0661\u0662", "\uff11", "1e1_0", "0x10", "1 2", "\u221212", "1\u00a0000", "--1", "1e"]
)
def test_a_cell_that_is_no_decimal_number_is_refused(cell: str, tmp_path: Path) -> None:
    """Python reads some of them as numbers."""
    (tmp_path / "x.csv").write_text(f"x\n1\n{cell}\n2\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"row 2 \(line 3\), column 'x'"):
        CSV(path=str(tmp_path / "x.csv")).load()
    tally("hostile inputs", "right")


@pytest.mark.parametrize("cell", ["1", "+1.", ".5", "-1e3", "1E+03", " 2 ", "007"])
def test_a_cell_that_is_a_decimal_number_is_read(cell: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(f"x\n{cell}\n2\n")
    assert CSV(path=str(tmp_path / "x.csv")).load().train[0].item() == float(cell)


@pytest.mark.parametrize("path", ["pipe", "/dev/zero", "/dev/null"])
def test_a_pipe_or_a_device_is_refused(path: str, cli: CommandLine, tmp_path: Path) -> None:
    """A pipe has no writer: opening it would wait for ever."""
    os.mkfifo(tmp_path / "pipe")
    assert refused(cli(*SMOKE, "dataset=csv", f"dataset.path={path}"), path, "pipe or a device")


@pytest.mark.parametrize(("column", "mean"), [("1e3", 1.0), ("true", 2.0), ("NaN", 3.0), ("2024", 4.0), ("x", 5.0)])
def test_a_column_whose_name_reads_as_something_else(
    column: str, mean: float, cli: CommandLine, tmp_path: Path
) -> None:
    (tmp_path / "x.csv").write_text("1e3,true,NaN,2024,x\n1,2,3,4,5\n1,2,3,4,5\n")
    arguments = ("dataset=csv", "dataset.path=x.csv", f"dataset.column={column}", "model.loc=0", "hydra.run.dir=run")
    result = cli(*SMOKE, *arguments)
    right = result.code == 0 and abs(summary_of(tmp_path / "run")["estimates"]["mu"]["exact"] - mean * 2 / 2.1) < 1e-12
    tally("hostile inputs", "right" if right else "wrong")
    assert right, result


ODD = "1e3,true,NaN,off\n1,2,3,4\n5,6,7,8\n2,2,3,3\n"
"""A table whose names are read as 1000.0, True, nan and, from YAML, False."""


def loaded(*arguments: str) -> Data:
    """The data of a command line."""
    dataset: Any = OmegaConf.to_container(configuration("dataset.path=odd.csv", *arguments).dataset)
    check_part(dataset, "dataset", Dataset)
    return construct(dataset, "dataset").load()


def test_a_catalogue_and_a_table_have_columns_of_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In every setting that names a column; the numbers are those of the file."""
    (tmp_path / "odd.csv").write_text(ODD)
    monkeypatch.chdir(tmp_path)
    columns = ("dataset.horizontal=1e3", "dataset.vertical=true", "dataset.strength=NaN")
    events = loaded("experiment=earthquakes_cavi", "dataset=catalogue", *columns)
    right = events.train.tolist() == [[1, 2, 3], [5, 6, 7], [2, 2, 3]] and "1e3, true, NaN" in events.provenance
    tally("hostile inputs", "right" if right else "wrong")
    assert right and events.columns == ("1e3 (degrees)", "true (degrees)", "NaN")
    table = ("experiment=own", "model=linear_regression", "dataset=table", "dataset.target=1e3")
    named = loaded(*table, "dataset.features=[true,NaN]", "dataset.offset=off")
    rows = {name: value.tolist() for name, value in named.decode(named.train).items()}
    right = rows == {"x": [[2, 3], [6, 7], [2, 3]], "y": [1, 5, 2], "offset": [4, 8, 3]}
    tally("hostile inputs", "right" if right else "wrong")
    assert right and "y: 1e3" in named.provenance
    (tmp_path / "odd.csv").write_text(ODD.replace("1e3", "0").replace("true", "false"))
    named = loaded(*table[:3], "dataset.target=0", "dataset.features=[false]")
    assert named.train.tolist() == [[2, 1], [6, 5], [2, 2]]
    for features in ("[0]", '["0"]', "[0.0]"):
        with pytest.raises(ConfigError, match="holds the target '0'"):
            loaded(*table[:3], "dataset.target=0", f"dataset.features={features}")


@pytest.mark.parametrize(("name", "value"), [("off", False), ("YES", True), ("On", True), ("no", False)])
def test_words_that_a_yaml_file_reads_as_booleans_name_columns(name: str, value: bool, tmp_path: Path) -> None:
    assert yaml.safe_load(name) is value
    assert find_column(value, ["a", name], tmp_path) == 1


def test_one_point_has_an_answer(cli: CommandLine, tmp_path: Path) -> None:
    """E[tau] = (a_0 + 1/2) / b_n with b_n = b_0 + lambda_0 (x − mu_0)² / (2 (lambda_0 + 1)), by hand; figures too."""
    (tmp_path / "x.csv").write_text("x\n3\n")
    result = cli(*SMOKE, "dataset=csv", "dataset.path=x.csv", "plot.enabled=true", "hydra.run.dir=run")
    assert (result.code, result.err) == (0, "")
    found = summary_of(tmp_path / "run")["estimates"]["tau"]["exact"]
    assert found == pytest.approx(1.5 / (2 + 0.1 * 4 / 2.2), rel=1e-12)
    tally("hostile inputs", "right")


@pytest.mark.parametrize(
    "digits", ["seed=" + "7" * 4000, "optimizer.lr=" + "7" * 4000, "seed=" + "7" * 5000, "model.loc=" + "7" * 40]
)
def test_a_long_number_is_not_echoed(digits: str, cli: CommandLine) -> None:
    result = cli(*SMOKE, digits)
    named = digits.partition("=")[0] if len(digits) < 4300 else "5000 digits"
    assert refused(result, named) and len(result.err) < 400, result.err[:500]


BOMB = "\n".join(["a0: &a0 [x, x]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60))])
MERGES = "\n".join(["a0: &a0 {x: 1}", *(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}" for i in range(1, 60))])


@pytest.mark.parametrize(
    "text",
    [BOMB, MERGES, "lr: &a [*a]\n", "lr: &a {b: *a}\n", "lr: " + "[" * 900 + "]" * 900, "a: &a 1\nb: &a [*a]\n"],
    ids=["aliases", "merges", "recursive list", "recursive mapping", "deep", "redefined"],
)
def test_yaml_that_explodes_is_refused_at_once(text: str, cli: CommandLine, tmp_path: Path) -> None:
    """In the user's own folder. The command itself takes as long as one with another mistake."""
    (tmp_path / "mine" / "optimizer").mkdir(parents=True)
    (tmp_path / "mine" / "optimizer" / "own.yaml").write_text(text)
    started = time.perf_counter()
    with pytest.raises(ValueError, match=r"anchor|levels"):
        count_nodes(text)
    assert time.perf_counter() - started < 1
    assert refused(cli("--config-dir", "mine", *SMOKE, "optimizer=own"), "own.yaml")


def test_nodes_are_counted_with_their_aliases() -> None:
    """Negative control, and the numbers by hand: a mapping has a node for each key, each value and itself."""
    assert count_nodes("a: 1\nb: [1, 2]\n") == 7
    assert count_nodes("a: &a [1, 2]\nb: *a\n") == 9
    assert count_nodes("a: &a {x: 1}\nb: {<<: *a, y: 2}\n") == 13
    assert count_nodes("[" + ", ".join(["1"] * (MOST_NODES - 1)) + "]") == MOST_NODES
    with pytest.raises(ValueError, match="nodes"):
        count_nodes("[" + ", ".join(["1"] * MOST_NODES) + "]")


def test_coordinate_ascent_is_not_told_to_lower_a_learning_rate(cli: CommandLine, tmp_path: Path) -> None:
    """It has none. Squares of these data overflow."""
    (tmp_path / "x.csv").write_text("x\n1e200\n-1e200\n1\n")
    arguments = ("optimizer=coordinate_ascent", "estimator=exact", "dataset=csv", "dataset.path=x.csv")
    result = cli(*SMOKE, *arguments)
    assert refused(result) and "optimizer.lr" not in result.err, result.err


def test_a_folder_of_ones_own_lets_its_modules_be_imported_and_no_others(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A class named on the command line is not a word for its module."""
    (tmp_path / "touched_by_trial.py").write_text(f"open({str(tmp_path / 'touched')!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("vi_core.own_parts.modules", set())
    assert refused(cli(*SMOKE, "bound._target_=touched_by_trial.Bound"), "bound._target_", "--config-dir")
    assert not (tmp_path / "touched").exists()
    (tmp_path / "mine" / "bound").mkdir(parents=True)
    (tmp_path / "mine" / "bound" / "own.yaml").write_text("_target_: touched_by_trial.Bound\n")
    assert refused(cli("--config-dir", "mine", *SMOKE, "bound=own"), "bound._target_", "names no class")
    assert (tmp_path / "touched").exists()
