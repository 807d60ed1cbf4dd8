"""Checkpoints: everything that a run needs to go on bit for bit.

`checkpoint.pt` is what `torch.save` writes and a last line with the BLAKE2b digest of all bytes before it. It holds the
state after `done` steps, the identity of the run's settings, and number, form and digest of the recorded rows. The rows
themselves stand once, in `checkpoint.rows`, to whose end each checkpoint adds those that are new; a checkpoint reads as
many as it counts, so that rows of a checkpoint that never came about do no harm. The checkpoint before the last is kept
as `checkpoint.previous.pt`, and is taken where the last one is missing or not what its digest says.

The order of writing makes every moment a safe one to be killed in: rows, then the new checkpoint under a temporary
name, then a second name for the one that was there, then the rename.
"""

import hashlib
import io
import logging
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vi_core.errors import DataError
from vi_core.storage.files import explained, replacing

log = logging.getLogger(__name__)
VERSION = 2
MARK = b"\nBLAKE2b "  # before the digest, which is the last thing in the file
DIGITS = 64
RECORDED = ("values", "parameters", "held_out", "steps", "seconds")  # what a row consists of, in this order
ENDS = (None, "converged", "diverged")


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


def digest(content: bytes | memoryview) -> bytes:
    """Return the digest of some bytes, as hexadecimal digits."""
    return hashlib.blake2b(content, digest_size=DIGITS // 2).hexdigest().encode()


class CheckpointFile:
    """The checkpoints of a run: the last one, the one before, and the rows of both.

    Args:
        path: Of the last one; the other files stand beside it.
        content: That the run goes on from, as `load` returned it, or None for a new run.

    Attributes:
        rows: How many rows are in the file.
    """

    def __init__(self, path: Path, content: dict[str, Any] | None = None):
        self.path = path
        stored = (content or {}).get("rows", {"count": 0, "bytes": 0})
        self.rows, self.size = stored["count"], stored["bytes"]
        self.hash = hashlib.blake2b(digest_size=DIGITS // 2)
        if self.rows:
            with rows_path(path).open("rb") as file:
                self.hash.update(file.read(self.size))
        self.good = content is not None and content.get("path") == path.name

    def save(self, content: dict[str, Any]) -> None:
        """Write a checkpoint, completely or not at all, and keep the last one beside it.

        Args:
            content: Plain values and tensors, in dicts and lists; under `recorder` the rows that are new.

        Raises:
            Unwritable: In one line, where the disk is full or the folder is gone.
        """
        recorder = content["recorder"]
        fresh = {name: recorder[name].cpu() for name in RECORDED if recorder[name] is not None}
        count = self.rows + len(recorder["steps"])
        fresh["held_out"], opened = fresh["held_out"][: len(recorder["steps"])], fresh["held_out"][-1:].clone()
        block = packed(fresh)
        self._append(block)
        stored = {
            "count": count,
            "bytes": self.size + len(block),
            "digest": self.hash.hexdigest(),
            "form": [[name, str(tensor.numpy().dtype), list(tensor.shape[1:])] for name, tensor in fresh.items()],
        }
        rest = {name: value for name, value in recorder.items() if name not in RECORDED}
        buffer = io.BytesIO()
        whole = content | {"version": VERSION, "rows": stored, "recorder": rest | {"open_held_out": opened}}
        torch.save(whole, buffer)
        text = buffer.getbuffer()
        with replacing(self.path) as unfinished:
            with unfinished.open("wb") as file:
                file.write(text)
                file.write(MARK + digest(text))
            if self.good:
                self._keep_last()
        self.rows, self.size, self.good = count, stored["bytes"], True

    def _append(self, block: bytes) -> None:
        """Put new rows behind those that count, and wait until they are on the disk."""
        if not block and self.size:
            return
        with explained(rows_path(self.path)), rows_path(self.path).open("r+b" if self.size else "wb") as file:
            file.truncate(self.size)
            file.seek(self.size)
            file.write(block)
            file.flush()
            os.fsync(file.fileno())
        self.hash.update(block)

    def _keep_last(self) -> None:
        """Give the last checkpoint a second name, so that the next one can take its own, or copy it."""
        beside = self.path.with_name(f".{os.getpid()}.{previous_path(self.path).name}")
        beside.unlink(missing_ok=True)
        try:
            os.link(self.path, beside)
        except OSError:
            shutil.copyfile(self.path, beside)
        try:
            os.replace(beside, previous_path(self.path))
        finally:
            beside.unlink(missing_ok=True)  # also after a rename to another name of the same file, which does nothing


def rows_path(path: Path) -> Path:
    """Return where the rows of a checkpoint are."""
    return path.with_suffix(".rows")


def previous_path(path: Path) -> Path:
    """Return where the checkpoint before the last one is."""
    return path.with_suffix(".previous.pt")


def packed(rows: dict[str, torch.Tensor]) -> bytes:
    """Return rows, tensors (T, ...) on the host, as bytes, one row after the other."""
    arrays = {name: tensor.contiguous().numpy() for name, tensor in rows.items()}
    form = np.dtype([(name, array.dtype, array.shape[1:]) for name, array in arrays.items()])
    table = np.empty(len(arrays["steps"]), form)
    for name, array in arrays.items():
        table[name] = array
    return table.tobytes()


def unpacked(block: bytes, form: list[list[Any]], count: int) -> dict[str, torch.Tensor]:
    """Return the rows that `packed` has made bytes of."""
    table = np.frombuffer(block, np.dtype([(name, kind, tuple(shape)) for name, kind, shape in form]), count)
    return {name: torch.from_numpy(table[name].copy()) for name, _, _ in form}


def load(path: Path) -> dict[str, Any]:
    """Read the last checkpoint or, where it is damaged or missing, the one before, and say so.

    Returns:
        What `Loop.state_dict` returned when it was written, with `version`, `rows` and the name `path` of its file.

    Raises:
        DataError: In one line, where there is none that can be read.
    """
    previous = previous_path(path)
    if not path.is_file() and not previous.is_file():
        raise DataError(f"there is no checkpoint at {path}; give the folder of a run that has written one.")
    try:
        return read(path)
    except DataError as error:
        if not previous.is_file():
            raise
        content = read(previous)
        log.warning("%s; the one before it is taken, of step %d", str(error).partition(";")[0], content["done"])
        return content


def read(path: Path) -> dict[str, Any]:
    """Read one checkpoint with its rows; raise `DataError` when it is missing, damaged or of another version."""
    try:
        stored = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); start the run again.") from error
    start = len(stored) - DIGITS - len(MARK)
    marked = stored[max(start, 0) :].startswith(MARK)
    if marked and digest(stored[:start]) != stored[start + len(MARK) :]:
        raise DataError(f"{path} is damaged (its digest is another); start the run again without resume.")
    try:
        content = torch.load(io.BytesIO(stored), weights_only=True, map_location="cpu")
    except Exception as error:
        raise DataError(f"{path} is damaged ({type(error).__name__}); start the run again without resume.") from error
    version = content.get("version") if isinstance(content, dict) else None
    if version not in (1, VERSION) or isinstance(version, bool):
        raise DataError(f"{path} has version {version}, and this program reads version {VERSION}; start the run again.")
    if version == VERSION and not marked:
        raise DataError(f"{path} is damaged (it has no digest); start the run again without resume.")
    check_progress(content, path)
    return (with_rows(content, path) if version == VERSION else content) | {"path": path.name}


def check_progress(content: dict[str, Any], path: Path) -> None:
    """Refuse a checkpoint whose number of steps is not the one that its replicates have made.

    Args:
        content: Of any version.
        path: For the message.
    """
    done, seconds, ended = (content.get(name) for name in ("done", "seconds", "ended"))
    step = content.get("step")
    if not isinstance(step, dict) or "good_steps" not in step:
        raise DataError(f"{path} is incomplete (there is no step in it); start the run again without resume.")
    made, alive = int(step["good_steps"].max()), bool(step["alive"].any())
    if type(done) is not int or done < made or (alive and done != made):
        raise DataError(f"{path} says done={done}, and its replicates have made {made} steps; start the run again.")
    if type(seconds) is not float or not 0 <= seconds < math.inf or ended not in ENDS:
        raise DataError(f"{path} says seconds={seconds}, ended={ended}, which cannot be; start the run again.")


def with_rows(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint with the rows that it counts.

    Raises:
        DataError: Where they are not those that were written.
    """
    stored, recorder = content["rows"], content["recorder"]
    place = rows_path(path.with_name(path.name.replace(".previous", "")))
    try:
        with place.open("rb") as file:
            block = file.read(stored["bytes"])
    except OSError as error:
        raise DataError(f"{place} cannot be read ({error.strerror}); start the run again.") from error
    if digest(block).decode() != stored["digest"]:
        raise DataError(f"{place} is damaged (its digest is another); start the run again without resume.")
    rows = unpacked(block, stored["form"], stored["count"])
    opened = recorder["open_held_out"]
    rest = {name: value for name, value in recorder.items() if name != "open_held_out"}
    whole = {"values": None} | rest | rows | {"held_out": torch.cat([rows["held_out"], opened])}
    return content | {"recorder": whole}
