"""The table of a sweep holds every job once: equal jobs, killed ones, damaged summaries, and sweeps that were ended."""

import csv
import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from experiments.run import fit as fitting
from tests.conftest import CommandLine, run_in
from tests.faults import count, tally

SWEEP = ("-m", "experiment=cavi_normal_gamma", "trainer.steps=3", "plot.enabled=false", "replicates=1")


def rows(folder: Path) -> list[dict[str, str]]:
    """The lines of sweep.csv."""
    with (folder / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def statuses(folder: Path) -> list[tuple[str, str]]:
    return [(row["job"], row["status"]) for row in rows(folder)]


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


# --- sweeps that are killed or ended while they live ------------------------------------------------------------------

LONG = (
    "-m", "trainer.steps=300", "trainer.checkpoint_every=100", "trainer.execution=eager", "trainer.final_samples=50",
    "replicates=2", "plot.enabled=false", "threads=1", "seed=0,1,2",
)  # fmt: skip
MOMENTS = {
    "": ("multirun.yaml", "0/.hydra/overrides.yaml", "0/checkpoint.pt", "1/checkpoint.pt", "1/samples.npz", "2/.hydra"),
    "sweep.batched=true": ("multirun.yaml", "0/.hydra/overrides.yaml", "1/config.yaml", "2/samples.npz"),
}
"""What a sweep writes in its course, by the setting that says how its jobs are trained."""
EXIT = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 143}


def signalled(folder: Path, number: signal.Signals, moment: str, *arguments: str) -> int:
    """Send a sweep in a child process a signal as soon as it has written a file; return how it ended."""
    child = os.fork()
    if not child:
        code = 1
        try:
            code = run_in(folder, *arguments, "hydra.sweep.dir=sweep").code
        finally:
            os._exit(code)
    while not (folder / "sweep" / moment).exists():
        if os.waitpid(child, os.WNOHANG)[0]:
            raise AssertionError(f"the sweep ended before it had written {moment}")
        time.sleep(0.002)
    os.kill(child, number)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """The lines of the table of a sweep that was let alone, by seed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert run_in(folder, *LONG, "hydra.sweep.dir=sweep").code == 0
    return {row["seed"]: row for row in rows(folder / "sweep")}


def numbers_of(row: dict[str, str]) -> dict[str, str]:
    """What a job found, without its number and its time."""
    return {name: value for name, value in row.items() if name not in ("job", "seconds")}


QUICK = {(signal.SIGKILL, "", "1/checkpoint.pt")}
"""In `make test`; the others are slow."""


@pytest.mark.parametrize(
    ("number", "batched", "moment"),
    [
        pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow)
        for case in ((number, batched, moment) for number in EXIT for batched in MOMENTS for moment in MOMENTS[batched])
    ],
)
def test_a_sweep_that_was_ended_goes_on(
    number: signal.Signals, batched: str, moment: str, tmp_path: Path, undisturbed: dict[str, dict[str, str]]
) -> None:
    """What had finished stays as it was, the rest is done, and the table has each job once.

    Jobs one by one have the numbers of an undisturbed sweep; in a batch they depend on which jobs share it.
    """
    arguments = (*LONG, batched) if batched else LONG
    ended = signalled(tmp_path, number, moment, *arguments)
    done = {path.parent.name: path.read_bytes() for path in (tmp_path / "sweep").glob("*/summary.json")}
    done = {name: text for name, text in done.items() if json.loads(text)["status"] == "completed"}
    table = (tmp_path / "sweep" / "sweep.csv").exists()
    result = run_in(tmp_path, *arguments, "sweep.resume=sweep")
    found = rows(tmp_path / "sweep")
    complete = sorted((row["seed"], row["status"]) for row in found) == [(seed, "completed") for seed in "012"]
    same = batched or all(numbers_of(row) == numbers_of(undisturbed[row["seed"]]) for row in found)
    kept = all((tmp_path / "sweep" / name / "summary.json").read_bytes() == text for name, text in done.items())
    said = ended == EXIT[number] and (table or number == signal.SIGKILL or not done)
    right = (result.code, result.err) == (0, "") and complete and same and kept and said
    tally("killed sweep" if number == signal.SIGKILL else "ended sweep", "right" if right else "wrong")
    assert right, (ended, table, found, result)
