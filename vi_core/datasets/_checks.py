"""Range checks shared by the constructors of the data sets; each refusal is one line that names the setting."""

import math

from vi_core.errors import ConfigError, require


def whole(name: str, value: object, least: int, most: int | None = None) -> None:
    """Refuse `value` of `dataset.<name>` unless it is an integer from `least` to `most`.

    Raises:
        ConfigError: With the setting, its value and the bound that it breaks.
    """
    shown = f"dataset.{name}={value}"
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigError(f"{shown} must be a whole number.")
    require(value >= least, f"{shown} must be at least {least}.")
    require(most is None or value <= most, f"{shown} must be at most {most}.")


def finite(name: str, value: object) -> None:
    """Refuse `value` of `dataset.<name>` with `ConfigError` unless it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigError(f"dataset.{name}={value} must be a finite number.")


def positive(name: str, value: float) -> None:
    """Refuse `value` of `dataset.<name>` with `ConfigError` unless it is a finite number above zero."""
    finite(name, value)
    require(value > 0, f"dataset.{name}={value} must be above 0.")
