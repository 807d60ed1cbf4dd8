"""Numbers that may differ between replicates: one for all of them, or one for each.

A constructor that declares a setting as `PerReplicate` takes both. The type is the whole declaration: a sweep over such
a setting can run as replicates of one program, and nobody keeps a list of names.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from vi_core.errors import ConfigError, require

PerReplicate = float | Sequence[float]


def values_of(number: PerReplicate) -> list[float]:
    """Return the values that a number takes: one, or one for each replicate."""
    return [number] if isinstance(number, (int, float)) else list(number)


def require_each(valid: Callable[[float], bool], number: PerReplicate, message: str) -> None:
    """Raise `ConfigError(message)` unless every value is `valid`, and there is one."""
    values = values_of(number)
    require(bool(values) and all(map(valid, values)), message)


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
    """Return a number as (R, 1, ...), or (1, 1, ...) where it is one for all, with so many ones; in default dtype."""
    values = values_of(number)
    if not isinstance(number, (int, float)):
        require_count(len(values), replicates, setting)
    return torch.tensor(values, dtype=torch.get_default_dtype()).reshape(-1, *(1,) * trailing)


def hold(module: nn.Module, name: str, number: PerReplicate, replicates: int, setting: str) -> None:
    """Keep a setting on a module: one number as it is, several as a buffer (R, 1) that moves with the module.

    A buffer is no state: like every setting it comes from the configuration when a run resumes.
    """
    if isinstance(number, (int, float)):
        setattr(module, name, number)
    else:
        module.register_buffer(name, column(number, replicates, setting), persistent=False)
