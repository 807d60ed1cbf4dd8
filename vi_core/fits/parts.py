"""Parts by their names on the command line, read from the YAML files of `conf`, for use from Python.

`full_rank_normal` of the group `family` is conf/family/full_rank_normal.yaml, with the parts inside it that its
defaults list names. The other way round, `described` returns the settings of a part that is an object, and `name_of`
the name of the file that describes it.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from vi_core.errors import ConfigError, did_you_mean
from vi_core.families.base import Family
from vi_core.schema import keyword_arguments
from vi_core.storage.renamed import current_target

HERE = Path(__file__).parents[1]
CONF = next(folder for folder in (HERE / "conf", HERE.parent / "conf") if folder.is_dir())  # installed, or a checkout


def part(group: str, name: str, **settings: Any) -> dict[str, Any]:
    """Return the settings of a part.

    Args:
        group: Folder of conf, such as `family`.
        name: Of the YAML file in it.
        settings: In place of those in the file.

    Raises:
        ConfigError: For a name or a setting that is not there.
    """
    known = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    if name not in known:
        raise ConfigError(f"{group}='{name}' is not known.{did_you_mean(name, known)} Known: {', '.join(known)}.")
    content: dict[str, Any] = yaml.safe_load((CONF / group / f"{name}.yaml").read_text(encoding="utf-8"))
    for entry in content.pop("defaults", []):
        for key, choice in entry.items() if isinstance(entry, dict) else ():  # `_self_` is a text
            content[key] = None if choice is None else part(f"{group}/{key}", choice)
    for key in settings:
        if key not in content:
            raise ConfigError(f"{group}.{key} is not a setting of {name}.{did_you_mean(key, content)}")
    return content | settings


def described(chosen: Any) -> dict[str, Any] | str:
    """Return the settings of a part, which may be an object; of one that holds a class of others, the name of its own.

    Classes of others are built by their own rules, which no file can know.
    """
    try:
        return _plain(chosen)
    except TypeError:
        return type(chosen).__name__


def _plain(value: Any) -> Any:
    """Return a setting in plain values; raise `TypeError` where it holds an object of a class of others."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {name: _plain(inside) for name, inside in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inside) for inside in value]
    if isinstance(value, Tensor):
        return value.tolist()
    kind = type(value)
    if not kind.__module__.startswith("vi_core."):
        raise TypeError(kind)
    given = value.given if isinstance(value, Family) else {n: getattr(value, n) for n in keyword_arguments(kind)}
    return {"_target_": f"{kind.__module__}.{kind.__qualname__}"} | _plain(given)


def name_of(group: str, chosen: Any) -> str:
    """Return the name on the command line of a part, from an object or settings; of a class of others its own name."""
    settings = described(chosen)
    if isinstance(settings, str):
        return settings
    own, known = _classes(settings), _known(group)
    same = [name for name, classes in known.items() if classes[""] == own[""]]
    exact = [name for name in same if known[name] == own] or same
    return exact[0] if len(exact) == 1 else own[""].rpartition(".")[2]


@cache
def _known(group: str) -> dict[str, dict[str, str]]:
    """Return the classes of each part of a group by its name."""
    return {path.stem: _classes(part(group, path.stem)) for path in sorted((CONF / group).glob("*.yaml"))}


def _classes(settings: Mapping[str, Any], place: str = "") -> dict[str, str]:
    """Return the class of a part, under an empty name, and those of the parts inside by their places."""
    found = {place: current_target(settings["_target_"])}
    for name, inside in settings.items():
        if isinstance(inside, Mapping) and "_target_" in inside:
            found |= _classes(inside, f"{place}.{name}")
    return found
