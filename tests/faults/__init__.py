"""Faults that were found, each with the right value, and whatever else its kind could break."""

import json
import os
from pathlib import Path


def tally(kind: str, outcome: str) -> None:
    """Count one trial: `outcome` is right, lost or wrong. It is written where VI_FAULTS_TALLY names a file."""
    if name := os.environ.get("VI_FAULTS_TALLY"):
        with Path(name).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, "outcome": outcome}) + "\n")
