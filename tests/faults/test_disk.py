"""A disk that is full: each opening and each writing of a file of a run fails, once or from then on.

Files are opened by a stand-in for `open` whose `write` takes half of what it is given and then fails, as a file system
does; the limit of the kernel on the size of a file is the same without a stand-in, also for libraries in C.
"""

import builtins
import errno
import io
import json
import os
import re
import resource
import shutil
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SMOKE, Result, run_in, summary_of, trace_text
from tests.faults import tally

RUN = (*SMOKE, "trainer.checkpoint_every=5", "threads=1", "hydra.run.dir=run")
DRAWN = (*(argument for argument in RUN if not argument.startswith("plot.")), "plot.enabled=true")
GENUINE = {"open": builtins.open, "write": os.write, "mkdir": os.mkdir}


class Disk:
    """A disk below a folder on which one operation on a file fails: opening it to write, writing, making a folder.

    Args:
        folder: Files elsewhere are on other disks.
        name: Of the file, without the number of the process that a temporary one begins with.
        number: Of the operation on that file, from 1.
        lasting: Whether all later operations fail too.

    Attributes:
        calls: Operations by name of the file.
        came: Whether the operation has come.
    """

    def __init__(self, folder: Path, name: str = "", number: int = 0, lasting: bool = False):
        self.folder, self.name, self.number, self.lasting = folder, name, number, lasting
        self.calls, self.came = Counter[str](), False

    def has(self, path: Path) -> bool:
        """Whether a file is on this disk."""
        return path.is_relative_to(self.folder)

    def operation(self, path: Path) -> None:
        """Count an operation, and fail where it is its turn."""
        name = re.sub(r"^\.\d+\.", "", path.name)
        self.calls[name] += 1
        now = name == self.name and self.calls[name] == self.number
        self.came |= now
        if now or (self.came and self.lasting):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    def open(self, file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **named: Any) -> Any:
        """Open a file as Python does, and one to be written on this disk so that its writing may fail."""
        path = Path(os.path.abspath(os.fsdecode(file))) if isinstance(file, (str, bytes, os.PathLike)) else None
        if path is None or not self.has(path) or not set(mode) & set("wax+"):
            return GENUINE["open"](file, mode, buffering, *rest, **named)
        raw = Raw(self, path, mode.replace("t", "").replace("b", ""))
        buffer = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return buffer
        words = dict(zip(("encoding", "errors", "newline"), rest, strict=False)) | named
        return io.TextIOWrapper(buffer, line_buffering=buffering == 1, **words)

    def write(self, descriptor: int, data: Any) -> int:
        """`os.write`."""
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if self.has(path):
            try:
                self.operation(path)
            except OSError as error:
                raise OSError(error.errno, error.strerror) from None
        return GENUINE["write"](descriptor, data)

    def mkdir(self, path: Any, *rest: Any, **named: Any) -> None:
        """`os.mkdir`."""
        whole = Path(os.path.abspath(os.fsdecode(path)))
        if self.has(whole) and not whole.exists():
            self.operation(whole)
        GENUINE["mkdir"](path, *rest, **named)


