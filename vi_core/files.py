"""Files that a reader finds complete or not at all, and files that no other user can have written."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Context manager: yields a temporary path in the same folder, which is renamed to `path` at the end of the block.

    After an error the temporary file is deleted, and `path` stays as it was.
    """
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def file_and_name(path: str) -> tuple[Path, str]:
    """Return the file and the name in a path such as my_model.py:Logistic; the name is empty where there is none."""
    file, colon, name = path.rpartition(":")
    return (Path(file).expanduser(), name) if colon and name.isidentifier() else (Path(path).expanduser(), "")


def is_private(path: Path) -> bool:
    """Whether this user owns an existing file or folder and no other user may write it."""
    found = path.stat()
    return found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
