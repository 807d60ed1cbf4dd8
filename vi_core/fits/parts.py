"""Parts by their names on the command line, read from the YAML files of `conf`, for use from Python.

`full_rank_normal` of the group `family` is conf/family/full_rank_normal.yaml, with the parts inside it that its
defaults list names.
"""

from pathlib import Path
from typing import Any

import yaml

from vi_core.errors import ConfigError, did_you_mean

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
