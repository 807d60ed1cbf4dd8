"""Measurements that take a process of their own each time: commands, memory, the drawing of figures."""

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from .entries import Entry, Place
from .processes import Worker, command, python

STEPS = 3
"""Training steps whose memory is watched."""
FINISHED = "finished"
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""For glibc, which otherwise keeps what it has seen freed."""


def whole_command(entry: Entry, place: Place) -> float:
    """Return the wall seconds of a command, in an empty folder; one is kept for its figures."""
    settings = entry.settings
    folder = Path(tempfile.mkdtemp(dir=place.folder))
    cold = {"TORCHINDUCTOR_CACHE_DIR": str(folder / "cache")}
    seconds = command([*settings["arguments"]], folder, cold)
    if settings.get("keep") and not (place.folder / FINISHED).exists():
        (run,) = (path.parent for path in folder.rglob("summary.json"))
        shutil.move(run, place.folder / FINISHED)
    shutil.rmtree(folder)
    return seconds


def extrapolated_sweep(entry: Entry, place: Place) -> float:
    """Return what a sweep of many points would take, from one of four and one of one: starting, and jobs alike."""
    settings = entry.settings
    with tempfile.TemporaryDirectory(dir=place.folder) as folder:
        one = command([*settings["one"]], Path(folder), {})
        few = command([*settings["few"]], Path(folder), {})
    return one + (settings["points"] - 1) * (few - one) / 3


def peak_memory(entry: Entry, place: Place) -> float:
    """Return the peak of the resident memory in training steps, above what there is between steps, in MiB.

    The first step brings in what stays: code, workspaces, gradients. Arrays that are freed go back to the system.
    """
    worker = Worker("ours", [entry.settings], entry.threads or 1, {**entry.environment, **GIVE_BACK})
    try:
        worker.ask(0, run=1)
        return worker.ask(0, peak_mib=STEPS)["peak_mib"]
    finally:
        worker.close()


def figures(entry: Entry, place: Place) -> float:
    """Return the seconds in which the figures of a default run are drawn, matplotlib's import included."""
    run = place.folder / FINISHED
    if not run.exists():
        command([f"hydra.run.dir={run}", "plot.enabled=false"], place.folder, {})
    return json.loads(python(["-m", f"{__package__}.drawing", str(run)], place.folder, {})[1])["seconds"]


MEASURES: dict[str, Callable[[Entry, Place], float]] = {
    measure.__name__: measure for measure in (whole_command, extrapolated_sweep, peak_memory, figures)
}
