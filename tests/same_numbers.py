"""Compare the numbers of two checkouts: `python tests/same_numbers.py OLD NEW [experiment ...]`.

Every experiment runs in both for a few dozen steps, without compiling, from the same seed and with one thread. What the
two write is compared bit for bit: the trace, the draws or records, the summary and the state of the step. The exit code
is 1 if anything differs or a command fails. With `--keep FOLDER` the numbers of OLD are kept there, so that only NEW
runs the next time.
"""

import argparse
import contextlib
import csv
import functools
import hashlib
import json
import multiprocessing
import os
import platform
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

EAGER = "trainer.compile=off"
"""Every step is made by Python; a checkout with another name for it gets that."""
COMMON = ("seed=3", "threads=1", "plot.enabled=false")
SHORT = ("trainer.limit=30", "trainer.final_samples=100")
IMAGES = ("trainer.limit=8", "trainer.final_samples=20", "dataset.batch_size=20")
REPLICATES = 3
LEFT_OUT = {"benchmark": "it measures time"}
SETTINGS: dict[str, tuple[str, ...]] = {
    "earthquakes_catalogue": ("model.components=2,4",),
    "iwae_burda": ("estimator.num_samples=3", "trainer.likelihood_samples=2", "optimizer.schedule.stages=2"),
    "rao_blackwell": ("trainer.gradient_draws=5",),
    "rao_blackwell_control_variate": ("trainer.gradient_draws=5",),
    "rao_blackwell_normal_gamma": ("trainer.gradient_draws=5",),
    "gumbel_softmax": ("study.num_samples=5000",),
    "vae_path_derivative": ("optimizer.lr=1e-3",),
}
"""What makes an experiment shorter, beside the settings above."""
NO_NUMBERS = {"schema", "timing", "environment", "run", "config_hash", "overrides"}
"""Entries of summary.json that say when, where and how it ran."""

Numbers = dict[str, dict[str, Any]]
"""By file and name: an array, a number, or None."""


class CommandFailed(Exception):
    """A run ended with an exit code that is not 0."""


