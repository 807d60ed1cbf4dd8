"""Fixtures of all tests: the command line in this process, and torch's global state put back after each test."""

import argparse
import contextlib
import io
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from experiments import cli as command_line
from experiments.config.schema import Root

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("VI_DATA", ROOT.parent / "shared" / "data"))
"""Where the real data sets are; tests that need them are skipped where they are not."""

FSYNC = os.fsync
CommandLine = Callable[..., "Result"]
SMOKE = ("--run", "trainer=smoke", "plot.enabled=false", "replicates=2")
"""Arguments that make a run short; without --run Hydra composes once more, only to see whether it is a sweep."""
needs_mnist = pytest.mark.skipif(
    not (DATA / "MNIST" / "raw" / "train-images-idx3-ubyte").is_file(), reason=f"no MNIST in {DATA} (set VI_DATA)"
)
needs_quakes = pytest.mark.skipif(
    not (DATA / "quakes" / "quakes.csv").is_file(), reason=f"no quakes in {DATA} (set VI_DATA)"
)


@dataclass(frozen=True)
class Result:
    """How a command line ended: its exit code and what it wrote to standard output and standard error."""

    code: int
    out: str
    err: str


def run_in(folder: Path, *arguments: str) -> Result:
    """Run the program on `arguments` in `folder`, in this process: importing torch takes seconds."""
    out, err = io.StringIO(), io.StringIO()
    GlobalHydra.instance().clear()
    command_line.failures.clear()
    streams = (contextlib.redirect_stdout(out), contextlib.redirect_stderr(err))
    with unchanged_process(), pytest.MonkeyPatch.context() as patch, streams[0], streams[1]:
        if os.fsync is FSYNC:  # tests of faults put something else there, and nobody else sees what reaches the disk
            patch.setattr(os, "fsync", lambda _: None)
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["run.py", *arguments])
        patch.setattr(argparse.ArgumentParser, "error", argparse.ArgumentParser.error)  # which main() replaces
        patch.setenv("HYDRA_FULL_ERROR", "1")
        code = _exit_code(command_line.main)
    return Result(code, out.getvalue(), err.getvalue())


def _exit_code(main: Callable[[], None]) -> int:
    """Return the code with which `main` would end the process; a text goes to standard error, as Python does it."""
    try:
        main()
    except SystemExit as exit_:
        if isinstance(exit_.code, str):
            sys.stderr.write(f"{exit_.code}\n")
            return 1
        return int(exit_.code or 0)
    raise AssertionError("main() returned instead of exiting")


@pytest.fixture
def cli(tmp_path: Path) -> CommandLine:
    """`cli(*arguments) -> Result`, in the test's own folder."""
    return lambda *arguments: run_in(tmp_path, *arguments)


@pytest.fixture(autouse=True)
def restore_process() -> Iterator[None]:
    """Put back what a test has set."""
    with unchanged_process():
        yield


@pytest.fixture(autouse=True, scope="module")
def restore_after_module() -> Iterator[None]:
    """Put back what the fixtures of a module have set."""
    with unchanged_process():
        yield


@contextlib.contextmanager
def unchanged_process() -> Iterator[None]:
    """Put back what a job sets: threads, default dtype, random streams, log handlers, signals, Hydra's registry."""
    dtype, threads, stream = torch.get_default_dtype(), torch.get_num_threads(), torch.get_rng_state()
    handlers, level = logging.root.handlers[:], logging.root.level
    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)
    torch.set_rng_state(stream)
    for handler in set(logging.root.handlers) - set(handlers):
        with contextlib.suppress(OSError):  # of a full disk, as when a process ends
            handler.close()  # of a run's log file, which Hydra leaves open
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    for number, handler in signals.items():
        signal.signal(number, handler)
    GlobalHydra.instance().clear()
    command_line.failures.clear()


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a completed run of 20 steps and two replicates; copy it before changing it."""
    folder = tmp_path_factory.mktemp("finished")
    result = run_in(folder, *SMOKE, "hydra.run.dir=run")
    assert (result.code, result.err) == (0, "")
    return folder / "run"


def trace_text(run: Path) -> str:
    """A run's trace without its last column, the only one that may differ between equal runs."""
    lines = (run / "trace.csv").read_text().splitlines()
    assert lines[0].endswith(",seconds")
    return "\n".join(line.rpartition(",")[0] for line in lines)


def summary_of(run: Path) -> dict[str, Any]:
    """The content of a run's summary.json."""
    return json.loads((run / "summary.json").read_text())


@cache
def _composed(arguments: tuple[str, ...]) -> str:
    shown = run_in(Path.cwd(), "--cfg", "job", "--resolve", *arguments)
    assert (shown.code, shown.err) == (0, "")
    return shown.out


def configuration(*arguments: str) -> DictConfig:
    """The resolved configuration of a command line; composed once, as Hydra takes half a second."""
    overrides = tuple(argument for argument in arguments if argument != "--run")
    config = OmegaConf.merge(OmegaConf.structured(Root), OmegaConf.create(_composed(overrides)))
    assert isinstance(config, DictConfig)
    return config
