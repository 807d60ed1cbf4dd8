"""From a configuration to objects: the constructor is the schema.

A part is a mapping with `_target_`, the dotted name of a class, and exactly the keyword-only arguments of its
constructor. Positional-only arguments are context, filled by name from what the other parts provide (`latents`,
`replicates`, `event_size`, `num_points`, `steps_per_epoch`, `data_mean`, `process`). Keys and types are checked against
the signature before anything is built, so that adding a part takes one class and one YAML file and no registry.
"""

import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any

from vi_core.errors import ConfigError, did_you_mean
from vi_core.per_replicate import PerReplicate
from vi_core.renamed import current_target

Config = Mapping[str, Any]


def locate(target: str, path: str) -> type:
    """Import the class with a dotted name."""
    module, _, name = current_target(target).rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{path}._target_='{target}' names no class that can be imported ({error}).") from error


def check_part(config: Any, path: str, kind: type | tuple[type, ...]) -> None:
    """Raise `ConfigError` unless a part is of its kind and fits its constructor, and so do the parts inside."""
    if not isinstance(config, Mapping) or not isinstance(config.get("_target_"), str):
        raise ConfigError(f"{path} must be a part with a _target_; choose one on the command line with {path}=<name>.")
    cls = locate(config["_target_"], path)
    if not (isinstance(cls, type) and issubclass(cls, kind)):
        wanted = kind.__name__ if isinstance(kind, type) else " or ".join(option.__name__ for option in kind)
        raise ConfigError(f"{path}._target_='{config['_target_']}' names no {wanted}.")
    accepted = keyword_arguments(cls)
    for key, value in config.items():
        if key == "_target_":
            continue
        if key not in accepted:
            known = ", ".join(accepted) or "none"
            raise ConfigError(
                f"{path}.{key} is not a setting of {cls.__name__}.{did_you_mean(key, accepted)} Known: {known}."
            )
        check_value(value, accepted[key], f"{path}.{key}")


@cache
def constructor_arguments(cls: type) -> tuple[inspect.Parameter, ...]:
    """Return the arguments of a constructor."""
    return tuple(inspect.signature(cls).parameters.values())


@cache
def keyword_arguments(cls: type) -> dict[str, Any]:
    """Return the type of each keyword-only argument of a constructor, by name."""
    hints = typing.get_type_hints(cls.__init__)
    return {
        p.name: hints.get(p.name, Any) for p in constructor_arguments(cls) if p.kind is inspect.Parameter.KEYWORD_ONLY
    }


def check_value(value: Any, hint: Any, path: str) -> None:
    """Raise `ConfigError` unless a plain value has the type that the constructor declares."""
    options = (hint, *typing.get_args(hint))
    kinds = tuple(option for option in options if isinstance(option, type) and inspect.isabstract(option))
    if kinds and not (value is None and conforms(None, hint)):
        check_part(value, path, kinds)
    elif not conforms(value, hint):
        raise ConfigError(f"{path}={value!r} must be {describe(hint)}.")


def conforms(value: Any, hint: Any) -> bool:
    """Whether a plain YAML value has the type `hint`; an integer is a float, a boolean is not an integer."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(conforms(value, option) for option in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin in (list, Sequence):
        return isinstance(value, list) and all(conforms(element, arguments[0]) for element in value)
    if hint in (None, type(None)):
        return value is None
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def describe(hint: Any) -> str:
    """Return a type in words for an error message."""
    names = {float: "a number", int: "an integer", str: "a text", bool: "true or false", type(None): "null"}
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(option) for option in arguments)
    if origin is typing.Literal:
        return ", ".join(map(str, arguments)) if len(arguments) == 1 else "one of " + ", ".join(map(str, arguments))
    if origin in (list, Sequence):
        return f"a list, each element {describe(arguments[0])}"
    return names.get(hint, str(hint))


def construct(config: Config, path: str, context: Config | None = None) -> Any:
    """Build a part that `check_part` accepts, with the parts inside it; `context` fills positional-only arguments."""
    cls = locate(config["_target_"], path)
    settings = {
        key: construct(value, f"{path}.{key}", context) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if key != "_target_"
    }
    positional = [p for p in constructor_arguments(cls) if p.kind is inspect.Parameter.POSITIONAL_ONLY]
    missing = [
        p.name
        for p in constructor_arguments(cls)
        if p.kind is inspect.Parameter.KEYWORD_ONLY and p.default is p.empty and p.name not in settings
    ]
    if missing:
        raise ConfigError(f"{path}.{missing[0]} is not set, and {cls.__name__} needs it.")
    return cls(*(context[p.name] for p in positional if context), **settings)


def per_replicate_settings(config: Config, path: str) -> list[str]:
    """Return the paths of the settings, of a part and the parts inside, that may have a value for each replicate."""
    accepted = keyword_arguments(locate(config["_target_"], path))
    found = [f"{path}.{key}" for key in config if accepted.get(key) == PerReplicate]
    inside = [key for key, value in config.items() if isinstance(value, Mapping) and "_target_" in value]
    return found + [setting for key in inside for setting in per_replicate_settings(config[key], f"{path}.{key}")]
