"""Checkpoints under faults: every flipped bit is noticed, every failing file operation leaves a run that goes on.

Each trial ends as an undisturbed run does, bit for bit, or in one line that refuses.
"""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from tests.conftest import SMOKE, run_in, summary_of, trace_text
from tests.faults import tally
from vi_core.errors import DataError, Unwritable
from vi_core.storage import files
from vi_core.training import checkpoint

RUN = (*SMOKE, "trainer.checkpoint_every=5", "threads=1", "hydra.run.dir=run")


def same(first: Any, second: Any) -> bool:
    """Whether two contents of checkpoints are equal bit for bit."""
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(value, second[key]) for key, value in first.items())
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and np.array_equal(first.numpy(), second.numpy(), equal_nan=True)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, with its last two checkpoints."""
    shutil.copytree(finished_run, tmp_path / "run")
    return tmp_path / "run"


# --- damage ----------------------------------------------------------------------------------------------------------


def damages(content: bytes, count: int) -> Iterator[bytes]:
    """Yield copies with one flipped bit each, at `count` places from the first byte to the last."""
    for number, place in enumerate(np.linspace(0, len(content) - 1, count).astype(int)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << (number % 8)
        yield bytes(flipped)


def read_outcome(path: Path, right: dict[str, Any]) -> str:
    """Return whether a damaged checkpoint is refused or read as what it was, which is right, or as something else."""
    try:
        return "right" if same(checkpoint.read(path), right) else "wrong"
    except DataError as error:
        return "right" if "\n" not in str(error) else "wrong"


@pytest.mark.parametrize("name", ["checkpoint.pt", "checkpoint.rows", "checkpoint.previous.pt"])
@pytest.mark.parametrize("count", [400, pytest.param(6000, marks=pytest.mark.slow)])
def test_flipped_bits(name: str, count: int, run: Path) -> None:
    last = run / ("checkpoint.pt" if name == "checkpoint.rows" else name)
    right, damaged = checkpoint.read(last), run / name
    outcomes = []
    for content in damages(damaged.read_bytes(), count):
        damaged.write_bytes(content)
        outcomes.append(read_outcome(last, right))
        tally("flipped bit", cast(Any, outcomes[-1]))
    assert outcomes == ["right"] * count


def test_without_the_digest_flipped_bits_are_read(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: the test above would notice."""
    monkeypatch.setattr(checkpoint, "digest", lambda content: bytes(checkpoint.DIGITS))
    path = run / "checkpoint.pt"
    content = path.read_bytes()[: -checkpoint.DIGITS] + bytes(checkpoint.DIGITS)
    monkeypatch.setattr(checkpoint, "with_rows", lambda content, path: content)
    path.write_bytes(content)
    right = checkpoint.read(path)
    outcomes = []
    for damaged in damages(content, 400):
        path.write_bytes(damaged)
        outcomes.append(read_outcome(path, right))
    assert outcomes.count("wrong") > 50


@pytest.mark.parametrize("name", ["checkpoint.pt", "checkpoint.rows"])
def test_truncated(name: str, run: Path) -> None:
    path, right = run / "checkpoint.pt", checkpoint.read(run / "checkpoint.pt")
    content = (run / name).read_bytes()
    for length in np.linspace(0, len(content) - 1, 50).astype(int):
        (run / name).write_bytes(content[:length])
        outcome = read_outcome(path, right)
        tally("truncated file", cast(Any, outcome))
        assert outcome == "right"


@pytest.mark.parametrize("fault", ["flipped", "gone"])
def test_the_checkpoint_before_is_taken(fault: str, run: Path, finished_run: Path) -> None:
    """With one line that says so; the run then ends with its own numbers, and keeps the good one meanwhile."""
    path = run / "checkpoint.pt"
    if fault == "gone":
        path.unlink()
    else:
        path.write_bytes(next(damages(path.read_bytes(), 1)))
    result = run_in(run.parent, "resume=run")
    assert (result.code, result.err) == (0, "")
    assert result.out.count("the one before it is taken, of step 18") == 1
    assert trace_text(run) == trace_text(finished_run)
    assert summary_of(run)["final"] == summary_of(finished_run)["final"]
    assert checkpoint.read(run / "checkpoint.previous.pt")["done"] == 18
    assert checkpoint.read(path)["done"] == 20


