"""A folder has one owner, and what it holds stays: two runs, two sweeps, any path, any stream."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from experiments.run.owner import Occupied, discard, owned
from tests.conftest import ROOT, SMOKE, CommandLine, Result, summary_of, trace_text
from tests.faults import count

SWEEP = ("-m", *SMOKE[1:], "seed=0,1")
EXACT_SWEEP = ("-m", "experiment=cavi_normal_gamma", "trainer.steps=3", "plot.enabled=false", "replicates=1")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def is_refusal(result: Result, *words: str) -> bool:
    """One line, exit code 1, and the words in it."""
    line = result.err.count("\n") == 1 and result.err.startswith("error: ")
    return result.code == 1 and line and all(word in result.err for word in words)


@contextmanager
def another_process(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder as another process would: a lock belongs to the opened file."""
    with (folder / ".lock").open("w") as file:
        file.write("4242")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# --- one owner ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("begun", ["killed", "new"])
@pytest.mark.parametrize("command", ["run", "resume"])
def test_a_folder_at_work_is_refused(
    command: str, begun: str, cli: CommandLine, tmp_path: Path, finished_run: Path
) -> None:
    """Before a checkpoint is there, too; nothing in the folder changes, Hydra's files and the log among it."""
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    (run / "summary.json").unlink()
    if begun == "new":
        for path in [*run.glob("checkpoint*"), run / "samples.npz"]:
            path.unlink()
    arguments = (*SMOKE, "seed=5", "hydra.run.dir=run") if command == "run" else ("resume=run",)
    with another_process(run):
        before = contents(run)
        result = cli(*arguments)
        words = ("run already holds a run",) if (command, begun) == ("run", "killed") else ("run", "process 4242")
        count("two processes in one folder", is_refusal(result, *words) and contents(run) == before)


def test_an_occupied_folder_stays_as_it_is(cli: CommandLine, tmp_path: Path, finished_run: Path) -> None:
    """A run, a sweep and a single run in a sweep's folder are refused before Hydra writes."""
    shutil.copytree(finished_run, tmp_path / "run")
    assert cli(*EXACT_SWEEP, "seed=0", "hydra.sweep.dir=sweep").code == 0
    before = contents(tmp_path)
    for arguments, words in (
        ((*SMOKE, "seed=5", "hydra.run.dir=run"), ("run already holds a run", "resume=run")),
        ((*SWEEP, "hydra.sweep.dir=run"), ("run holds a run",)),
        ((*SMOKE, "hydra.run.dir=sweep"), ("sweep already holds a sweep",)),
        ((*SWEEP, "hydra.sweep.dir=sweep"), ("sweep already holds a sweep", "sweep.resume=sweep")),
        ((*SWEEP, "sweep.resume=run"), ("run holds a run", "resume=run")),
    ):
        result = cli(*arguments)
        count("occupied folder", is_refusal(result, *words) and contents(tmp_path) == before)


def test_two_processes_do_not_resume_one_sweep(cli: CommandLine, tmp_path: Path) -> None:
    assert cli(*EXACT_SWEEP, "seed=0", "hydra.sweep.dir=sweep").code == 0
    with another_process(tmp_path / "sweep"):
        before = contents(tmp_path)
        result = cli(*EXACT_SWEEP, "seed=0,1", "sweep.resume=sweep")
        count("two processes in one folder", is_refusal(result, "4242") and contents(tmp_path) == before)
    assert cli(*EXACT_SWEEP, "seed=0,1", "sweep.resume=sweep").code == 0
    assert not list(tmp_path.rglob(".lock"))


def test_a_lock_goes_with_its_process(tmp_path: Path) -> None:
    """The kernel releases it; a new owner takes the file that is left."""
    code = "import os, pathlib, sys; from experiments.run.owner import owned\n"
    code += "with owned(pathlib.Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], cwd=ROOT, check=False).returncode == -9
    assert (tmp_path / "run" / ".lock").exists()
    with owned(tmp_path / "run"):
        assert (tmp_path / "run" / ".lock").read_text() == str(os.getpid())
    assert not (tmp_path / "run").exists()


