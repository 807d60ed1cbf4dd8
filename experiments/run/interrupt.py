"""Ctrl-C and SIGTERM: a run finishes its step, writes everything, then leaves with the usual exit code.

The exit code of a signal is 128 and its number, which shells and schedulers expect.
"""

import signal
from types import FrameType, TracebackType

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


class Interrupt:
    """While active, the first signal asks the loop to end; a second one ends the process at once.

    The handlers that were in force before come back at the end of the `with` block.

    Attributes:
        signal: Number of the signal that has arrived; None before.
    """

    def __init__(self):
        self.signal: int | None = None

    def __enter__(self) -> "Interrupt":
        self.previous = {number: signal.signal(number, self._note) for number in EXIT_CODES}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise SystemExit(EXIT_CODES[signal.Signals(number)])
        self.signal = number

    def requested(self) -> bool:
        """Whether a signal has arrived."""
        return self.signal is not None

    def leave(self) -> None:
        """End the process with the signal's exit code, if one has arrived; a sweep ends with it.

        Raises:
            SystemExit: 130 for Ctrl-C, 143 for SIGTERM.
        """
        if self.signal is not None:
            raise SystemExit(EXIT_CODES[signal.Signals(self.signal)])
