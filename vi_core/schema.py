"""Schema of a part, taken from the signature of its constructor: checks of keys and types, and construction.

A part is a mapping with `_target_`, the dotted name of a class, and exactly the keyword-only arguments of its
constructor. Positional-only arguments are context, filled by name from what the other parts provide (`latents`,
`replicates`, `event_size`, `image_shape`, `levels`, `num_points`, `steps_per_epoch`, `data_mean`, `process`). Keys and
types are checked against the signature before anything is built, so that adding a part takes one class and one YAML
file and no registry.
"""

import inspect
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any

from vi_core import own_parts
from vi_core.errors import ConfigError, did_you_mean, require
from vi_core.per_replicate import PerReplicate
from vi_core.storage.renamed import SETTINGS, current_target

Config = Mapping[str, Any]  # a part, or a whole configuration, in plain values
MOST = 2**63  # integers are below it in size, as those of tensors are


def locate(target: str, path: str) -> type:
    """Import the class with a dotted name, present or of an earlier version; `path` is its place in the configuration.

    Raises:
        ConfigError: Where no such class can be imported.
    """
    module, _, name = current_target(target).rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{path}._target_='{target}' names no class that can be imported ({error}).") from error


def locate_part(target: str, path: str) -> Any:
    """Return what a dotted name stands for, without importing a module that is not meant to have parts.

    Those that are: the program's own, those of `own_parts`, and what Python has imported already.

    Raises:
        ConfigError: For a name in another module, or that no module has.
    """
    module, _, name = current_target(target).rpartition(".")
    if module.partition(".")[0] == __name__.partition(".")[0] or module in own_parts.modules:
        return locate(target, path)
    if module not in sys.modules:
        raise ConfigError(
            f"{path}._target_={shown(target)} is in no module of this program; name the folder of its YAML file with "
            "--config-dir, or in Python import its module first."
        )
    return vars(sys.modules[module]).get(name)


def check_part(config: Any, path: str, kind: type | tuple[type, ...]) -> None:
    """Check a part and the parts inside it against the signatures of their constructors, before anything is built.

    Args:
        config: The part.
        path: Its place in the configuration, such as `model`, for messages.
        kind: Base class, or several, that its class must derive from.

    Raises:
        ConfigError: For a class of another kind, an unknown key (with the closest known one) or a wrong type.
    """
    if isinstance(config, kind):
        return  # built already, from Python
    if not isinstance(config, Mapping) or not isinstance(config.get("_target_"), str):
        raise ConfigError(f"{path} must be a part with a _target_; choose one on the command line with {path}=<name>.")
    cls = locate_part(config["_target_"], path)
    if not (isinstance(cls, type) and issubclass(cls, kind)):
        wanted = " or ".join(option.__name__ for option in (kind if isinstance(kind, tuple) else (kind,)))
        raise ConfigError(f"{path}._target_='{config['_target_']}' names no {wanted}.")
    accepted = keyword_arguments(cls)
    for key in [key for key in config if key != "_target_"]:
        renamed = SETTINGS.get(f"{path}.{key}")
        hint = f" Did you mean '{renamed}'?" if renamed else did_you_mean(key, accepted, f"{path}.")
        known = ", ".join(accepted) or "none"
        require(key in accepted, f"{path}.{key} is not a setting of {cls.__name__}.{hint} Known: {known}.")
        check_value(config[key], accepted[key], f"{path}.{key}")


def is_part(value: Any) -> bool:
    """Whether a setting is a part, and no mapping of plain values."""
    return isinstance(value, Mapping) and "_target_" in value


@cache
def constructor_arguments(cls: type) -> tuple[inspect.Parameter, ...]:
    """Return the arguments of a constructor; cached, as `inspect` is slow."""
    return tuple(inspect.signature(cls).parameters.values())


@cache
def keyword_arguments(cls: type) -> dict[str, Any]:
    """Return the type of each keyword-only argument of a constructor, by name."""
    hints = typing.get_type_hints(cls.__init__)
    return {p.name: hints.get(p.name, Any) for p in constructor_arguments(cls) if p.kind is p.KEYWORD_ONLY}


def check_value(value: Any, hint: Any, path: str) -> None:
    """Raise `ConfigError` unless a setting's plain value, or the part inside it, has the declared type `hint`."""
    options = (hint, *typing.get_args(hint))
    kinds = tuple(option for option in options if isinstance(option, type) and inspect.isabstract(option))
    if kinds and not (value is None and conforms(None, hint)):
        check_part(value, path, kinds)
    elif not conforms(value, hint):
        raise ConfigError(f"{path}={shown(value)} must be {describe(hint)}.")


def conforms(value: Any, hint: Any) -> bool:
    """Whether a plain YAML value has the type `hint`; an integer is a float, a boolean is not an integer."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(conforms(value, option) for option in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin is dict:
        return isinstance(value, dict)
    if origin in (list, Sequence):
        return isinstance(value, list) and all(conforms(element, arguments[0]) for element in value)
    if hint in (None, type(None)):
        return value is None
    if hint in (float, int) and isinstance(value, int):
        return not isinstance(value, bool) and abs(value) < MOST
    return isinstance(value, hint)


def shown(value: Any) -> str:
    """Return a value for an error message; of a long integer only how long it is, as Python refuses to write some."""
    if isinstance(value, int) and abs(value) >= MOST:
        return f"an integer of {value.bit_length()} bits, which is too long and"
    return repr(value) if len(repr(value)) <= 200 else f"{repr(value)[:200]}..."


def describe(hint: Any) -> str:
    """Return a type in words for an error message."""
    names = {float: "a number", int: "an integer", str: "a text", bool: "true or false", type(None): "null"}
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(option) for option in arguments)
    if origin is typing.Literal:
        return ", ".join(map(str, arguments)) if len(arguments) == 1 else "one of " + ", ".join(map(str, arguments))
    if origin is dict:
        return "a mapping"
    if origin in (list, Sequence):
        return f"a list, each element {describe(arguments[0])}"
    return names.get(hint, str(hint))


def construct(config: Config, path: str, context: Config | None = None) -> Any:
    """Build a part that `check_part` accepts, with the parts inside it.

    Args:
        config: The part.
        path: Its place in the configuration, for messages.
        context: Values of positional-only arguments by name, which other parts provide.

    Raises:
        ConfigError: Where a setting without a default is missing, or its value is out of range.
    """
    if not isinstance(config, Mapping):
        return config  # built already, from Python
    cls = locate(config["_target_"], path)
    settings = {
        key: construct(value, f"{path}.{key}", context) if is_part(value) else value
        for key, value in config.items()
        if key != "_target_"
    }
    arguments = constructor_arguments(cls)
    for p in arguments:
        if p.kind is p.KEYWORD_ONLY and p.default is p.empty and p.name not in settings:
            raise ConfigError(f"{path}.{p.name} is not set, and {cls.__name__} needs it.")
    return cls(*(context[p.name] for p in arguments if context and p.kind is p.POSITIONAL_ONLY), **settings)


def per_replicate_settings(config: Config, path: str) -> list[str]:
    """Return the paths of the settings, of a part and the parts inside, that may have a value for each replicate."""
    accepted = keyword_arguments(locate(config["_target_"], path))
    found = [f"{path}.{key}" for key in config if accepted.get(key) == PerReplicate]
    inside = [key for key, value in config.items() if is_part(value)]
    return found + [setting for key in inside for setting in per_replicate_settings(config[key], f"{path}.{key}")]