def test_none_is_left(run: Path) -> None:
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        (run / name).write_bytes(next(damages((run / name).read_bytes(), 1)))
    result = run_in(run.parent, "resume=run")
    assert result.code == 1 and result.err.count("\n") == 1
    assert "damaged" in result.err


@pytest.mark.parametrize("done", [float("nan"), -5, 10**12, 19, 21, 20.0, True, None, "20"])
@pytest.mark.parametrize("version", [1, 2])
def test_wrong_progress(done: Any, version: int, run: Path) -> None:
    """Also in a file whose digest is right, and in one of version 1, which has none."""
    path = run / "checkpoint.pt"
    write(path, torch.load(path, weights_only=True) | {"done": done}, version)
    with pytest.raises(DataError, match=r"says done=") as caught:
        checkpoint.read(path)
    tally("wrong progress", "right")
    assert "\n" not in str(caught.value)


def write(path: Path, content: dict[str, Any], version: int) -> None:
    """Write a checkpoint of a version, from 2 on with its digest."""
    torch.save(content | {"version": version}, path)
    stored = path.read_bytes()
    if version > 1:
        path.write_bytes(stored + checkpoint.MARK + checkpoint.digest(stored))


def test_rows_stand_once(run: Path) -> None:
    """The two checkpoints hold no row, and both read theirs from one file."""
    contents = [checkpoint.read(run / name) for name in ("checkpoint.previous.pt", "checkpoint.pt")]
    assert [len(content["recorder"]["steps"]) for content in contents] == [18, 20]
    stored = torch.load(run / "checkpoint.pt", weights_only=True)["recorder"]
    assert not {"values", "parameters", "steps", "held_out"} & stored.keys()


# --- the operating system refuses ------------------------------------------------------------------------------------

OPERATIONS: dict[str, tuple[Any, str]] = {
    "replace": (os, "replace"),
    "fsync": (os, "fsync"),
    "open": (Path, "open"),
    "sync_folder": (files, "sync_folder"),
    "write_text": (Path, "write_text"),
}


class Fails:
    """An operation that does at its `number`-th call on a file of the run what `fault` does, and else what it does."""

    def __init__(self, genuine: Callable[..., Any], number: int, fault: Callable[[], Any]):
        self.genuine, self.number, self.fault, self.calls = genuine, number, fault, 0

    def __call__(self, *given: Any, **named: Any) -> Any:
        self.calls += 1
        if self.calls == self.number:
            self.fault()
        return self.genuine(*given, **named)

    def __get__(self, owner: Any, kind: type) -> Callable[..., Any]:
        return self if owner is None else lambda *given, **named: self(owner, *given, **named)


def refusing(code: int) -> Callable[[], Any]:
    """Return what raises an error of the operating system that names no file."""

    def fault() -> None:
        raise OSError(code, os.strerror(code))

    return fault


def attempt(folder: Path, operation: str, number: int, fault: Callable[[], Any], *arguments: str) -> tuple[Any, bool]:
    """Run with a fault at one call; return how it ended, and whether the call came."""
    owner, name = OPERATIONS[operation]
    with pytest.MonkeyPatch.context() as patch:
        failing = Fails(getattr(owner, name), number, fault)
        patch.setattr(owner, name, failing)
        result = run_in(folder, *arguments)
    return result, failing.calls >= number


def goes_on(folder: Path, straight: Path) -> bool:
    """Whether the run in a folder ends as it would have, resumed or, where it had no checkpoint, started elsewhere."""
    if (folder / "run" / "checkpoint.pt").exists():
        return run_in(folder, "resume=run").code == 0 and trace_text(folder / "run") == trace_text(straight)
    return True


def disk_full(folder: Path, straight: Path, operation: str, number: int, code: int) -> bool:
    """Try one failing call; return whether there was such a call."""
    shutil.rmtree(folder / "run", ignore_errors=True)
    result, came = attempt(folder, operation, number, refusing(code), *RUN)
    if came:
        said = result.code == 1 and result.err.count("\n") == 1 and os.strerror(code) in result.err
        right = said and "Traceback" not in result.err and goes_on(folder, straight)
        tally("disk full", "right" if right else "wrong")
        assert right, (operation, number, result.err)
    return came