def test_of_many_processes_one_owns_a_folder(tmp_path: Path) -> None:
    """Each adds 1 to a number where it is the owner, with a pause between reading and writing."""
    code = """
import pathlib, sys, time
from experiments.run.owner import Occupied, owned
place, done = pathlib.Path(sys.argv[1]), 0
number = place.with_name("number")
while done < 20:
    try:
        with owned(place):
            value = int(number.read_text())
            time.sleep(0.001)
            number.write_text(str(value + 1))
            done += 1
    except Occupied:
        pass
"""
    (tmp_path / "number").write_text("0")
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    processes = [subprocess.Popen(command, cwd=ROOT) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0, 0, 0, 0]
    count("two processes in one folder", (tmp_path / "number").read_text() == "80", lost=True)


def test_owning_twice_is_owning_once(tmp_path: Path) -> None:
    with owned(tmp_path / "run"), owned(tmp_path / "run"):
        pass
    with another_folder(tmp_path) as folder, pytest.raises(Occupied), owned(folder):
        pass


@contextmanager
def another_folder(place: Path) -> Iterator[Path]:
    """A folder that another process owns."""
    (place / "other").mkdir()
    with another_process(place / "other"):
        yield place / "other"


def test_what_holds_results_is_not_discarded(tmp_path: Path) -> None:
    """Of two jobs' folders, the one with nothing but what Hydra wrote goes."""
    for name in ("begun", "filled"):
        (tmp_path / name / ".hydra").mkdir(parents=True)
        (tmp_path / name / ".hydra" / "config.yaml").write_text("a: 1")
        (tmp_path / name / "run.log").write_text("")
    (tmp_path / "filled" / "summary.json").write_text("{}")
    before = contents(tmp_path / "filled")
    for name in ("begun", "filled"):
        with owned(tmp_path / name):
            discard(tmp_path / name)
    count("finished results", contents(tmp_path / "filled") == before, lost=True)
    assert not (tmp_path / "begun").exists()


# --- runs that failed, and folders without a name -------------------------------------------------------------------


def test_a_run_that_failed_is_started_again_in_its_folder(cli: CommandLine, tmp_path: Path, finished_run: Path) -> None:
    """Before its first checkpoint; a failed attempt in between says why it failed, and not why the first one did."""
    assert cli(*SMOKE, "optimizer.lr=-1", "hydra.run.dir=run").code == 1
    assert cli(*SMOKE, "replicates=0", "hydra.run.dir=run").code == 1
    assert summary_of(tmp_path / "run")["error"].startswith("replicates=0")
    result = cli(*SMOKE, "hydra.run.dir=run")
    count("failed run started again", result.code == 0 and trace_text(tmp_path / "run") == trace_text(finished_run))


@pytest.mark.parametrize("name", ["", "''", "' '", "null"])
@pytest.mark.parametrize("mode", ["run", "sweep"])
def test_a_folder_without_a_name_is_refused(mode: str, name: str, cli: CommandLine, tmp_path: Path) -> None:
    result = cli(*(SMOKE if mode == "run" else SWEEP), f"hydra.{mode}.dir={name}")
    count("empty folder", is_refusal(result, f"hydra.{mode}.dir=") and contents(tmp_path) == {})


# --- any path -------------------------------------------------------------------------------------------------------

NAMES = ("a=b", "a,b", "'a'", '"', "[a](b){c}", "a b ", "a\nb", "käse ≠ ²", "a\\'b\\", "x: #y", "null", "${a}")


