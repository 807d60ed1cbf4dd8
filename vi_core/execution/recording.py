"""Whether the operations of the present call are recorded, to be repeated without Python.

A recorded operation is repeated in all later steps, so that neither a branch nor a shape may depend on values. A
compiler, in addition, fuses plain elementwise operations better than it can look into a kernel that is fused already or
into a loop over samples: a part that has both forms of a formula asks `is_tracing()`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

_active: ContextVar[Literal["", "recording", "tracing"]] = ContextVar("tracing", default="")


def is_recorded() -> bool:
    """Whether operations are recorded: for a replay, a CUDA graph or a compiler."""
    return _active.get() != ""


def is_tracing() -> bool:
    """Whether operations are recorded for a compiler."""
    return _active.get() == "tracing"


@contextmanager
def recording(kind: Literal["recording", "tracing"] = "recording") -> Iterator[None]:
    """Context manager: operations inside are recorded, for replay or a compiler; an enclosing trace stays active."""
    token = _active.set("tracing" if is_tracing() else kind)
    try:
        yield
    finally:
        _active.reset(token)
