"""Readers of files that may be damaged or made by others: each damage is a `DataError`, one line that names the file.

A file is opened only where it is a regular one of bounded size, so that no pipe blocks and no device answers. YAML is
looked through as a stream of events before anything is built from it, because an anchor may contain itself, or stand
for more nodes than memory holds.
"""

import json
import math
import stat
from pathlib import Path
from typing import Any

import yaml

from vi_core.errors import DataError

MOST_TEXT = 2**26  # bytes of a text file; a run's own are below 2^20
MOST_BYTES = 2**32  # of a file of numbers
MOST_NODES = 200_000  # of a YAML file with its aliases written out; a run's has some hundred
DEEPEST = 50  # level of nesting of a YAML file
MEND = "restore it, or give another one"
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the library in C, where PyYAML was built with it


def damaged(path: Path, reason: object) -> DataError:
    """Return the error of a damaged file, with the reason in one line of at most 200 characters."""
    words = " ".join(str(reason).replace('in "<unicode string>", ', "").split())
    return DataError(f"{path} is damaged ({words[:200]}); {MEND}.")


def regular_file(path: Path, most: int) -> Path:
    """Return `path`, which must be a regular file of at most `most` bytes; a link may lead to it."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(
            f"{path.parent} is not the folder of a finished run: {path.name} is missing; give another one."
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); {MEND}.") from error
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe or a device"
        raise DataError(f"{path} is {kind}, where a file is expected; {MEND}.")
    if found.st_size > most:
        raise DataError(f"{path} has {found.st_size} bytes, more than {most}; {MEND}.")
    return path


def read_text(path: Path) -> str:
    """Return the text of a file in UTF-8."""
    try:
        return regular_file(path, MOST_TEXT).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise damaged(path, "it is not UTF-8 text") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); {MEND}.") from error


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file, in which every number is finite."""
    return parse_json(read_text(path), path)


def parse_json(text: str, path: Path) -> dict[str, Any]:
    """Return the object that JSON from the file `path` describes, in which every number is finite."""
    try:
        content = json.loads(text, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise damaged(path, error) from error
    if not isinstance(content, dict):
        raise damaged(path, "it is no JSON object")
    return content


def _finite(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError(f"{text[:40]} is no finite number")
    return float(text)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file, in plain dicts, lists, texts, numbers, booleans and null."""
    text = check_yaml(path)
    try:
        content = yaml.load(text, LOADER)
    except Exception as error:  # PyYAML lets errors of many kinds through, such as KeyError for `!!bool 2`
        raise damaged(path, error) from error
    if not isinstance(content, dict):
        raise damaged(path, "it is no mapping of settings")
    if strange := strange_value(content):
        raise damaged(path, strange)
    return content


def check_yaml(path: Path) -> str:
    """Return the text of a YAML file that parses, with no anchor that contains itself or stands for too much."""
    text = read_text(path)
    try:
        count_nodes(text)
    except (yaml.YAMLError, ValueError) as error:
        raise damaged(path, error) from error
    return text


def count_nodes(text: str) -> int:
    """Return the number of nodes of a YAML text with its aliases written out; takes time for the text alone.

    Raises:
        ValueError: For a recursive anchor, more than `MOST_NODES` nodes or more than `DEEPEST` levels.
    """
    count, sizes, above = 0, {}, []  # nodes so far; below each complete anchor; (anchor, nodes before) of open nodes
    for event in yaml.parse(text, LOADER):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise ValueError(f"*{event.anchor} stands inside its own anchor, or for no anchor")
            count += sizes[event.anchor]
        elif isinstance(event, yaml.NodeEvent):
            sizes.pop(event.anchor, None)
            above.append((event.anchor, count))
            count += 1
        if isinstance(event, (yaml.ScalarEvent, yaml.CollectionEndEvent)):
            anchor, before = above.pop()
            sizes[anchor] = count - before
        if count > MOST_NODES or len(above) > DEEPEST:
            raise ValueError(f"it has more than {MOST_NODES} nodes or {DEEPEST} levels, with its aliases written out")
    return count


def strange_value(content: Any, path: str = "") -> str:
    """Return what is not plain in content from YAML; empty where everything is."""
    if isinstance(content, dict):
        names = [key for key in content if not isinstance(key, str)]
        if names:
            return f"{path or 'it'} has a key that is no text: {names[0]}"
        entries = [(f"{path}.{key}".lstrip("."), value) for key, value in content.items()]
    elif isinstance(content, list):
        entries = [(f"{path}[{i}]", value) for i, value in enumerate(content)]
    elif content is None or isinstance(content, (str, int, float)):
        return ""
    else:
        return f"{path} is a {type(content).__name__}"
    return next(filter(None, (strange_value(value, place) for place, value in entries)), "")