SHORT = ("käse ≠ ²",)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in SHORT else pytest.mark.slow) for name in NAMES]
)
def test_one_rule_for_every_folder(name: str, cli: CommandLine, tmp_path: Path, finished_run: Path) -> None:
    """All that stands after the first equals sign is the path: of a run, and of a sweep but for `${`."""
    shutil.copytree(finished_run, tmp_path / name / "run")
    for key, arguments in {"run": ("task=plot",), "resume": ()}.items():
        result = cli(*arguments, f"{key}={name}/run")
        count("path", (result.code, result.err) == (0, ""))
    assert cli(*EXACT_SWEEP, "seed=0", "hydra.sweep.dir=sweep").code == 0
    (tmp_path / "sweep").rename(tmp_path / name / "sweep")
    result = cli(*EXACT_SWEEP, "seed=0,1", f"sweep.resume={name}/sweep")
    if "${" in name:
        count("path", is_refusal(result, "${", "rename"))
        return
    new = tmp_path / name / "sweep" / "2"
    found = result.out.count("is finished already") == 1 and new.is_dir()
    count("path", result.code == 0 and found and summary_of(new)["status"] == "completed")
    assert cli("task=collect", f"run={name}/sweep").code == 0


# --- options that show something ------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [("resume=run",), ("task=plot", "run=run"), ("task=reproduce",)])
def test_options_do_what_they_say(
    arguments: tuple[str, ...], cli: CommandLine, tmp_path: Path, finished_run: Path
) -> None:
    """Help and settings are shown, -m is refused, and nothing trains or is written."""
    shutil.copytree(finished_run, tmp_path / "run")
    before = contents(tmp_path)
    shown = cli(*arguments, "--help")
    count("option", shown.code == 0 and "A laboratory for variational inference" in shown.out)
    settings = cli(*arguments, "--cfg", "job")
    count("option", settings.code == 0 and "model:" in settings.out)
    count("option", is_refusal(cli(*arguments, "-m"), "-m", arguments[0].partition("=")[0] + "="))
    assert contents(tmp_path) == before


def test_the_settings_of_a_resumed_run_are_shown(cli: CommandLine, tmp_path: Path, finished_run: Path) -> None:
    shutil.copytree(finished_run, tmp_path / "run")
    shown = cli("resume=run", "trainer.limit=77", "--cfg", "job", "--package", "trainer")
    count("option", shown.code == 0 and "limit: 77" in shown.out)
    count("option", is_refusal(cli("resume=run", "--cfg", "hydra"), "--cfg hydra"))


# --- streams --------------------------------------------------------------------------------------------------------


def started(folder: Path, ending: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a sweep of one job in a process of its own, by a shell that does something to its streams."""
    arguments = " ".join([*EXACT_SWEEP, "seed=0", "hydra.sweep.dir=sweep"])
    command = f"set -o pipefail; '{sys.executable}' '{ROOT / 'run.py'}' {arguments} {ending}"
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=os.environ | environment, capture_output=True, check=False
    )


@pytest.mark.parametrize(
    "case", ["ascii", *(pytest.param(case, marks=pytest.mark.slow) for case in ("closed", "pipe", "full"))]
)
def test_streams_cost_the_output_alone(case: str, tmp_path: Path) -> None:
    """No ± in the encoding, closed streams, a reader that left, a full disk: the table is there, and no traceback."""
    endings = {"ascii": "", "closed": ">&- 2>&-", "pipe": "| true", "full": "> /dev/full"}
    result = started(tmp_path, endings[case], **({"PYTHONIOENCODING": "ascii:strict"} if case == "ascii" else {}))
    rows = (tmp_path / "sweep" / "sweep.csv").read_text().splitlines()
    log = (tmp_path / "sweep" / "0" / "run.log").read_text(encoding="utf-8")
    count("stream", (result.returncode, result.stderr, len(rows), "±" in log) == (0, b"", 2, True))
    assert case != "ascii" or b"? MC error" in result.stdout
    assert json.loads((tmp_path / "sweep" / "0" / "summary.json").read_text())["status"] == "completed"
