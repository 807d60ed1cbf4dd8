"""Exceptions whose message is one line for the user: what is wrong, and what to do.

Every request that the library refuses raises a subclass of `LabError`; the command line prints the message and exits
with code 1. Any other exception that escapes is a defect of the program, and keeps its traceback.
"""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class LabError(Exception):
    """A request that cannot be honoured; the message is one line for the user."""


class ConfigError(LabError):
    """An unknown key, a wrong type or a value out of range."""


class DataError(LabError):
    """A data file that is missing, truncated, malformed or not what its checksum says."""


class Unwritable(LabError):
    """A file that cannot be written: the disk is full, or its folder is gone."""


class Unsupported(LabError):
    """A combination of parts that has no meaning, with the way out."""


class NonFinite(LabError):
    """A bound or a gradient became infinite or NaN."""


@contextmanager
def matrices_factorized() -> Iterator[None]:
    """Context manager: a matrix of a model that has no Cholesky factor is an error of one line.

    Raises:
        Unsupported: In place of an error of torch.linalg.
    """
    try:
        yield
    except RuntimeError as error:
        import torch  # here alone: refusals of settings do without it

        if not isinstance(error, torch.linalg.LinAlgError):
            raise
        raise Unsupported(
            "a matrix of the model is not positive definite, or singular, at a draw of q; use dtype=float64, or add a "
            f"small multiple of the identity to it, such as 1e-6 ({' '.join(str(error).split())[:120]})."
        ) from error


def did_you_mean(word: str, candidates: Iterable[str], place: str = "") -> str:
    """Return ` Did you mean 'x'?` for the candidate closest to `word`, or an empty string.

    Args:
        word: What was written.
        candidates: What could have been meant.
        place: What is to be written before it, such as `trainer.`.
    """
    close = difflib.get_close_matches(word, [str(c) for c in candidates], n=1, cutoff=0.6)
    return f" Did you mean '{place}{close[0]}'?" if close else ""


def require(condition: bool, message: str) -> None:
    """Raise `ConfigError(message)` unless `condition` holds; constructors check their ranges with it."""
    if not condition:
        raise ConfigError(message)
