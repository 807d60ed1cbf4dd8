"""Standard output and standard error that lose what they cannot write, and raise nothing for it.

A terminal whose encoding has no ± costs the ±; a closed pipe or a full disk costs the output. What a run writes into
its folder does not depend on them.
"""

import io
import os
import sys

STREAMS = (("stdout", 1), ("stderr", 2))


class Forgiving(io.FileIO):
    """A file descriptor to which all is written that can be."""

    def write(self, data) -> int:  # type: ignore[no-untyped-def]
        """Return the number of bytes taken, which are lost where the stream takes none."""
        try:
            return super().write(data) or len(data)
        except OSError:
            return len(data)


def forgive_streams() -> None:
    """Let the streams of this process forgive, where they are those that Python opened."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= STREAMS[-1][1]:
        pass  # one that was closed would be the next file's, and output would go into it
    os.close(descriptor)
    for name, number in STREAMS:
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(number, "w", closefd=False, errors="replace", encoding="utf-8"))  # noqa: SIM115
        elif stream is getattr(sys, f"__{name}__") and isinstance(stream, io.TextIOWrapper):
            raw = io.BufferedWriter(Forgiving(number, "w", closefd=False))
            kept = {key: getattr(stream, key) for key in ("encoding", "line_buffering", "write_through")}
            setattr(sys, name, io.TextIOWrapper(raw, errors="replace", **kept))
