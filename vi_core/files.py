"""Atomic writing of files: a reader sees a complete file or none, whenever the program ends."""

import os
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
