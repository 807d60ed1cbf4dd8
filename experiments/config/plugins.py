"""Launchers and sweepers of this program under Hydra's names, with their settings.

Hydra takes them from packages called `hydra_plugins` alone, so that these are registered by `hydra_adapter`. The
settings are the arguments of the classes; a test compares them.
"""

from typing import Any

from .places import PROGRAM

DAY = 24 * 60  # minutes
SWEEPS = f"{PROGRAM}.sweeps"
PLUGINS: dict[str, dict[str, Any]] = {
    "launcher/joblib": {"_target_": f"{SWEEPS}.launchers.Joblib", "n_jobs": -1},
    "launcher/submitit_local": {
        "_target_": f"{SWEEPS}.launchers.Local",
        "at_once": None,
        "timeout_min": DAY,
    },
    "launcher/submitit_slurm": {
        "_target_": f"{SWEEPS}.launchers.Slurm",
        "at_once": 256,
        "timeout_min": 60,
        "cpus_per_task": 1,
    },
    "launcher/ray": {"_target_": f"{SWEEPS}.launchers.Ray", "address": None, "num_cpus": 1, "num_gpus": None},
    "sweeper/optuna": {
        "_target_": f"{SWEEPS}.search.Search",
        "n_trials": 20,
        "at_once": 1,
        "seed": 0,
        "params": None,
    },
}
"""Group and name below `hydra/` -> the class and its settings."""


def is_ours(target: str) -> bool:
    """Whether Hydra's node of a launcher or sweeper names a class of this program."""
    return any(target == node["_target_"] for node in PLUGINS.values())
