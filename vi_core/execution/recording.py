"""Whether a step is traced: for a compiler, or mapped over runs by `torch.func.vmap`.

Neither can look into a kernel that is fused already, nor into a loop over samples, and a compiler fuses plain
elementwise operations better: a part that has both forms of a formula asks `is_tracing()`. Recorded operations, also
those of a replay and of a CUDA graph, are repeated in all later steps, so that neither a branch nor a shape of any step
may depend on values.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_active = ContextVar("tracing", default=False)


def is_tracing() -> bool:
    """Whether operations are traced."""
    return _active.get()


@contextmanager
def tracing() -> Iterator[None]:
    """Context manager: operations inside are traced."""
    token = _active.set(True)
    try:
        yield
    finally:
        _active.reset(token)
