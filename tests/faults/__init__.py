"""Faults that were found, each with the right value, and whatever else its kind could break."""

import json
import os
from pathlib import Path
from typing import Literal

Outcome = Literal["right", "lost", "wrong"]
TALLY = "VI_FAULTS_TALLY"  # names the file of the counts


def tally(kind: str, outcome: Outcome) -> None:
    """Count one trial of a kind of fault, where the environment names a file for it.

    Args:
        kind: Of fault, in the words of docs/reliability.md.
        outcome: `right`: the right numbers, or one line that refuses. `lost`: refused in one line where something that
            had been written could no longer be used. `wrong`: other numbers without a word, or a traceback.
    """
    if os.environ.get(TALLY):
        with Path(os.environ[TALLY]).open("a") as file:
            file.write(json.dumps({"kind": kind, "outcome": outcome}) + "\n")


def count(kind: str, right: bool, lost: bool = False) -> None:
    """Count one trial as `tally` does, and fail where it was not right."""
    tally(kind, "right" if right else "lost" if lost else "wrong")
    assert right
