"""The identity of a run: a hash of what determines its numbers.

By it a sweep that goes on knows which of its jobs are finished.
"""

import hashlib
import json
from typing import Any

from vi_core.files import file_and_name

from .schema import names

VERSION = 2  # settings and parts of another version had other names, and hashes of both do not compare


def config_hash(config: Any) -> str:
    """Return the version and 16 hexadecimal digits of SHA-256 over the resolved configuration's essential settings."""
    aside = names("identity", False)
    essential = {key: value for key, value in config.items() if key not in aside}
    model = essential.get("model")
    if isinstance(model, dict) and model.get("checksum"):  # what is in a file matters, and which class of it
        essential["model"] = model | {"path": file_and_name(model["path"])[1]}
    digest = hashlib.sha256(json.dumps(essential, sort_keys=True, default=str).encode()).hexdigest()
    return f"{VERSION}-{digest[:16]}"
