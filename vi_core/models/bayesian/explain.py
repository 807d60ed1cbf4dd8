"""Errors inside the methods of a model of one's own, told in one line: which method, which line of it, and what to do.

What torch says of mapped code speaks of torch's own code, so that the known reasons are told in other words.
"""

import inspect
import linecache
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType
from typing import Any

from torch import Tensor

from vi_core.errors import ConfigError, LabError, Unsupported
from vi_core.models.bayesian.laws import Named

HERE = Path(__file__).parents[2]  # of the library
LONGEST = 240  # characters of a message of Python or torch, and
LINE = 80  # of a line of the user's code, that are shown
METHODS = {
    "prior": ("data",),
    "likelihood": ("z", "data"),
    "quantities": ("z", "data"),
    "statistics": ("data",),
    "weights": ("data",),
}
"""Those that a subclass writes, with their arguments."""
UNMAPPED = {
    ".item()": "takes a number out of a tensor, by .item(), float() or the module math; use functions of torch alone",
    "data-dependent": (
        "asks for the value of a latent, by if, max() or a mask; write it without branches on values, by torch.where "
        "or torch.maximum"
    ),
    "positive-definite": (
        "makes a matrix that is not positive definite, or singular, at a draw of q; use dtype=float64, or add a small "
        "multiple of the identity to it, such as 1e-6"
    ),
    "dynamic shape": "picks elements of a latent by a mask or by their values; use torch.where",
    "detach": "makes a new tensor of a latent, by torch.tensor; use the latent itself, or torch.stack",
    "random operation": "draws random numbers; return a law, and make constants in the constructor",
    "storage": "makes a NumPy array of a latent; use functions of torch, such as torch.exp",
    "in-place": "changes a tensor in place; make a new one, as in a + b in place of a += b",
    "inplace": "changes a tensor in place; make a new one, as in a + b in place of a += b",
    "written-to": "changes a tensor in place; make a new one, as in a + b in place of a += b",
}
"""What torch says of code that cannot be mapped over draws, and what is to be done about it."""


def require_arguments(model: object) -> None:
    """Raise `ConfigError` for a method that does not take the arguments that it is called with."""
    for method, names in METHODS.items():
        try:
            inspect.signature(getattr(model, method)).bind(*names)
        except TypeError:
            wanted = f"def {method}({', '.join(('self', *names))})"
            raise ConfigError(f"{type(model).__name__}.{method} has other arguments; write it as {wanted}.") from None


def called(model: object, method: str, call: Callable[[], Any], *read: Named) -> Any:
    """Return what a method of the subclass returns; its errors become one line that names it.

    Args:
        model: Whose method it is.
        method: Its name, for messages.
        call: The call.
        read: Latents and data that it is given, whose shapes are told where they do not go together.

    Raises:
        LabError: Whatever is raised.
    """
    try:
        return call()
    except LabError:
        raise
    except Exception as error:
        raise failure(model, method, error, read) from error


def failure(model: object, method: str, error: Exception, read: Iterable[Named]) -> ConfigError:
    """Return the error of one line for one that a method raised; arguments as of `called`."""
    message = f"{type(model).__name__}.{method} failed{place(model, error)}: {said(error)}"
    if not isinstance(error, (RuntimeError, ValueError, IndexError)):
        return ConfigError(f"{message}.")
    shapes = [f"{name} {described(values[name])}" for values in read for name in sorted(values.read & values.keys())]
    message += f"; shapes: {', '.join(shapes[:8])}" if shapes else ""
    if any(word in str(error) for word in ("dtype", "scalar type", "'Long'")):
        message += "; give all tensors one floating type, as in data['x'].double()"
    message += "; add a small multiple of the identity, such as 1e-6" if "positive-definite" in str(error) else ""
    return ConfigError(f"{message}.")


@contextmanager
def mapped_code(model: object, rows: str = "") -> Iterator[None]:
    """Context manager: an error in methods that `torch.func.vmap` maps becomes one line.

    Args:
        model: Whose methods they are.
        rows: What data they see, for messages, such as ` with 10 of 100 rows`.

    Raises:
        Unsupported: In place of anything but a `LabError`.
    """
    try:
        yield
    except LabError:
        raise
    except Exception as error:
        owner = ".".join(filter(None, (type(model).__name__, method_of(model, error))))
        known = next((told for word, told in UNMAPPED.items() if word in str(error)), f"failed{rows}: {said(error)}")
        raise Unsupported(f"{owner}{place(model, error)} {known}.") from error


def codes_of(model: object) -> dict[CodeType, str]:
    """Return the methods that a subclass outside of the library wrote, by their code."""
    found = {getattr(getattr(type(model), method), "__code__", None): method for method in METHODS}
    return {code: method for code, method in found.items() if code and HERE not in Path(code.co_filename).parents}


def method_of(model: object, error: Exception) -> str:
    """Return the method of the user's in which an error was raised, or nothing."""
    codes = codes_of(model)
    called = [codes[frame.f_code] for frame, _ in traceback.walk_tb(error.__traceback__) if frame.f_code in codes]
    return called[-1] if called else ""


def place(model: object, error: Exception) -> str:
    """Return the line of the user's file that an error comes from, as part of a sentence; empty where it is unknown."""
    files = {code.co_filename for code in codes_of(model)}
    own = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename in files
    ]
    if not own:
        return ""
    file, number = own[-1]
    text = linecache.getline(file, number).strip()[:LINE]
    return f" in line {number}" + (f", `{text}`" if text else "")


def said(error: Exception) -> str:
    """Return an error's message in one line, with its kind where the message says too little."""
    text = " ".join(str(error).split()).rstrip(".")
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    if isinstance(error, (KeyError, AssertionError, ZeroDivisionError)) or not text:
        return f"{type(error).__name__} {text}".strip()
    return text


def described(value: Any) -> str:
    """Return shape and kind of numbers of a tensor."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{tuple(value.shape)}{'' if value.is_floating_point() else ' of whole numbers'}"
