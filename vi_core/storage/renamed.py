"""Present names in place of those of earlier versions, so that old runs and users' own YAML stay usable.

A run's `config.yaml` holds the dotted names of its parts and its settings as they were when it was written, and a user
has files of that age. The table of both is `renamed.yaml`, beside this module. Whatever reads or
composes a configuration passes it through `modernised` first; `vi_core.schema.locate` looks single names up.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

_TABLE = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
TARGETS: dict[str, str] = _TABLE["targets"]
SETTINGS: dict[str, str] = _TABLE["settings"]
ESTIMATES: dict[str, str] = _TABLE["estimates"]
EXECUTIONS: dict[str | bool, str] = _TABLE["executions"]


def current_target(target: str) -> str:
    """Return the present dotted name of a part, which is `target` itself unless an earlier version had another."""
    name = target.removeprefix("vi_core.")
    return f"vi_core.{TARGETS[name]}" if name in TARGETS and name != target else target


def modernised(config: Any, note: Callable[[str, str], object] = lambda old, new: None) -> Any:
    """Return a copy of a configuration in plain dicts and lists, with present names in place of earlier ones.

    Args:
        config: A whole configuration, or any part of it. Where a setting has both of its names, the present one counts.
        note: Called with each earlier name that was found, and with the present one.
    """
    if isinstance(config, list):
        return [modernised(element, note) for element in config]
    if not isinstance(config, dict):
        return config
    content = {key: modernised(value, note) for key, value in config.items()}
    target = content.get("_target_")
    if isinstance(target, str) and (present := current_target(target)) != target:
        note(target, present)
        content["_target_"] = present
    if content.get("_target_") == "vi_core.training.trainer.Trainer" and "compile" in content:
        compiled = content.pop("compile")
        note("trainer.compile", "trainer.execution")
        content.setdefault("execution", EXECUTIONS.get(compiled, compiled))
    return content
