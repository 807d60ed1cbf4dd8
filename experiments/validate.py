"""Refuse what cannot be run, before anything is loaded or written."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vi_core.assembly import check_part, conforms
from vi_core.errors import ConfigError, did_you_mean, require

from .schema import Root

PARTS = ("model", "family", "bound", "estimator", "optimizer", "dataset", "trainer")
CHOICES = {
    "device.name": ("cpu", "cuda", "mps", "auto"),
    "dtype": ("auto", "float32", "float64"),
    "plot.format": ("png", "pdf"),
}


def validate(cfg: DictConfig) -> None:
    """Check keys, types and ranges of the top level, and every part against its constructor."""
    known = Root.__dataclass_fields__
    for key in cfg:
        require(key in known, f"{key} is not a setting.{did_you_mean(str(key), known)} See --cfg job for all of them.")
    for key, choices in CHOICES.items():
        value = OmegaConf.select(cfg, key)
        require(
            value in choices, f"{key}={value} must be one of {', '.join(choices)}.{did_you_mean(str(value), choices)}"
        )
    require(cfg.replicates >= 1, f"replicates={cfg.replicates} must be at least 1.")
    require(0 <= cfg.seed < 2**63, f"seed={cfg.seed} must lie between 0 and 2^63 - 1.")
    require(cfg.plot.smoothing >= 1, f"plot.smoothing={cfg.plot.smoothing} must be at least 1.")
    threads = cfg.threads
    valid = threads == "auto" or (conforms(threads, int) and threads >= 1)
    require(valid, f"threads={threads} must be an integer of at least 1, or auto.")
    for part in PARTS:
        check_part(plain(cfg[part]), part)
    for path in Path(cfg.sweep.resume or ".").parents:
        if path.exists() and not path.is_dir():
            raise ConfigError(f"sweep.resume={cfg.sweep.resume} lies below {path}, which is a file.")


def plain(node: Any) -> Any:
    """Return a resolved copy in plain dicts, lists and values."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