@pytest.mark.parametrize("operation", ["replace", "fsync", "sync_folder"])
def test_disk_full(operation: str, tmp_path: Path, finished_run: Path) -> None:
    """At a few of the calls, among them the first and one after two checkpoints."""
    for number in (1, 3, 5):
        disk_full(tmp_path, finished_run, operation, number, errno.ENOSPC)
    assert not list((tmp_path / "run").glob(".*.*.pt"))


@pytest.mark.slow
@pytest.mark.parametrize("operation", ["replace", "fsync", "sync_folder"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_disk_full_at_each_call(operation: str, code: int, tmp_path: Path, finished_run: Path) -> None:
    number = 1
    while disk_full(tmp_path, finished_run, operation, number, code):
        number += 1
    assert number > 5


def test_the_folder_goes_while_the_run_lives(tmp_path: Path) -> None:
    gone = tmp_path / "run"
    result, came = attempt(tmp_path, "replace", 3, lambda: shutil.rmtree(gone), *RUN)
    assert came and result.code == 1 and result.err.count("\n") == 1
    assert "removed" in result.err and str(gone.name) in result.err
    tally("disk full", "right")


# --- kills -----------------------------------------------------------------------------------------------------------


def killed_at(folder: Path, operation: str, number: int) -> bool:
    """Run in a child process that ends without any clean-up at a call; return whether the call came."""
    child = os.fork()
    if not child:
        try:
            attempt(folder, operation, number, lambda: os._exit(9), *RUN)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def survives(folder: Path, straight: Path, operation: str, number: int) -> bool:
    """Try one kill; return whether there was such a call."""
    shutil.rmtree(folder / "run", ignore_errors=True)
    came = killed_at(folder, operation, number)
    if came:
        right = goes_on(folder, straight)
        tally("kill at a file operation", "right" if right else "wrong")
        assert right, (operation, number)
        assert not (folder / "run" / "checkpoint.pt").exists() or not list((folder / "run").glob(".[0-9]*.*"))
    return came


@pytest.mark.parametrize(("operation", "numbers"), [("replace", (4, 5)), ("fsync", (4, 7)), ("sync_folder", (3,))])
def test_killed(operation: str, numbers: tuple[int, ...], tmp_path: Path, finished_run: Path) -> None:
    """Around the first and the second checkpoint."""
    for number in numbers:
        assert survives(tmp_path, finished_run, operation, number)


@pytest.mark.slow
@pytest.mark.parametrize("operation", ["replace", "fsync", "sync_folder", "open"])
def test_killed_at_each_call(operation: str, tmp_path: Path, finished_run: Path) -> None:
    number = 1
    while survives(tmp_path, finished_run, operation, number):
        number += 1
    assert number > 5


# --- files -----------------------------------------------------------------------------------------------------------


def test_leftovers_of_dead_processes_go(tmp_path: Path) -> None:
    dead = os.fork()
    if not dead:
        os._exit(0)
    os.waitpid(dead, 0)
    (tmp_path / "plots").mkdir()
    theirs = [tmp_path / f".{dead}.checkpoint.pt", tmp_path / "plots" / f".{dead}.bound.png"]
    kept = [tmp_path / f".{os.getpid()}.trace.csv", tmp_path / ".hidden.txt", tmp_path / ".1.config.yaml"]
    for path in theirs + kept:
        path.touch()
    files.remove_leftovers(tmp_path)
    assert [path.exists() for path in theirs + kept] == [False] * 2 + [True] * 3


def test_a_rename_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Path] = []
    monkeypatch.setattr(files, "sync_folder", seen.append)
    with files.replacing(tmp_path / "x") as unfinished:
        unfinished.write_text("x")
        assert not seen
    assert seen == [tmp_path]


def test_a_failed_write_names_the_file_and_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("before")

    def write() -> None:
        with files.replacing(tmp_path / "x") as unfinished:
            unfinished.write_text("half")
            refusing(errno.ENOSPC)()

    with pytest.raises(Unwritable, match=r"x: No space left on device; free some space"):
        write()
    assert (tmp_path / "x").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
