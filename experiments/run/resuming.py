"""What may change when a run is resumed, and what is noted of it.

A resumed run is one run of one problem: what its `Role` does not free stays as it was. What changes is noted in
`changes`, a list in config.yaml with the step and the values before it, so that the identity of the run covers the
history of its settings. The checkpoint holds the identity of the settings that led to it; where config.yaml has
another, someone has edited it.
"""

import logging
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from vi_core.errors import ConfigError, DataError

from ..config.schema import IDENTITY_VERSION, config_hash, essential_settings, role_of, set_setting, setting_at

log = logging.getLogger(__name__)


def continued(config: dict[str, Any], saved: dict[str, Any], content: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a resumed run, with what has changed noted in `changes`.

    Args:
        config: Resolved settings, as they are to be from now on.
        saved: The content of config.yaml.
        content: Of the checkpoint from which the run goes on.

    Raises:
        DataError: Where config.yaml is not what the checkpoint came from.
        ConfigError: Where a setting differs that belongs to the problem.
    """
    before, done = as_saved(saved, content), content["done"]
    changed = differences(before, config)
    fixed = [path for path in changed if not role_of(path).resume]
    if fixed:
        setting, value = fixed[0], setting_at(config, fixed[0])
        raise ConfigError(
            f"{setting}={value} cannot change when a run is resumed, as that would be another problem (it is "
            f"{changed[setting]}); start a new run with it: leave resume= out, and give {setting}={value}."
        )
    config = deepcopy(config)
    known = dict(leaves(config))
    for path, value in leaves(essential_settings(before | {"changes": []})):
        if path not in changed and path in known:
            set_setting(config, path, value)  # 1 in place of 1.0 is no change, and would be another identity
    if changed:
        now = ", ".join(f"{path}={setting_at(config, path)} (it was {value})" for path, value in changed.items())
        log.info("from step %d on: %s", done, now)
    noted = [{"step": done, "before": changed}] if changed else []
    return config | {"changes": [*before.get("changes", []), *noted]}


def as_saved(saved: dict[str, Any], content: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that led to a checkpoint: those in config.yaml, or those before its last changes.

    A run that is killed before the first checkpoint after a change has the change in config.yaml alone.

    Raises:
        DataError: Where none of them is what the checkpoint came from.
    """
    identity = content.get("identity", "")
    if not identity.startswith(f"{IDENTITY_VERSION}-"):
        return saved  # of a version that noted none, or whose hashes do not compare
    for settings in unwound(saved, content["done"]):
        if config_hash(settings) == identity:
            return settings
    raise DataError(
        "config.yaml is not what the checkpoint beside it came from: it was edited, or belongs to another run; "
        "put it back as it was, and give what is to change on the command line."
    )


def unwound(saved: dict[str, Any], done: int) -> Iterator[dict[str, Any]]:
    """Yield the settings, and then those before each change at or after step `done`, the last change first."""
    settings = deepcopy(saved)
    yield settings
    while settings.get("changes") and settings["changes"][-1]["step"] >= done:
        settings = deepcopy(settings)
        for path, value in settings["changes"].pop()["before"].items():
            set_setting(settings, path, value)
        yield settings


def differences(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Return the essential settings that differ, by path, with their values in `before`.

    Settings that only one of them has are left out: those of a version that knew others.
    """
    first, second = (dict(leaves(essential_settings(each | {"changes": []}))) for each in (before, after))
    return {path: value for path, value in first.items() if path in second and second[path] != value}


def leaves(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the path and the value of each setting; a list is one value, and so is a node that is empty."""
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
