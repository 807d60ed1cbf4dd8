"""Writing of a run's files: JSON, YAML, text and arrays; each file is complete or absent."""

import csv
import io
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from vi_core.storage.files import replacing


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8."""
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Return rows of cells as the text of a CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON object atomically, with null in place of infinities and NaN."""
    write_text(path, json.dumps(_plain(content), indent=2, allow_nan=False) + "\n")


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write named arrays to an .npz file atomically, compressed."""
    with replacing(path) as unfinished:
        np.savez_compressed(unfinished, allow_pickle=False, **arrays)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(element) for key, element in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(element) for element in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
