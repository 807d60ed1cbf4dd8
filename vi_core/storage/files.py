"""Files that a reader finds complete or not at all, and files that no other user can have written."""

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vi_core.errors import Unwritable

WAYS_OUT = {
    errno.ENOSPC: "free some space, then go on with resume=, or start again where there is no checkpoint",
    errno.EDQUOT: "free some of your quota, then go on with resume=, or start again where there is no checkpoint",
    errno.EFBIG: "raise the limit on the size of files, then go on with resume=, or start again without a checkpoint",
    errno.ENOENT: "its folder was removed or renamed while it was in use; put it back, or start again elsewhere",
}
"""What a user can do about an error of the operating system, by its number."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Context manager: yields a temporary path in the same folder, which is renamed to `path` at the end of the block.

    The file's content and then the rename are on the disk when the block has ended. After an error the temporary file
    is deleted, and `path` stays as it was.

    Raises:
        Unwritable: In one line, where the operating system refuses.
    """
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    with explained(path):
        try:
            yield temporary
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            os.replace(temporary, path)
            sync_folder(path.parent)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Context manager: an error of the operating system inside becomes one line that names `path` and a way out."""
    try:
        yield
    except OSError as error:
        way_out = WAYS_OUT.get(error.errno or 0, "choose another folder or file (a run's is hydra.run.dir)")
        raise Unwritable(f"{path}: {error.strerror or error}; {way_out}.") from error


def sync_folder(folder: Path) -> None:
    """Return when the names of the files in `folder` are on the disk."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files in `folder`, and in folders below, that processes left which live no more."""
    for path in folder.rglob(".*.*"):
        found = re.match(r"\.(\d+)\..", path.name)
        if found and not _lives(int(found[1])):
            path.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    """Whether a process with this number lives on this machine, of whatever user."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def file_and_name(path: str) -> tuple[Path, str]:
    """Return the file and the name in a path such as my_model.py:Logistic; the name is empty where there is none."""
    file, colon, name = path.rpartition(":")
    return (Path(file).expanduser(), name) if colon and name.isidentifier() else (Path(path).expanduser(), "")


def is_private(place: Path | int) -> bool:
    """Whether this user owns an existing file or folder, or a file that is open, and no other user may write it."""
    found = os.stat(place)
    return found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