class Raw(io.FileIO):
    """A file of a disk, without a buffer."""

    def __init__(self, disk: Disk, path: Path, mode: str):
        self.disk, self.path = disk, path
        disk.operation(path)
        super().__init__(path, mode)

    def write(self, data: Any) -> int:
        """Write as a full disk does: a part, and then an error."""
        try:
            self.disk.operation(self.path)
        except OSError as error:
            super().write(bytes(data)[: len(bytes(data)) // 2])
            raise OSError(error.errno, error.strerror) from None  # writing knows no name
        return super().write(data) or 0


def run_on(disk: Disk, *arguments: str) -> Result:
    """Run in the folder of a disk."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (builtins, io):
            patch.setattr(module, "open", disk.open)
        for name in ("write", "mkdir"):
            patch.setattr(os, name, getattr(disk, name))
        return run_in(disk.folder, *arguments)


def operations(folder: Path, arguments: tuple[str, ...]) -> Counter[str]:
    """The operations of an undisturbed run, by name of the file."""
    disk = Disk(folder)
    assert run_on(disk, *arguments).code == 0
    shutil.rmtree(folder / "run")
    return disk.calls


def fault_of_going_on(folder: Path, straight: Path, arguments: tuple[str, ...]) -> str:
    """What is wrong once the run has gone on: resumed, or started again in its folder before a checkpoint.

    Nothing is where it ends as an undisturbed run does.
    """
    run, begun = folder / "run", (folder / "run" / "checkpoint.pt").exists()
    result = run_in(folder, "resume=run") if begun else run_in(folder, *arguments)
    if (result.code, result.err) != (0, ""):
        return f"{result}"
    if summary_of(run)["final"] != summary_of(straight)["final"] or trace_text(run) != trace_text(straight):
        return "other numbers"
    undrawn = arguments == DRAWN and not (run / "plots" / "bound.png").is_file()
    return "no figure" if undrawn else ""


def is_said(result: Result, reason: str) -> bool:
    """One line with the reason and a way out, and exit code 1."""
    line = result.err.count("\n") == 1 and result.err.startswith("error: ")
    return result.code == 1 and line and reason in result.err and "free some space" in result.err


def trial(folder: Path, straight: Path, arguments: tuple[str, ...], name: str, number: int, lasting: bool) -> bool:
    """Try one failing operation; return whether it came.

    A line of the log that is lost is no reason to stop, and `zipfile` opens a file once more where it could not.
    """
    shutil.rmtree(folder / "run", ignore_errors=True)
    disk = Disk(folder, name, number, lasting)
    result = run_on(disk, *arguments)
    if not disk.came:
        return False
    spared = name == "run.log" or (name, number) == ("samples.npz", 1)
    unharmed = spared and (result.code, result.err) == (0, "")
    right = unharmed or is_said(result, os.strerror(errno.ENOSPC))
    left = list((folder / "run").rglob(".[0-9]*.*"))
    wrong = fault_of_going_on(folder, straight, arguments)
    right = right and not left and not wrong
    tally("disk full at a write", "right" if right else "wrong")
    assert right, (name, number, lasting, result, left, wrong)
    return True


FILES = ("config.yaml", "checkpoint.rows", "checkpoint.pt", "trace.csv", "samples.npz", "summary.json")
LATER = ("config.yaml", "checkpoint.rows", "trace.csv")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in LATER else n for n in FILES])
def test_a_write_fails(name: str, tmp_path: Path, finished_run: Path) -> None:
    """The second operation on the file, which is its first write."""
    assert trial(tmp_path, finished_run, RUN, name, 2, lasting=name in FILES[::2])


def test_the_line_names_the_file(tmp_path: Path) -> None:
    """Also where Hydra writes, whose errors have no name."""
    for name, shown in (("hydra.yaml", "run: "), ("trace.csv", "run/trace.csv: "), (".lock", "run/.lock: ")):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        result = run_on(Disk(tmp_path, name, 1 if name == ".lock" else 2), *RUN)
        assert is_said(result, os.strerror(errno.ENOSPC)) and f"error: {shown}" in result.err, result


OF_HYDRA = ("run", ".hydra", "hydra.yaml", "overrides.yaml", "run.log", ".lock")
DRAWINGS = ("plots", "bound.png", "density.png", "expectations.png", "parameters.png", "posterior.png")


def places(count: int) -> list[int]:
    """Which of so many operations on a file are tried: all, or of more than ten the first, the middle and the last."""
    return [*range(1, count + 1)] if count <= 10 else [1, 2, 3, count // 2, count]


@pytest.mark.slow
@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize("name", [*FILES, *OF_HYDRA, *DRAWINGS])
def test_each_write_fails(name: str, lasting: bool, tmp_path: Path, finished_run: Path) -> None:
    arguments = DRAWN if name in DRAWINGS else RUN
    for number in places(operations(tmp_path, arguments)[name]):
        assert trial(tmp_path, finished_run, arguments, name, number, lasting) or name == "run.log"


@pytest.mark.slow
def test_these_are_all_files_of_a_run(tmp_path: Path) -> None:
    """And each is opened and written, or a folder, or an opened lock."""
    found = operations(tmp_path, DRAWN)
    assert found.keys() == {*FILES, *OF_HYDRA, *DRAWINGS}
    assert all(count >= 2 for name, count in found.items() if "." in name[1:])


def limited(folder: Path, most: int, arguments: tuple[str, ...]) -> Result:
    """Run in a child whose files have at most so many bytes, by the kernel."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        with suppress(BaseException):
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
            result = run_in(folder, *arguments)
            os.write(writing, json.dumps([result.code, "", result.err]).encode())
        os._exit(0)
    os.close(writing)
    with GENUINE["open"](reading, encoding="utf-8") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return Result(*json.loads(text))


@pytest.mark.parametrize(
    "most", [1000, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 1, 10, 100, 2000, 3000, 5000, 8000, 9000))]
)
def test_the_kernel_refuses_to_write(most: int, tmp_path: Path, finished_run: Path) -> None:
    result = limited(tmp_path, most, RUN)
    said = result.code == 1 and result.err.count("\n") == 1 and os.strerror(errno.EFBIG) in result.err
    right = said and "raise the limit" in result.err and not fault_of_going_on(tmp_path, finished_run, RUN)
    tally("disk full at a write", "right" if right else "wrong")
    assert right, result


def test_a_limit_that_no_file_reaches_changes_nothing(tmp_path: Path, finished_run: Path) -> None:
    """Negative control."""
    assert limited(tmp_path, 10**7, RUN) == Result(0, "", "")
    assert trace_text(tmp_path / "run") == trace_text(finished_run)
