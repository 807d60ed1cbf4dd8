"""Plans of the report page: which experiments it shows, in which order, and the command of each.

A plan's identity is a hash of everything that decides its numbers and verdicts: the configuration, the expected
numbers, the overrides of the command line, and the program's sources. A folder that finished under the same identity is
not run again.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

import vi_core
from vi_core.errors import ConfigError, did_you_mean, require

from ..config.messages import part_names
from ..config.places import CONF
from ..config.schema import names, setting_at
from ..results.expectations import chosen_key
from .read import typed

log = logging.getLogger(__name__)
PROGRAM = Path(__file__).resolve().parents[2]
LONGEST = 24 * 60  # minutes; a longer full run has to be asked for by name in `reproduce.only`


@dataclass(frozen=True)
class Plan:
    """An experiment on the page, and the command that runs it.

    Attributes:
        name: Of the experiment.
        order: Its place on the page.
        overrides: What the command changes.
        swept: Whether the command starts a sweep.
        identity: Hash of everything that decides the numbers, 16 hexadecimal digits.
        where: Place in the reports that the experiment reproduces.
        says: What the reports say there.
        note: Remark of the experiment's configuration.
        minutes: Estimated duration of a full run.
    """

    name: str
    order: int
    overrides: tuple[str, ...]
    swept: bool
    identity: str
    where: str
    says: str
    note: str
    minutes: int

    @property
    def command(self) -> str:
        """Command line that gives this row alone."""
        return typed([f"experiment={self.name}", *self.overrides])


def plans(fidelity: str, only: Sequence[str], given: Sequence[str]) -> list[Plan]:
    """Return the plans of the experiments that have a place on the page, in its order.

    Full runs of more than a day are left out unless `only` names them.

    Args:
        fidelity: `full`, or `quick` for shorter runs.
        only: Names of experiments; all if empty.
        given: Overrides; each experiment takes those whose setting it has.

    Raises:
        ConfigError: For a name that is not on the page, or an override that no experiment has a setting for.
    """
    sources, found, used = program_digest(), [], set()
    with hydra.initialize_config_module(CONF, version_base="1.3"):
        for name in (name for name in part_names("experiment") if not only or name in only):
            cfg = hydra.compose("config", [f"experiment={name}"], return_hydra_config=True)
            if cfg.report.order is None:
                continue
            if fidelity == "full" and cfg.report.minutes > LONGEST and not only:
                log.info("%s is left out: it takes days; run it with reproduce.only=%s", name, name)
                continue
            mine = [text for text in given if knows(cfg, chosen_key(text))]
            used |= set(mine)
            found.append(plan(name, cfg, [*(cfg.report.quick if fidelity == "quick" else []), *mine], sources))
    for name in only:
        if name not in {plan.name for plan in found}:
            known = [known for known in part_names("experiment") if known not in only]
            raise ConfigError(f"reproduce.only: {name} is not on the page.{did_you_mean(name, known)}")
    for text in given:
        require(text in used, f"{text} is a setting of no experiment on the page. See --cfg job.")
    return sorted(found, key=lambda plan: (plan.order, plan.name))


def plan(name: str, cfg: DictConfig, overrides: Sequence[str], sources: str) -> Plan:
    """Return the plan of one experiment; `cfg` is its configuration without the overrides, `sources` their digest."""
    swept = cfg.hydra.mode == RunMode.MULTIRUN
    params = OmegaConf.to_container(cfg.hydra.sweeper.get("params") or OmegaConf.create({})) if swept else {}
    assert isinstance(params, dict)
    content: Any = OmegaConf.to_container(cfg, resolve=False)
    essential = {key: value for key, value in content.items() if key not in names("identity", False)}
    essence = [essential, content.get("expected"), params, list(overrides), sources]
    return Plan(
        name=name,
        overrides=tuple(overrides),
        swept=swept,
        identity=hashlib.sha256(json.dumps(essence, sort_keys=True, default=str).encode()).hexdigest()[:16],
        note=cfg.note,
        **{key: cfg.report[key] for key in ("order", "where", "says", "minutes")},
    )


def knows(cfg: DictConfig, path: str) -> bool:
    """Whether an experiment's configuration has the key, so that an override of it makes sense."""
    content: Any = OmegaConf.to_container(cfg, resolve=False)
    with suppress(KeyError, TypeError):
        setting_at(content, path.replace("/", "."))
        return True
    return False


def program_digest() -> str:
    """Return a hash of the sources that decide what runs write: all modules but those of the report page."""
    content = hashlib.sha256()
    for path in sorted({*Path(vi_core.__path__[0]).rglob("*.py"), *(PROGRAM / "experiments").rglob("*.py")}):
        if path.parent.name != "report":
            content.update(path.read_bytes())
    return content.hexdigest()
