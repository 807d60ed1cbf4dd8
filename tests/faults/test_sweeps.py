"""The table of a sweep holds every job once: equal jobs, killed ones, damaged summaries, and sweeps that were ended."""

import csv
import shutil
from pathlib import Path

import pytest

from experiments.run import fit as fitting
from tests.conftest import CommandLine, run_in
from tests.faults import tally

SWEEP = ("-m", "experiment=cavi_normal_gamma", "trainer.steps=3", "plot.enabled=false", "replicates=1")


def rows(folder: Path) -> list[dict[str, str]]:
    """The lines of sweep.csv."""
    with (folder / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def statuses(folder: Path) -> list[tuple[str, str]]:
    return [(row["job"], row["status"]) for row in rows(folder)]


def count(kind: str, right: bool) -> None:
    """Count a trial, and fail where it was not right."""
    tally(kind, "right" if right else "wrong")
    assert right


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sweep `sweep` of two finished jobs; copy it before changing it."""
    folder = tmp_path_factory.mktemp("finished")
    assert run_in(folder, *SWEEP, "seed=0,1", "hydra.sweep.dir=sweep").code == 0
    return folder


@pytest.fixture
def sweep(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished / "sweep", tmp_path / "sweep")
    return tmp_path / "sweep"


def test_jobs_with_equal_settings_keep_their_rows(cli: CommandLine, tmp_path: Path) -> None:
    result = cli(*SWEEP, "seed=7,7", "hydra.sweep.dir=sweep")
    assert (result.code, result.err) == (0, "")
    count("equal jobs", statuses(tmp_path / "sweep") == [("0", "completed"), ("1", "completed")])


def test_equal_jobs_of_one_start_that_were_killed_keep_their_rows(cli: CommandLine, tmp_path: Path) -> None:
    """Neither is the other one, redone."""
    assert cli(*SWEEP, "seed=7,7", "hydra.sweep.dir=sweep").code == 0
    for number in "01":
        (tmp_path / "sweep" / number / "summary.json").unlink()
    assert cli("task=collect", "run=sweep").code == 1
    count("equal jobs", statuses(tmp_path / "sweep") == [("0", "killed"), ("1", "killed")])


@pytest.mark.parametrize("content", ["", "{}", "[]", "{", '{"status": 3}', '"text"'])
def test_a_damaged_summary_costs_one_row(content: str, sweep: Path, cli: CommandLine) -> None:
    (sweep / "1" / "summary.json").write_text(content)
    result = cli("task=collect", "run=sweep")
    said = [line for line in (result.out + result.err).splitlines() if "1/summary.json" in line]
    right = statuses(sweep) == [("0", "completed"), ("1", "damaged")] and len(said) == 1 and result.code == 1
    count("damaged job of a sweep", right and "Traceback" not in result.out + result.err)


def test_a_folder_that_is_no_job_is_named(sweep: Path, cli: CommandLine) -> None:
    (sweep / "²").mkdir()
    result = cli("task=collect", "run=sweep")
    assert (result.code, result.err) == (0, "")
    said = [line for line in result.out.splitlines() if "²" in line]
    count("damaged job of a sweep", len(said) == 1 and statuses(sweep) == [("0", "completed"), ("1", "completed")])


@pytest.mark.parametrize("left", [[], [".hydra"], [".hydra", "run.log"]])
def test_a_job_that_was_killed_as_it_began_leaves_no_row(left: list[str], sweep: Path, cli: CommandLine) -> None:
    """The sweep goes on under the next number, and ends with exit code 0."""
    for path in list((sweep / "1").iterdir()):
        if path.name not in left:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    result = cli(*SWEEP, "seed=0,1", "sweep.resume=sweep")
    assert (result.code, result.err) == (0, "")
    count("killed job of a sweep", [status for _, status in statuses(sweep)] == ["completed"] * 2)


def test_a_sweep_that_was_ended_has_its_table(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two jobs, or outside of the part of a job that notes signals."""
    original, calls = fitting.fit, []

    def second_is_ended(job: object) -> object:
        calls.append(job)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(job)  # type: ignore[arg-type]

    monkeypatch.setattr(fitting, "fit", second_is_ended)
    result = cli(*SWEEP, "seed=0,1,2", "hydra.sweep.dir=sweep")
    assert result.code == 130 and len(calls) == 2
    count("ended sweep", ("0", "completed") in statuses(tmp_path / "sweep"))
