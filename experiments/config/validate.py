"""Refuse what cannot be run, before anything is loaded or written."""

from pathlib import Path
from typing import Any

from omegaconf import MISSING, OmegaConf

from vi_core.errors import ConfigError, did_you_mean, require
from vi_core.problem import KINDS
from vi_core.schema import check_part, conforms
from vi_core.studies.base import Study

from .paths import setting_at
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


def validate(settings: dict[str, Any]) -> None:
    """Check keys, types and ranges of the top level, and every part against its constructor; all in plain dicts."""
    check_keys(settings, Root, "")
    for name, schema in NODES.items():
        check_keys(settings[name], schema, f"{name}.")
    for item in settings["expected"]:
        missing = [key for key in ("quantity", "value", "tolerance") if item[key] == MISSING]
        require(not missing, f"expected: an entry has no {', no '.join(missing)}.")
        tolerance = item["tolerance"]
        require(tolerance >= 0, f"expected: the tolerance {tolerance} of {item['quantity']} is negative.")
    for key, choices in CHOICES.items():
        value = setting_at(settings, key)
        require(
            value in choices, f"{key}={value} must be one of {', '.join(choices)}.{did_you_mean(str(value), choices)}"
        )
    replicates, seed, smoothing = settings["replicates"], settings["seed"], settings["plot"]["smoothing"]
    require(replicates >= 1, f"replicates={replicates} must be at least 1.")
    require(0 <= seed < 2**63, f"seed={seed} must lie between 0 and 2^63 - 1.")
    require(smoothing >= 1, f"plot.smoothing={smoothing} must be at least 1.")
    threads = settings["threads"]
    valid = threads == "auto" or (conforms(threads, int) and threads >= 1)
    require(valid, f"threads={threads} must be an integer of at least 1, or auto.")
    kinds = KINDS if settings["study"] is None else {"study": Study}
    if settings["benchmark"] is not None:
        check_keys(settings["benchmark"], Benchmark, "benchmark.")
        kinds = {}
    for part, kind in kinds.items():
        check_part(settings[part], part, kind)
    earlier = settings["sweep"]["resume"]
    for path in Path(earlier or ".").parents:
        if path.exists() and not path.is_dir():
            raise ConfigError(f"sweep.resume={earlier} lies below {path}, which is a file.")


def check_keys(settings: dict[str, Any], schema: type, prefix: str) -> None:
    """Refuse keys that the schema does not have, added with `+`, and the absence of those that it has, with `~`."""
    known = schema.__dataclass_fields__
    for key in known:
        require(key in settings, f"{prefix}{key} is a setting that every run has; leave ~{prefix}{key} out.")
    for key in settings:
        if key not in known:
            hint = did_you_mean(str(key), known)
            raise ConfigError(f"{prefix}{key} is not a setting.{hint} See --cfg job for all of them.")


def plain(node: Any) -> Any:
    """Return a resolved copy in plain dicts, lists and values."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
