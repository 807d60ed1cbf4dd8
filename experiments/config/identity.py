"""The identity of a run: a hash of what determines its numbers."""

import hashlib
import json
from typing import Any

VERSION = 2
"""Of the identity: settings and parts of another version had other names, and hashes of both do not compare."""
OUTSIDE = (
    "overrides", "threads", "sweep", "task", "run", "resume", "plot", "strict", "expected", "note", "report",
    "fidelity", "reproduce",
)  # fmt: skip
"""Settings that leave a run's numbers as they are."""


def config_hash(config: Any) -> str:
    """Return the version and 16 hexadecimal digits of SHA-256 over the resolved configuration's essential settings."""
    essential = {key: value for key, value in config.items() if key not in OUTSIDE}
    digest = hashlib.sha256(json.dumps(essential, sort_keys=True, default=str).encode()).hexdigest()
    return f"{VERSION}-{digest[:16]}"
