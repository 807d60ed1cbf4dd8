"""Refuse what cannot be run, before anything is loaded or written."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vi_core.assembly import KINDS, check_part, conforms
from vi_core.errors import ConfigError, did_you_mean, require
from vi_core.studies.base import Study

from .schema import FIDELITIES, Benchmark, Device, Plot, Report, Reproduce, Root, Sweep

PARTS = tuple(KINDS)
CHOICES = {
    "device.name": ("cpu", "cuda", "mps", "auto"),
    "dtype": ("auto", "float32", "float64"),
    "matmul": ("auto", "bfloat16"),
    "plot.format": ("png", "pdf"),
    "fidelity": FIDELITIES,
}
NODES = {"device": Device, "plot": Plot, "sweep": Sweep, "report": Report, "reproduce": Reproduce}


def validate(cfg: DictConfig) -> None:
    """Check keys, types and ranges of the top level, and every part against its constructor."""
    check_keys(cfg, Root, "")
    for name, schema in NODES.items():
        check_keys(cfg[name], schema, f"{name}.")
    for item in cfg.expected:
        missing = [key for key in ("quantity", "value", "tolerance") if OmegaConf.is_missing(item, key)]
        require(not missing, f"expected: an entry has no {', no '.join(missing)}.")
        require(item.tolerance >= 0, f"expected: the tolerance {item.tolerance} of {item.quantity} is negative.")
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
    kinds = KINDS if cfg.study is None else {"study": Study}
    if cfg.benchmark is not None:
        check_keys(cfg.benchmark, Benchmark, "benchmark.")
        kinds = {}
    for part, kind in kinds.items():
        check_part(plain(cfg[part]), part, kind)
    for path in Path(cfg.sweep.resume or ".").parents:
        if path.exists() and not path.is_dir():
            raise ConfigError(f"sweep.resume={cfg.sweep.resume} lies below {path}, which is a file.")


def check_keys(node: DictConfig, schema: type, prefix: str) -> None:
    """Refuse keys that were added with `+` and that the schema does not have."""
    known = schema.__dataclass_fields__
    for key in node:
        if key not in known:
            hint = did_you_mean(str(key), known)
            raise ConfigError(f"{prefix}{key} is not a setting.{hint} See --cfg job for all of them.")


def plain(node: Any) -> Any:
    """Return a resolved copy in plain dicts, lists and values."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
