"""Refuse what cannot be run, and mend names of earlier versions, before anything is loaded or written."""

import logging
from collections.abc import Collection
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args

from omegaconf import MISSING, DictConfig, OmegaConf, open_dict

from vi_core.errors import ConfigError, did_you_mean, require
from vi_core.problem import KINDS
from vi_core.schema import MOST, check_part, conforms
from vi_core.storage.archive import numbers_of
from vi_core.storage.renamed import SETTINGS, modernised
from vi_core.studies.base import Study
from vi_core.training.callbacks import Callback

from .schema import Role, Root

log = logging.getLogger(__name__)
PARTS = tuple(KINDS)
MOST_THREADS = 1024  # the library of threads ends the process where the system makes no more


def use_present_names(cfg: DictConfig, by_hand: Collection[str]) -> None:
    """Put present names in place of those of earlier versions that a user's own YAML has, with a warning for each.

    Args:
        cfg: The settings as composed, which are changed in place.
        by_hand: Keys that the command line sets. What a user's file sets under an earlier name counts more than what
            the program's own files set under the present one, and less than these.
    """
    content = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(content, dict)
    before, found = dict(content), dict[str, str]()
    for old, new in SETTINGS.items():
        part, key = new.split(".")
        if isinstance(content[part], dict) and old.split(".")[1] in content[part] and new not in by_hand:
            content[part] = {name: value for name, value in content[part].items() if name != key}
    content = modernised(content, found.setdefault)
    with open_dict(cfg):
        for key in (key for key in content if found and content[key] != before[key]):
            cfg[key] = content[key]
    for old, new in found.items():
        log.warning("%s has been renamed: write %s in your own files", old, new)


def validate(settings: dict[str, Any]) -> None:
    """Check keys, types and ranges of the top level, and every part against its constructor.

    Args:
        settings: Resolved, in plain dicts.

    Raises:
        ConfigError: In one line, which names the setting, its value and what is accepted.
    """
    check_node(settings, Root, "")
    for item in settings["expected"]:
        missing = [key for key in ("quantity", "value", "tolerance") if item[key] == MISSING]
        require(not missing, f"expected: an entry has no {', no '.join(missing)}.")
        tolerance, finite = item["tolerance"], numbers_of(item)
        require(finite, f"expected: value and tolerance of {item['quantity']} must be finite numbers.")
        require(tolerance >= 0, f"expected: the tolerance {tolerance} of {item['quantity']} is negative.")
    seed, threads = settings["seed"], settings["threads"]
    require(0 <= seed < 2**63, f"seed={seed} must lie between 0 and 2^63 - 1.")
    valid = threads == "auto" or (conforms(threads, int) and 1 <= threads <= MOST_THREADS)
    require(valid, f"threads={threads} must be an integer from 1 to {MOST_THREADS}, or auto.")
    kinds = {} if settings["benchmark"] is not None else KINDS if settings["study"] is None else {"study": Study}
    for part, kind in kinds.items():
        check_part(settings[part], part, kind)
    for name, part in settings["callbacks"].items():
        check_part(part, f"callbacks.{name}", Callback)
    earlier = settings["sweep"]["resume"]
    for path in Path(earlier or ".").parents:
        if path.exists() and not path.is_dir():
            raise ConfigError(f"sweep.resume={earlier} lies below {path}, which is a file.")


def check_node(settings: dict[str, Any], schema: type, prefix: str) -> None:
    """Check a node against its dataclass: keys added with `+` or removed with `~`, choices, ranges, nodes inside.

    Args:
        settings: The node, in plain dicts.
        schema: A dataclass whose fields may have a `Role`.
        prefix: The path of the node with a final dot, or nothing at the top level.
    """
    known = {each.name: each for each in fields(schema)}
    for key in known:
        require(key in settings, f"{prefix}{key} is a setting that every run has; leave ~{prefix}{key} out.")
    for key in settings:
        hint = did_you_mean(str(key), known, prefix)
        require(key in known, f"{prefix}{key} is not a setting.{hint} See --cfg job for all of them.")
    for key, each in known.items():
        long = isinstance(settings[key], int) and abs(settings[key]) >= 2 * MOST
        require(not long, f"{prefix}{key} is an integer of more than 64 bits, which is too long.")
        role, value, path = each.metadata.get("role", Role()), settings[key], f"{prefix}{key}"
        hint = did_you_mean(str(value), role.choices)
        known_value = not role.choices or value in role.choices
        require(known_value, f"{path}={value} must be one of {', '.join(role.choices)}.{hint}")
        require(role.least is None or value >= role.least, f"{path}={value} must be at least {role.least}.")
        for node in (each.type, *get_args(each.type)):
            if isinstance(node, type) and is_dataclass(node) and isinstance(value, dict):
                check_node(value, node, f"{path}.")


def plain_values(node: Any) -> Any:
    """Return a resolved copy in plain dicts, lists and values; what is plain already is returned as it is.

    Raises:
        OmegaConfBaseException: For an interpolation that leads nowhere.
    """
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
