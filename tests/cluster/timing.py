"""`python -m tests.cluster.timing`: what two workers of joblib and of Ray gain over the local launcher.

32 jobs of some seconds each, with one thread; the Ray cluster is up before its sweep begins. Under other load the ratio
says little: a process shares a core with others, and all processes of a sweep may share the part that one would have.
"""

import os
import tempfile
import time
from pathlib import Path

from tests.cluster.__main__ import nothing, ray
from tests.cluster.scenario import Sweep

JOBS = ("estimator=control_variate", "seed=range(32)", "trainer.steps=20000", "replicates=8", "hydra.sweep.dir=timed")
WAYS = {
    "local": (nothing, ()),
    "joblib": (nothing, ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")),
    "ray": (ray, ("hydra/launcher=ray",)),
}


def main() -> None:
    """Time the three sweeps one after the other, and print seconds and ratios to the first."""
    first = 0.0
    for name, (cluster, arguments) in WAYS.items():
        with tempfile.TemporaryDirectory(prefix="vi-") as place:
            for folder in ("cluster", "work"):
                (Path(place) / folder).mkdir()
            with cluster(Path(place) / "cluster") as environment:
                began = time.monotonic()
                code, _, err = Sweep(Path(place) / "work", arguments, environment).run(*JOBS)
                seconds = time.monotonic() - began
            assert code == 0, err
        first = first or seconds
        print(f"{name}: {seconds:.0f} s, {seconds / first:.2f} of local; load {os.getloadavg()[0]:.1f}", flush=True)


if __name__ == "__main__":
    main()
