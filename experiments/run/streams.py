"""Standard output and standard error that lose what they cannot write, and raise nothing for it.

A terminal whose encoding has no ± costs the ±; a closed pipe or a full disk costs the output. What a run writes into
its folder does not depend on them.
"""

import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO


class Forgiving(io.FileIO):
    """A file descriptor to which all is written that can be."""

    def write(self, data) -> int:  # type: ignore[no-untyped-def]
        """Return the number of bytes taken, which are lost where the stream takes none."""
        try:
            return super().write(data) or len(data)
        except OSError:
            return len(data)


@contextmanager
def forgiving_streams() -> Iterator[None]:
    """Context manager: the streams that Python opened for this process forgive; others stay as they are.

    A log file that takes no more lines loses them too: what it has is on the terminal.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass  # one that was closed would be the next file's, and output would go into it
    os.close(descriptor)
    out, err = forgiving(sys.stdout, sys.__stdout__, 1), forgiving(sys.stderr, sys.__stderr__, 2)
    logging.raiseExceptions, reports = False, logging.raiseExceptions
    with redirect_stdout(out), redirect_stderr(err):
        try:
            yield
        finally:
            logging.raiseExceptions = reports
            out.flush()
            err.flush()


def forgiving(stream: TextIO | None, opened: TextIO | None, descriptor: int) -> TextIO:
    """Return a stream that forgives, in place of the one that Python opened, or found closed.

    Args:
        stream: `sys.stdout` or `sys.stderr`; None where it was closed when Python started.
        opened: What Python made of it at the start. A stream that was put in its place since, as tests do, stays.
        descriptor: 1 for standard output, 2 for standard error.
    """
    if stream is not None and not (stream is opened and isinstance(stream, io.TextIOWrapper)):
        return stream
    names = ("encoding", "line_buffering", "write_through")
    kept: dict[str, Any] = {"encoding": "utf-8"} if stream is None else {name: getattr(stream, name) for name in names}
    raw = io.BufferedWriter(Forgiving(descriptor, "w", closefd=False))
    return io.TextIOWrapper(raw, errors="replace", **kept)
