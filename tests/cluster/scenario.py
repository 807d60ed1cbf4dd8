"""What is asked of every launcher: 24 jobs, two fail and one loses its worker, then the rest by `sweep.resume`.

Whole commands in processes of their own, as a user types them; what is checked lies in the sweep's folder afterwards.
"""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.conftest import ROOT

RATES = (-1.0, *(round(0.01 * place, 2) for place in range(1, 12)))
"""Learning rates, of which the first is refused."""
SWEEP = (
    "-m", "experiment=bbvi", "plot.enabled=false", "replicates=2", "trainer.steps=2000", "trainer.checkpoint_every=200",
    "trainer.final_samples=100", "threads=1",
)  # fmt: skip
GRID = ("seed=0,1", f"optimizer.lr={','.join(map(str, RATES))}")
WAIT = 300.0  # seconds for what should come at once


class Sweep:
    """Commands in one folder with one launcher.

    Args:
        folder: Where the commands are typed.
        launcher: The arguments that choose it.
        environment: What it needs beside that of this process.
    """

    def __init__(self, folder: Path, launcher: tuple[str, ...], environment: dict[str, str] | None = None):
        self.folder, self.launcher = folder, launcher
        self.environment = os.environ | {"OMP_NUM_THREADS": "1"} | (environment or {})

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the program with this launcher."""
        command = [sys.executable, str(ROOT / "run.py"), *SWEEP, *self.launcher, *arguments]
        return subprocess.Popen(
            command, cwd=self.folder, env=self.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run it to its end; return exit code, output and errors."""
        process = self.start(*arguments)
        out, err = process.communicate()
        return process.returncode, out, err

    def table(self, name: str) -> list[dict[str, str]]:
        """The rows of a sweep's table."""
        with (self.folder / name / "sweep.csv").open() as lines:
            return list(csv.DictReader(lines))

    def statuses(self, name: str) -> Counter[str]:
        """How many jobs ended in which way."""
        return Counter(row["status"] for row in self.table(name))


def until(condition: Callable[[], object], seconds: float = WAIT) -> None:
    """Wait for a condition; raise where it does not come."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds} s in vain")
        time.sleep(0.02)


def workers_at_training(folder: Path) -> list[int]:
    """Processes that hold a job's folder in which training has begun, and is not over."""
    begun = [job for job in folder.glob("[0-9]*") if (job / "checkpoint.pt").exists()]
    locks = [job / ".lock" for job in begun if not (job / "summary.json").exists()]
    return [int(text) for lock in locks if lock.exists() and (text := lock.read_text())]


def death_and_resume(sweep: Sweep) -> str:
    """A worker is killed with SIGKILL; nothing else is lost, and `sweep.resume` does what is missing."""
    process = sweep.start(*GRID, "hydra.sweep.dir=sweep")
    folder = sweep.folder / "sweep"
    until(lambda: len(list(folder.glob("*/summary.json"))) >= 4)
    until(lambda: workers_at_training(folder))
    os.kill(workers_at_training(folder)[0], signal.SIGKILL)
    out, err = process.communicate()
    first = sweep.statuses("sweep")
    assert process.returncode == 1, (process.returncode, err)
    assert err.count("optimizer.lr=-1.0 must be") == 2, err
    assert err.count("has died; sweep.resume=sweep does again") >= 1, err
    assert "Traceback" not in err, err
    assert first["failed"] == 2 and first["killed"] >= 1 and first["completed"] >= 24 - 2 - 2, (first, err)
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("*/summary.json")}
    code, out, err = sweep.run(*GRID, "sweep.resume=sweep")
    second = sweep.statuses("sweep")
    assert code == 1 and second == {"completed": 22, "failed": 2}, (code, second, err)
    assert out.count("is finished already") == first["completed"], out
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items() if is_complete(path))
    assert not (folder / ".workers").exists()
    return f"{tally(first)}; resumed: {tally(second)}"


def same_numbers(sweep: Sweep) -> str:
    """A job of the sweep has the numbers that it has alone in a process."""
    single = [word for word in SWEEP if word != "-m"]
    command = [sys.executable, str(ROOT / "run.py"), *single, "seed=1", "optimizer.lr=0.03", "hydra.run.dir=alone"]
    subprocess.run(command, cwd=sweep.folder, env=sweep.environment, check=True, capture_output=True)
    alone = json.loads((sweep.folder / "alone" / "summary.json").read_text())
    (row,) = [row for row in sweep.table("sweep") if (row["seed"], row["optimizer.lr"]) == ("1", "0.03")]
    assert float(row["final"]) == alone["final"]["mean"], (row, alone["final"])
    return "equal"


def batches(sweep: Sweep) -> str:
    """`sweep.batched=true` gives batches to the workers, and every job is as in any sweep."""
    code, _, err = sweep.run(*GRID, "sweep.batched=true", "hydra.sweep.dir=batched")
    counted = sweep.statuses("batched")
    assert code == 1 and counted == {"completed": 22, "failed": 2}, (code, counted, err)
    assert err.count("optimizer.lr=-1.0 must be") == 2, err
    sizes = Counter(size_of_batch(path) for path in (sweep.folder / "batched").glob("*/summary.json"))
    assert sizes.total() == 24 and max(sizes) <= 12 and sizes[1] == 0, sizes
    found = [f"{jobs // size} batches of {size} jobs" for size, jobs in sorted(sizes.items()) if size]
    return "; ".join([tally(counted), *found])


def ended(sweep: Sweep) -> str:
    """SIGTERM to the command: jobs that run are written as interrupted, none begins, and the rest is resumed."""
    process = sweep.start(*GRID, "trainer.steps=20000", "hydra.sweep.dir=ended")
    folder = sweep.folder / "ended"
    until(lambda: len(workers_at_training(folder)) >= 2)
    process.terminate()
    began = time.monotonic()
    _, err = process.communicate()
    seconds = time.monotonic() - began
    counted = sweep.statuses("ended")
    assert process.returncode == 143, (process.returncode, err)
    assert counted["interrupted"] >= 1 and counted["killed"] == 0 and counted.total() < 24, (counted, err)
    assert not workers_at_training(folder)
    return f"exit code 143 after {seconds:.0f} s; {tally(counted)}"


def is_complete(path: Path) -> bool:
    """Whether a summary is that of a job that completed."""
    return json.loads(path.read_text())["status"] == "completed"


def size_of_batch(path: Path) -> int:
    """How many jobs trained with the one whose summary this is; 0 for one that failed before."""
    return json.loads(path.read_text()).get("batch", {}).get("jobs", 0)


def tally(counted: Counter[str]) -> str:
    """Counts in words."""
    return ", ".join(f"{number} {status}" for status, number in sorted(counted.items()))


STEPS = {
    "a worker is killed": death_and_resume,
    "the numbers of a single run": same_numbers,
    "batches": batches,
    "SIGTERM to the sweep": ended,
}
"""In this order: the second looks at what the first has left."""
