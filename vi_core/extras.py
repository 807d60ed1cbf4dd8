"""Packages that only some parts need, which the project's extras install."""

from importlib import import_module
from typing import Any

from vi_core.errors import ConfigError


def needed(package: str, extra: str) -> Any:
    """Return the module of a package that an extra installs.

    Raises:
        ConfigError: Where it, or a package that it needs, is not installed.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} is not installed; pip install 'vi-lab[{extra}]' adds it.") from error
