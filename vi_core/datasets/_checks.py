"""Range checks that the constructors of the data sets share; each refusal is one line for the user."""

import math

from vi_core.errors import ConfigError, require


def whole(name: str, value: object, least: int, most: int | None = None) -> None:
    """Refuse `value` of `dataset.<name>` unless it is an integer from `least` to `most`."""
    shown = f"dataset.{name}={value}"
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigError(f"{shown} must be a whole number.")
    require(value >= least, f"{shown} must be at least {least}.")
    require(most is None or value <= most, f"{shown} must be at most {most}.")


def whole_or_none(name: str, value: object, least: int) -> None:
    """Refuse `value` of `dataset.<name>` unless it is None or an integer of at least `least`."""
    if value is not None:
        whole(name, value, least)


def finite(name: str, value: object) -> None:
    """Refuse `value` of `dataset.<name>` unless it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigError(f"dataset.{name}={value} must be a finite number.")


def positive(name: str, value: float) -> None:
    """Refuse `value` of `dataset.<name>` unless it is a finite number above zero."""
    finite(name, value)
    require(value > 0, f"dataset.{name}={value} must be above 0.")