def run_py(folder: Path, arguments: Sequence[str], log: str) -> None:
    """Do what `python run.py` does in `folder`, in a copy of this process, for which torch need not start again."""
    file = os.open(log, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.chdir(folder)
    sys.path[0], sys.argv = str(folder), ["run.py", *arguments]
    torch.set_num_threads(1)
    runpy.run_path("run.py", run_name="__main__")


@dataclass(frozen=True)
class Checkout:
    """A folder with the program, and what it is called in messages."""

    name: str
    folder: Path

    def run(self, arguments: Sequence[str], output: Path) -> None:
        """Run the program, its folder or its sweep's folder being `output`."""
        spelled = [self.eager if argument == EAGER else argument for argument in arguments]
        command = [*spelled, f"hydra.run.dir={output}", f"hydra.sweep.dir={output}"]
        with tempfile.NamedTemporaryFile("r", prefix="same-numbers-", suffix=".log") as log:
            process = multiprocessing.get_context("fork").Process(target=run_py, args=(self.folder, command, log.name))
            process.start()
            process.join()
            if process.exitcode != 0:
                lines = log.read().splitlines()
                said = [line for line in lines if "error" in line.lower()] or lines
                raise CommandFailed(f"{self.name} ended with {process.exitcode}: {''.join(said[-1:])}")

    @functools.cached_property
    def eager(self) -> str:
        """`EAGER` as this checkout spells it."""
        settings = yaml.safe_load((self.folder / "conf" / "trainer" / "default.yaml").read_text())
        return "trainer.execution=eager" if "execution" in settings else EAGER

    def experiments(self) -> list[str]:
        """The names of all experiments."""
        return sorted(path.stem for path in (self.folder / "conf" / "experiment").glob("*.yaml"))

    def experiment(self, name: str) -> dict[str, Any]:
        """The settings of an experiment's file and those that it inherits; `parts` has the parts that it chooses."""
        own = yaml.safe_load((self.folder / "conf" / "experiment" / f"{name}.yaml").read_text())
        settings: dict[str, Any] = {"parts": {}}
        for entry in own.get("defaults", []):
            if isinstance(entry, dict):
                settings["parts"] |= {key.removeprefix("override /"): part for key, part in entry.items()}
            elif entry != "_self_":
                inherited = self.experiment(entry)
                settings = {**inherited, "parts": inherited["parts"] | settings["parts"]}
        return {**settings, **own, "parts": settings["parts"]}

    @functools.cached_property
    def commit(self) -> str | None:
        """The commit that is checked out, or None where there is none, or tracked files were changed since."""
        git = functools.partial(subprocess.run, cwd=self.folder, capture_output=True, text=True, check=False)
        changes = git(["git", "status", "--porcelain", "--untracked-files=no"])
        commit = git(["git", "rev-parse", "HEAD"])
        return None if changes.stdout or commit.returncode else commit.stdout.strip()


def arguments_of(checkout: Checkout, name: str, data: Path | None) -> tuple[str, ...] | str:
    """The command line of a short run of an experiment, or why it cannot run."""
    settings = checkout.experiment(name)
    parts = settings["parts"]
    arguments = (f"experiment={name}", *COMMON, *SETTINGS.get(name, ()))
    if "study" in parts:
        return arguments
    arguments += (EAGER, *(IMAGES if parts["dataset"] == "mnist" else SHORT))
    if settings.get("replicates", 1) != 1:
        arguments += (f"replicates={REPLICATES}",)
    needed = {"mnist": "MNIST/raw", "catalogue": "quakes/quakes.csv"}.get(parts["dataset"])
    if needed is None:
        return arguments
    if data is None or not (data / needed).exists():
        return f"there is no {needed} in {data}" if data else f"it needs a folder with {needed}: --data or VI_DATA"
    if parts["dataset"] == "mnist":
        return (*arguments, f"dataset.root={data}", "dataset.download=false")
    return (*arguments, f"dataset.path={data / needed}")


# --- the numbers of a run -------------------------------------------------------------------------------------------


def numbers_of(output: Path) -> Numbers:
    """All numbers of a run, or of all jobs of a sweep."""
    numbers: Numbers = {}
    for summary in sorted(output.rglob("summary.json")):
        run = summary.parent
        job = "" if run == output else f"{run.relative_to(output)}/"
        contents = json.loads(summary.read_text())
        numbers[f"{job}summary.json"] = dict(
            leaves({key: value for key, value in contents.items() if key not in NO_NUMBERS})
        )
        if (run / "trace.csv").is_file():
            numbers[f"{job}trace.csv"] = columns(run / "trace.csv")
        for arrays in run.glob("*.npz"):
            with np.load(arrays) as stored:
                numbers[f"{job}{arrays.name}"] = dict(stored)
        if (run / "checkpoint.pt").is_file():
            state = torch.load(run / "checkpoint.pt", map_location="cpu", weights_only=True)["step"]
            numbers[f"{job}checkpoint.pt"] = dict(leaves(state))
    return numbers


def leaves(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The numbers of nested dictionaries and lists by dotted names; texts are none."""
    if isinstance(tree, dict | list | tuple):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(value, f"{name}.{key}" if name else str(key))
    elif isinstance(tree, torch.Tensor):
        yield name, tree.detach().numpy()
    elif not isinstance(tree, str):
        yield name, tree


def columns(path: Path) -> dict[str, np.ndarray]:
    """The columns of a trace but for the time."""
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    table = np.array(rows, dtype=float).reshape(len(rows), len(header))
    return {name: table[:, index] for index, name in enumerate(header) if name != "seconds"}


# --- what differs ---------------------------------------------------------------------------------------------------


def differences(old: Numbers, new: Numbers) -> Iterator[str]:
    """Each number that is not the same as `<file> <name> <old> <new>`."""
    for file in sorted(old.keys() | new.keys()):
        if file not in old or file not in new:
            yield f"{file} - {_presence(file, old)} {_presence(file, new)}"
            continue
        before, after = old[file], new[file]
        for name in sorted(before.keys() | after.keys()):
            if name not in before or name not in after:
                yield f"{file} {name} {_presence(name, before)} {_presence(name, after)}"
            elif difference := unequal(np.asarray(before[name]), np.asarray(after[name])):
                yield f"{file} {name}{difference}"


def _presence(name: str, among: dict[str, Any]) -> str:
    return "present" if name in among else "absent"


def unequal(old: np.ndarray, new: np.ndarray) -> str:
    """The first place where two arrays differ, with its values, or nothing; not a number equals not a number."""
    if (old.dtype, old.shape) != (new.dtype, new.shape):
        return f" {old.dtype}{list(old.shape)} {new.dtype}{list(new.shape)}"
    both_nan = (old != old) & (new != new)
    places = np.argwhere(~((old == new) | both_nan))
    if len(places) == 0:
        return ""
    place = tuple(int(index) for index in places[0])
    where = f"[{','.join(map(str, place))}]" if place else ""
    return f"{where} {old[place].item()!r} {new[place].item()!r}"


# --- the comparison -------------------------------------------------------------------------------------------------


def run_fresh(checkout: Checkout, arguments: Sequence[str]) -> Numbers:
    """Run in a temporary folder and return the numbers."""
    with tempfile.TemporaryDirectory() as folder:
        checkout.run(arguments, Path(folder) / "run")
        return numbers_of(Path(folder) / "run")


def run_kept(checkout: Checkout, arguments: Sequence[str], keep: Path) -> Numbers:
    """The numbers of a run that is kept in `keep` by commit, command line and torch; it runs where it is not there."""
    key = json.dumps([*arguments, torch.__version__, platform.node()])
    experiment = arguments[0].partition("=")[2]
    place = keep / str(checkout.commit) / f"{experiment}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    if not place.is_dir():
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as folder:
            checkout.run(arguments, Path(folder) / "run")
            numbers = numbers_of(Path(folder) / "run")
            with contextlib.suppress(OSError):  # another comparison was faster
                (Path(folder) / "run").rename(place)
            return numbers
    return numbers_of(place)


def compare(old: Checkout, new: Checkout, name: str, data: Path | None, keep: Path | None) -> tuple[bool, list[str]]:
    """Whether an experiment is in order, and lines that say so."""
    if name in LEFT_OUT:
        return True, [f"skipped ({LEFT_OUT[name]})"]
    if name not in old.experiments():
        return True, [f"skipped ({old.name} has no such experiment)"]
    if name not in new.experiments():
        return False, [f"DIFFERS: {new.name} has no such experiment"]
    arguments = arguments_of(old, name, data)
    if isinstance(arguments, str):
        return True, [f"skipped ({arguments})"]
    try:
        before = run_fresh(old, arguments) if keep is None else run_kept(old, arguments, keep)
        after = run_fresh(new, arguments)
    except CommandFailed as failure:
        return False, [f"FAILED: {failure}"]
    if not before:
        return False, [f"FAILED: {old.name} wrote no summary.json"]
    found = [f"DIFFERS: {difference}" for difference in differences(before, after)]
    return not found, found or ["same"]


def main() -> int:
    """Compare, with a line for each experiment."""
    parser = argparse.ArgumentParser(description="Compare the numbers of two checkouts, bit for bit.")
    parser.add_argument("old", type=Path, help="a checkout of the project")
    parser.add_argument("new", type=Path, help="another one")
    parser.add_argument("experiments", nargs="*", help="experiments to run; all if none is given")
    parser.add_argument("--data", type=Path, default=os.environ.get("VI_DATA"), help="folder with MNIST/ and quakes/")
    parser.add_argument("--keep", type=Path, help="folder where the numbers of OLD are kept, by commit")
    parser.add_argument("--all", action="store_true", help="print every difference, not the first of an experiment")
    options = parser.parse_args()
    old, new = Checkout("OLD", options.old.resolve()), Checkout("NEW", options.new.resolve())
    known = sorted({*old.experiments(), *new.experiments()})
    if unknown := set(options.experiments) - set(known):
        parser.error(f"no such experiment: {', '.join(sorted(unknown))}")
    keep = options.keep.resolve() if options.keep else None
    if keep and old.commit is None:
        print("nothing is kept: OLD is at no commit, or tracked files are changed")
        keep = None
    data = options.data.resolve() if options.data else None
    width, good = max(map(len, known)), True
    for name in options.experiments or known:
        ok, lines = compare(old, new, name, data, keep)
        good &= ok
        more = "" if options.all or len(lines) == 1 else f" (and {len(lines) - 1} more)"
        for line in lines if options.all else lines[:1]:
            print(f"{name:{width}}  {line}{more}", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
