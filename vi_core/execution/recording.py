"""Whether the operations of the present call are noted, to be repeated without Python.

What is noted holds for all later steps: neither a branch nor a shape may depend on values. And a fused kernel or a loop
over samples that is fast by itself stands in a compiler's way: where both exist, the code asks here and writes plain
elementwise operations out, which the compiler fuses better.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

_active: ContextVar[Literal["", "recording", "tracing"]] = ContextVar("tracing", default="")


def is_recorded() -> bool:
    """Whether operations are noted, for an interpreter or for a compiler."""
    return _active.get() != ""


def is_tracing() -> bool:
    """Whether they are noted for a compiler."""
    return _active.get() == "tracing"


@contextmanager
def recording() -> Iterator[None]:
    """Mark what runs inside as noted for an interpreter, or for whom it was noted already."""
    token = _active.set(_active.get() or "recording")
    try:
        yield
    finally:
        _active.reset(token)


@contextmanager
def tracing() -> Iterator[None]:
    """Mark what runs inside as noted for a compiler."""
    token = _active.set("tracing")
    try:
        yield
    finally:
        _active.reset(token)
