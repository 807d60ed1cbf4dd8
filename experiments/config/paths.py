"""Dotted paths into settings in plain dicts."""

import operator
from functools import reduce
from typing import Any


def setting_at(settings: dict[str, Any], path: str) -> Any:
    """Return the setting at a path."""
    return reduce(operator.getitem, path.split("."), settings)


def set_setting(settings: dict[str, Any], path: str, value: Any) -> None:
    """Set the setting at a path."""
    *parents, last = path.split(".")
    reduce(operator.getitem, parents, settings)[last] = value
