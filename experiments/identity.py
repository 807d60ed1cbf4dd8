"""The identity of a run: a hash of what determines its numbers."""

import hashlib
import json
from typing import Any

OUTSIDE = (
    "overrides", "threads", "sweep", "task", "run", "resume", "plot", "strict", "expected", "note", "report",
    "fidelity", "reproduce",
)  # fmt: skip
"""Settings that leave a run's numbers as they are."""


def config_hash(config: Any) -> str:
    """Return 16 hexadecimal digits of SHA-256 over the resolved configuration, without what changes no number."""
    essential = {key: value for key, value in config.items() if key not in OUTSIDE}
    return hashlib.sha256(json.dumps(essential, sort_keys=True, default=str).encode()).hexdigest()[:16]
