"""Whether the present call is traced for a compiler.

A fused kernel or a loop over samples that is fast by itself stands in the compiler's way: where both exist, the code
asks here and writes plain elementwise operations out, which the compiler fuses better.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_active: ContextVar[bool] = ContextVar("tracing", default=False)


def is_tracing() -> bool:
    """Whether operations are recorded for a compiler instead of being done."""
    return _active.get()


@contextmanager
def tracing() -> Iterator[None]:
    """Mark what runs inside as traced."""
    token = _active.set(True)
    try:
        yield
    finally:
        _active.reset(token)
