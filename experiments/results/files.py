"""The files of a run and of a sweep: JSON, text and arrays, each complete or absent."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from vi_core.errors import DataError
from vi_core.files import replacing


def write_text(path: Path, text: str) -> None:
    """Write `text` atomically."""
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON atomically, with null for what is not finite."""
    write_text(path, json.dumps(_plain(content), indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object, or raise `DataError` in one line."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise DataError(f"there is no {path.name} in {path.parent}; give the folder of a finished run.") from error
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}).") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} is damaged (not a JSON object).")
    return content


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays atomically, compressed."""
    with replacing(path) as unfinished:
        np.savez_compressed(unfinished, allow_pickle=False, **arrays)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(element) for key, element in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(element) for element in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
