"""`make test-cluster`: the scenario on joblib, on a Ray cluster and on Slurm, which are started for it on this machine.

A launcher whose packages are missing is skipped, with the reason. Prints a table for docs/launchers.md; the exit code
is 1 where a step failed.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path

from tests.cluster import slurm
from tests.cluster.scenario import STEPS, Sweep, until

Environment = dict[str, str]
LOOPBACK = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0",
}  # fmt: skip
"""A Ray cluster that listens on 127.0.0.1 alone, needs no token in the user's home, and tells nobody of its use."""


def lacks(package: str) -> str:
    """Why a launcher cannot be tried, or nothing."""
    return "" if find_spec(package) else f"{package} not installed"


@contextmanager
def nothing(folder: Path) -> Iterator[Environment]:
    """Context manager: launchers of this machine need nothing to run."""
    yield {}


@contextmanager
def ray(folder: Path) -> Iterator[Environment]:
    """Context manager: a Ray cluster of two workers runs on this machine, as `ray start` makes it."""
    program, port = Path(sys.executable).parent / "ray", slurm.free_port()
    options = ["--head", "--block", "--num-cpus=2", "--include-dashboard=false", "--node-ip-address=127.0.0.1"]
    address = f"127.0.0.1:{port}"
    with (folder / "start.out").open("w") as out:
        command = [program, "start", *options, f"--port={port}", f"--temp-dir={folder}"]
        process = subprocess.Popen(command, env=os.environ | LOOPBACK, stdout=out, stderr=out)
        try:
            until(lambda: answers(program, address))
            yield LOOPBACK | {"RAY_ADDRESS": address}
        finally:
            process.terminate()
            process.wait(60)


def answers(program: Path, address: str) -> bool:
    """Whether a Ray cluster is up."""
    command = [program, "status", f"--address={address}"]
    return not subprocess.run(command, env=os.environ | LOOPBACK, capture_output=True).returncode


@contextmanager
def slurm_node(folder: Path) -> Iterator[Environment]:
    """Context manager: Slurm runs, and is stopped."""
    with slurm.slurm(folder) as environment:
        yield environment


CLUSTERS: dict[str, tuple[str, Callable[[Path], AbstractContextManager[Environment]], str]] = {
    "joblib": (lacks("joblib"), nothing, "hydra.launcher.n_jobs=2"),
    "submitit_local": (lacks("submitit"), nothing, "hydra.launcher.at_once=2"),
    "ray": (lacks("ray"), ray, "hydra.launcher.num_cpus=1"),
    "submitit_slurm": (lacks("submitit") or slurm.missing(), slurm_node, "hydra.launcher.at_once=2"),
}
"""Launcher -> why it cannot be tried, what starts its cluster in a folder, and the setting that makes two workers."""


def main(names: list[str]) -> int:
    """Go through the launchers; print a line for each step, and return how many steps failed."""
    failed = 0
    print("| launcher | step | outcome | seconds |\n|---|---|---|---|", flush=True)
    for name, (reason, cluster, setting) in CLUSTERS.items():
        if names and name not in names:
            continue
        if reason:
            print(f"| `{name}` | | skipped: {reason} | |", flush=True)
            continue
        place = Path(tempfile.mkdtemp(prefix="vi-", dir="/tmp"))  # Ray's sockets need a short path
        place.chmod(0o755)  # munged refuses a socket that not all can reach
        for folder in ("cluster", "work"):
            (place / folder).mkdir()
        with cluster(place / "cluster") as environment:
            sweep = Sweep(place / "work", (f"hydra/launcher={name}", setting), environment)
            for step, check in STEPS.items():
                began = time.monotonic()
                try:
                    outcome = check(sweep)
                except (AssertionError, TimeoutError, OSError, ValueError) as error:
                    outcome, failed = f"FAILED: {error!r}", failed + 1
                print(f"| `{name}` | {step} | {outcome} | {time.monotonic() - began:.0f} |", flush=True)
        shutil.rmtree(place, ignore_errors=True)
    return failed


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1:]) else 0)
