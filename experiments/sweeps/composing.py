"""The configurations of a sweep's jobs, without composing each: jobs that differ in numbers have one template.

Hydra composes every job twice, at a quarter of a second each, and resolving and copying takes a tenth more. A
number decides nothing of the composition, so that jobs whose overrides differ in numbers alone are composed once, and
the numbers are put into plain copies. That holds as long as nothing else in the configuration refers to a number: a
template has no interpolations but of the names of its parts.
"""

import copy
import pickle
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from textwrap import indent
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from vi_core.errors import LabError

from ..config.hydra_adapter import overrides_dirname, yaml_text
from ..config.messages import configuration_groups
from ..config.schema import set_setting
from ..run.jobs import Job, make_job, relative

CHOICE = re.compile(r"\$\{(?:hydra:runtime\.choices\.\w+|filed:name)\}")


@cache
def parsed(text: str) -> Override:
    """Return an override as Hydra understands it."""
    return OverridesParser.create().parse_override(text)


@cache
def sets_a_number(text: str) -> bool:
    """Whether an override does no more than set a number, so that it changes nothing else of the composition."""
    override = parsed(text)
    plain = override.type == OverrideType.CHANGE and override.package is None and not override.is_hydra_override()
    value = override.value()
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return plain and number and override.key_or_group not in configuration_groups()


@dataclass
class Composed:
    """A job of a sweep.

    Attributes:
        number: Its place in the sweep.
        overrides: What the sweep sets for it.
        job: What is to run, or None where running it will say why it cannot.
        settings: Its settings, resolved, in plain dicts.
        template: What it was made from; with a job only.
        config: As Hydra composed it; without a job only.
    """

    number: int
    overrides: list[str]
    job: Job | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    template: "Template | None" = None
    config: DictConfig | None = None

    def light(self) -> "Composed":
        """Return what handing it to another process needs: of thousands of jobs, all settings would fill the memory."""
        known = {"replicates": self.settings["replicates"]} if self.settings else {}
        return Composed(self.number, self.overrides, settings=known)


class Template:
    """The configuration of jobs that differ in numbers. Raises like a run where its own numbers cannot run.

    Args:
        config: Of one of the jobs, with the node `hydra`.
    """

    def __init__(self, config: DictConfig):
        from ..run.settings import resolved

        HydraConfig.instance().set_config(config)
        task = copy.deepcopy(config)
        with open_dict(task):
            del task["hydra"]
        self.config = config
        self.task: Any = OmegaConf.to_container(task, resolve=False)
        self.hydra: Any = OmegaConf.to_container(config.hydra, resolve=False, enum_to_str=True)
        self.is_fixed = "${" not in CHOICE.sub("", yaml_text(self.task))
        self.job = make_job(task, self.folder())
        self.settings = resolved(self.job)
        OmegaConf.resolve(task)
        self.pickled = pickle.dumps(task)  # copying it takes five times as long as reading it
        OmegaConf.set_readonly(config.hydra, False)
        OmegaConf.set_struct(config, False)

    def folder(self) -> Path:
        """Return the folder of the job that `config` is of."""
        return relative(Path(self.config.hydra.sweep.dir, str(self.config.hydra.sweep.subdir)))

    def fill(self, overrides: list[str]) -> tuple[DictConfig, dict[str, Any]]:
        """Return the settings with the numbers of these overrides: as Hydra has them, and in plain dicts.

        Raises:
            LabError: As a run does, where they cannot run.
        """
        from ..config.validate import validate

        cfg, settings = pickle.loads(self.pickled), copy.deepcopy(self.settings)
        for key, value in numbers(overrides).items():
            OmegaConf.update(cfg, key, value)
            set_setting(settings, key, OmegaConf.select(cfg, key))
        validate(settings)
        return cfg, settings

    def make(self, number: int, overrides: list[str], cfg: DictConfig, settings: dict[str, Any]) -> Composed:
        """Return the job with these settings."""
        self.describe(number, overrides)
        job = replace(self.job, cfg=cfg, overrides=overrides, folder=self.folder())
        return Composed(number, overrides, job, settings | {"overrides": overrides}, self)

    def describe(self, number: int, overrides: list[str]) -> None:
        """Let `config` be that of a job, but for the numbers."""
        node = self.config.hydra
        node.job.id, node.job.num, node.overrides.task = number, number, overrides
        names = [parsed(text) for text in overrides]
        node.job.override_dirname = overrides_dirname(names, node.job.config.override_dirname)

    def enter(self, composed: Composed) -> DictConfig:
        """Make a job's folder as Hydra makes it, with `.hydra/config.yaml`, `hydra.yaml` and `overrides.yaml`.

        Returns:
            The configuration of the job, for what Hydra calls at its start and end.
        """
        self.describe(composed.number, composed.overrides)
        task, hydra = copy.deepcopy(self.task), copy.deepcopy(self.hydra)
        for key, value in numbers(composed.overrides).items():
            set_setting(task, key, value)
            OmegaConf.update(self.config, key, value)
        now = self.config.hydra
        now.runtime.output_dir = str(self.folder().absolute())
        hydra["job"] |= {"id": now.job.id, "num": now.job.num, "override_dirname": now.job.override_dirname}
        hydra["overrides"]["task"] = composed.overrides
        hydra["runtime"]["output_dir"] = now.runtime.output_dir
        folder = self.folder() / ".hydra"
        folder.mkdir(parents=True, exist_ok=True)
        texts = {
            "config": yaml_text(task),
            "hydra": "hydra:\n" + indent(yaml_text(hydra), "  "),
            "overrides": yaml_text(composed.overrides),
        }
        for name, text in texts.items():
            (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
        return self.config


class Composer:
    """Composes the jobs of a sweep.

    Args:
        context: Has Hydra's loader.
        master: The configuration of the sweep.
    """

    def __init__(self, context: HydraContext, master: DictConfig):
        self.loader, self.master = context.config_loader, master
        self.templates: dict[tuple[str, ...], Template] = {}

    def compose(self, overrides: list[str], number: int) -> Composed:
        """Return a job of the sweep; raise as Hydra does where it cannot be composed.

        Args:
            overrides: Of this job.
            number: Its place in the sweep.
        """
        kind = (*(text for text in overrides if not sets_a_number(text)), *numbers(overrides))
        config = None
        try:
            template = self.templates.get(kind)
            if template is None:
                config = self.load(overrides, number)
                template = Template(config)
            cfg, settings = template.fill(overrides)
        except (LabError, OmegaConfBaseException):
            return Composed(number, overrides, config=config or self.load(overrides, number))
        if template.is_fixed:
            self.templates[kind] = template
        return template.make(number, overrides, cfg, settings)

    def load(self, overrides: list[str], number: int) -> DictConfig:
        """Return the configuration of a job as Hydra composes it."""
        config = self.loader.load_sweep_config(self.master, overrides)
        with open_dict(config):
            config.hydra.job.id, config.hydra.job.num = number, number
        return config


def numbers(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the numbers that the overrides set, by their keys."""
    return {parsed(text).key_or_group: parsed(text).value() for text in overrides if sets_a_number(text)}
