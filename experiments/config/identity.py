"""The identity of a run: a hash of what determines its numbers.

By it a sweep that goes on knows which of its jobs are finished, and a resumed run that its settings are those of its
checkpoint. A setting that changed when the run was resumed is in it with the step at which that happened.
"""

import hashlib
import json
from typing import Any

from .schema import names

VERSION = 2  # settings and parts of another version had other names, and hashes of both do not compare


def config_hash(config: Any) -> str:
    """Return the version and 16 hexadecimal digits of SHA-256 over the resolved configuration's essential settings."""
    essential = essential_settings(config)
    digest = hashlib.sha256(json.dumps(essential, sort_keys=True, default=str).encode()).hexdigest()
    return f"{VERSION}-{digest[:16]}"


def essential_settings(config: Any) -> dict[str, Any]:
    """Return the settings that the identity covers; `changes` is among them where there were some."""
    aside = names("identity", False) | (set() if config.get("changes") else {"changes"})
    return {key: value for key, value in config.items() if key not in aside}
