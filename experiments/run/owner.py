"""One owner of a folder: who writes into it holds its lock, which the kernel releases when the process ends.

A folder that holds results is never taken for a new run, and one in which another process is at work is refused. The
lock file `.lock` names the process; it goes with its owner, and one that a killed process left is no obstacle.
"""

import fcntl
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vi_core.errors import ConfigError, LabError, Unwritable
from vi_core.storage.files import explained

log = logging.getLogger(__name__)
LOCK = ".lock"
RESULTS = ("checkpoint*.pt", "samples.npz")
BEGUN = ("summary.json", "checkpoint*.pt", ".hydra")
"""What the folder of a job has one of, as soon as the job has begun."""
held: set[Path] = set()  # folders whose locks this process holds


class Occupied(LabError):
    """The folder holds another run, or another process is at work in it; nothing may be written."""


@contextmanager
def owned(folder: Path, refuse: Callable[[Path], None] = lambda folder: None) -> Iterator[None]:
    """Context manager: this process alone writes into `folder`, which is made; a folder left empty goes again.

    Args:
        folder: Of a run or a sweep. Where this process owns it already, nothing changes.
        refuse: Raises for a folder that may not be taken; asked before anything is made, and again under the lock.

    Raises:
        Occupied: Where another process owns it.
    """
    place = folder.resolve()
    if place in held:
        yield
        return
    refuse(folder)
    descriptor = _lock(folder)
    held.add(place)
    try:
        refuse(folder)
        yield
    finally:
        held.discard(place)
        _release(place, descriptor)


def _lock(folder: Path) -> int:
    """Return the descriptor of the folder's lock file, locked."""
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            if os.path.lexists(folder) and not folder.is_dir():
                raise
        try:
            descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        except FileNotFoundError:
            continue  # the folder was empty, and its owner has just removed it
        if _acquire(folder, descriptor):
            return descriptor
        os.close(descriptor)


def _acquire(folder: Path, descriptor: int) -> bool:
    """Lock an open lock file; return whether it still is that of the folder, and not one that its owner removed."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.read(descriptor, 20).decode(errors="replace") or "another"
        os.close(descriptor)
        raise Occupied(
            f"{folder} is in use by process {owner}; wait until that has ended, or choose another folder."
        ) from error
    except OSError as error:
        log.warning("%s cannot be locked (%s): start no second run there", folder, error.strerror)
    if not os.fstat(descriptor).st_nlink:
        return False
    try:
        with explained(folder / LOCK):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())
    except Unwritable:
        _release(folder, descriptor)
        raise
    return True


def _release(folder: Path, descriptor: int) -> None:
    """Remove the lock file, then unlock it, also for children that have inherited it."""
    with suppress(OSError):  # the folder may be gone
        (folder / LOCK).unlink()
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)
    with suppress(OSError):
        folder.rmdir()


def refuse_results(folder: Path) -> None:
    """Refuse a folder that holds a run with results, or a sweep, for a new run.

    What a run left that failed before its first checkpoint is no result: the run can be started again there.
    """
    if not may_begin(folder):
        raise Occupied(f"{folder} already holds a run; choose another hydra.run.dir, or go on with resume={folder}.")
    if (folder / "multirun.yaml").exists():
        raise Occupied(f"{folder} already holds a sweep; choose another hydra.run.dir.")


def refuse_jobs(folder: Path) -> None:
    """Refuse a folder that holds a run, or a sweep that has begun, for a new sweep."""
    refuse_run(folder, "choose another hydra.sweep.dir")
    jobs = folder.iterdir() if folder.is_dir() else ()
    if any(_holds(job, BEGUN) for job in jobs):
        raise Occupied(
            f"{folder} already holds a sweep; choose another hydra.sweep.dir, or go on with sweep.resume={folder}."
        )


def refuse_run(folder: Path, advice: str) -> None:
    """Refuse the folder of a run for a sweep."""
    if _holds(folder, (*RESULTS, *BEGUN, "config.yaml")):
        raise Occupied(f"{folder} holds a run, and a sweep needs a folder of its own; {advice}.")


def may_begin(folder: Path) -> bool:
    """Whether a folder holds no results, at most a note that a run failed before its first checkpoint."""
    return not _holds(folder, RESULTS) and _is_note(folder / "summary.json")


def _holds(folder: Path, names: Iterable[str]) -> bool:
    return any(True for name in names for _ in folder.glob(name))


def _is_note(path: Path) -> bool:
    """Whether a summary is absent, or says no more than that its run failed."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "error" in content and "environment" not in content


def forget_failure(folder: Path) -> None:
    """Remove the note of a run that failed before its first checkpoint, and is started again."""
    if may_begin(folder):
        (folder / "summary.json").unlink(missing_ok=True)


def discard(folder: Path) -> None:
    """Remove from the folder of a job what Hydra writes when a job begins; it stays where it holds anything else."""
    if {path.name for path in folder.iterdir()} - {".hydra", "run.log", LOCK}:
        return
    for name in (*(f".hydra/{name}.yaml" for name in ("config", "hydra", "overrides")), "run.log"):
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):
        (folder / ".hydra").rmdir()


def given_folder(value: object, key: str) -> Path:
    """Return the folder that a setting names; refuse an empty one, which would be the present folder."""
    if value is None or not str(value).strip():
        raise ConfigError(f"{key}= is empty; name a folder, or leave it out for one with a date.")
    return Path(str(value))
