"""Settings that may differ between replicates: one number for all of them, or one for each.

A constructor that declares a setting as `PerReplicate` takes both. A sweep over such a setting can run as replicates of
one program, and finds these settings by their type.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from vi_core.errors import ConfigError, require

PerReplicate = float | Sequence[float]


def values_of(number: PerReplicate) -> list[float]:
    """Return the values of a setting as a list: of one, or of one for each replicate."""
    return [number] if isinstance(number, (int, float)) else list(number)


def require_each(valid: Callable[[float], bool], number: PerReplicate, message: str) -> None:
    """Raise `ConfigError(message)` unless there are values and all are `valid`."""
    values = values_of(number)
    require(bool(values) and all(map(valid, values)), message)


def require_positive(owner: str, **settings: PerReplicate) -> None:
    """Raise `ConfigError` unless all values of the settings of a part, such as `model`, are positive and finite."""
    for name, number in settings.items():
        message = f"{owner}.{name}={number} must be positive and finite."
        require_each(lambda value: 0 < value < math.inf, number, message)


def require_count(count: int, replicates: int, setting: str) -> None:
    """Raise `ConfigError` unless a list of `count` values has one for each replicate."""
    if count != replicates:
        raise ConfigError(
            f"{setting} has {count} values for replicates={replicates}; give one value, or one for each replicate."
        )


def each(function: Callable[..., float], *numbers: PerReplicate) -> PerReplicate:
    """Apply a function of plain numbers, replicate by replicate where one of them has several values."""
    if all(isinstance(number, (int, float)) for number in numbers):
        return function(*numbers)
    values = [values_of(number) for number in numbers]
    count = max(map(len, values))
    return [function(*row) for row in zip(*(v * count if len(v) == 1 else v for v in values), strict=True)]


def column(number: PerReplicate, replicates: int, setting: str, trailing: int = 1) -> Tensor:
    """Return a setting as a tensor (R, 1, ...), or (1, 1, ...) if it is one for all, in torch's default dtype.

    Args:
        number: One number, or R of them.
        replicates: R.
        setting: Name of the setting, for messages.
        trailing: Number of axes of length one after the first.
    """
    values = values_of(number)
    if not isinstance(number, (int, float)):
        require_count(len(values), replicates, setting)
    return torch.tensor(values, dtype=torch.get_default_dtype()).reshape(-1, *(1,) * trailing)


def hold(module: nn.Module, name: str, number: PerReplicate, replicates: int, setting: str) -> None:
    """Store a setting on a module: one number as it is, several as a buffer (R, 1) that moves with the module.

    The buffer is not in `state_dict()`: like all settings it comes from the configuration when a run resumes.
    """
    if isinstance(number, (int, float)):
        setattr(module, name, number)
    else:
        module.register_buffer(name, column(number, replicates, setting), persistent=False)
