"""Checkpoints: everything that a run needs to go on bit for bit, in one file that is replaced atomically."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from vi_core.errors import DataError
from vi_core.files import replacing

VERSION = 1


def random_state(device: torch.device) -> dict[str, Any]:
    """Return the state of torch's default random streams that a run on `device` uses.

    Returns:
        Tensors of bytes by the kind of device: always that of the processor, and that of the accelerator.
    """
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        state["mps"] = torch.mps.get_rng_state()
    return state


def restore_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Set torch's default random streams to a saved state."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
    if "mps" in state:
        torch.mps.set_rng_state(state["mps"])


@contextmanager
def same_draws_after(device: torch.device) -> Iterator[None]:
    """Context manager: the random streams of `device` are put back at the end."""
    random = random_state(device)
    try:
        yield
    finally:
        restore_random_state(random, device)


def save(path: Path, content: dict[str, Any]) -> None:
    """Write `content` to `path`, completely or not at all.

    Args:
        path: The file, which is replaced when the new one is complete.
        content: Plain values and tensors, in dicts and lists.
    """
    with replacing(path) as unfinished:
        torch.save({"version": VERSION, **content}, unfinished)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint; raise `DataError` when it is missing, damaged or of another version."""
    if not path.is_file():
        raise DataError(f"there is no checkpoint at {path}; give the folder of a run that has written one.")
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        raise DataError(f"{path} is damaged ({type(error).__name__}); start the run again without resume.") from error
    version = content.get("version") if isinstance(content, dict) else None
    if version != VERSION:
        raise DataError(f"{path} has version {version}, and this program reads version {VERSION}; start the run again.")
    return content
