"""Problems that are whole commands, each in a new process: a sweep, a run with compiling, starting."""

from typing import Any

from .entries import Entry, Place, Problem

GRID = [f"optimizer.lr={','.join(str(1e-3 * 2**i) for i in range(8))}", "seed=range(16)"]
GRID_POINTS = 128
JOBS = ["-m", "experiment=bbvi", "replicates=1", "trainer.steps=2000", "plot.enabled=false"]
"""What each point of the grid runs: a grid over seeds takes the place of replicates."""


def sweep(place: Place) -> Problem:
    """A grid of 8 learning rates and 16 seeds, as one batch and one by one."""
    batched = {"arguments": [*JOBS, *GRID, "sweep.batched=true"]}
    few = {"few": [*JOBS, "seed=range(4)"], "one": [*JOBS, "seed=range(1)"], "points": GRID_POINTS}
    entries = [
        Entry("ours", "batched", "whole_command", batched, threads=None),
        Entry("one_by_one", "from 4 jobs", "extrapolated_sweep", few, threads=None),
    ]
    return Problem("sweep", "s for the grid", entries, fresh=True)


def command(place: Place) -> Problem:
    """One run of 10,000 steps, as a user waits for it, with nothing compiled before."""
    entries = [
        Entry("ours", "execution=auto", "whole_command", one_run("auto"), threads=None),
        Entry("off", "execution=eager", "whole_command", one_run("eager"), threads=None),
    ]
    return Problem("command", "s", entries, fresh=True)


def one_run(mode: str) -> dict[str, Any]:
    """Return the settings of a run of one replicate with this way to make its steps."""
    return {"arguments": ["experiment=bbvi", "replicates=1", f"trainer.execution={mode}"]}


def startup(place: Place) -> Problem:
    """What a user waits for beside the iterations."""
    default = {"arguments": [], "keep": True}
    entries = [
        Entry("help", "--help", "whole_command", {"arguments": ["--help"]}, threads=None),
        Entry("default_run", "64 replicates, 10,000 steps", "whole_command", default, threads=None),
        Entry("figures", "of the default run", "figures", {}, threads=None),
    ]
    return Problem("startup", "s", entries, fresh=True)
