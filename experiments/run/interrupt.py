"""Ctrl-C and SIGTERM: a run finishes its step, writes everything, then leaves with the usual exit code.

The exit code of a signal is 128 and its number, which shells and schedulers expect.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


class Interrupt:
    """Whether a signal has asked the loop to end.

    Args:
        then: Called once, when a signal arrives.

    Attributes:
        signal: Number of the signal that has arrived; None before.
    """

    signal: int | None = None

    def __init__(self, then: Callable[[], None] = lambda: None):
        self.then = then

    def note(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal: take note of the first, and end the process at once at the second."""
        if self.signal is not None:
            raise SystemExit(EXIT_CODES[signal.Signals(number)])
        self.signal = number
        self.then()

    def requested(self) -> bool:
        """Whether a signal has arrived."""
        return self.signal is not None


@contextmanager
def interruptible(then: Callable[[], None] = lambda: None) -> Iterator[Interrupt]:
    """Context manager: a signal asks what runs inside to end in good order, and ends the process behind it.

    The handlers that were in force before come back. A sweep ends with the job in which the signal came.

    Args:
        then: Called once, when a signal arrives.

    Raises:
        SystemExit: Behind the block, where a signal has arrived in it: 130 for Ctrl-C, 143 for SIGTERM.
    """
    interrupt = Interrupt(then)
    previous = {number: signal.signal(number, interrupt.note) for number in EXIT_CODES}
    try:
        yield interrupt
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if interrupt.signal is not None:
        raise SystemExit(EXIT_CODES[signal.Signals(interrupt.signal)])
