"""What a worker process does with jobs of a sweep that a launcher gives it.

It sets itself up as the program does that started the sweep, from a file in the sweep's folder, runs the jobs, and
returns their objectives and what they wrote to the terminal. Nothing that a job does is seen by the process of the
sweep otherwise, which may be on another machine: the two share a file system and no more. A file there, too, says that
the sweep is to end. Importing this module imports no torch, whose number of threads is set first.
"""

import gc
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from functools import cache, lru_cache
from io import StringIO
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import HydraContext
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from vi_core.errors import ConfigError, LabError
from vi_core.storage.files import is_private, replacing

from ..config import hydra_adapter
from ..config.messages import one_line
from ..run.jobs import NEW_OBJECTS, failures, make_job, run_job
from .owned_sweeper import ending_on_sigterm

WORKERS = ".workers"
LAUNCH, STOP = f"{WORKERS}/launch", f"{WORKERS}/stop"
"""Files in the folder of a sweep: what its workers are set up from, and a note that they are to end."""
EVERY = 0.5  # seconds between two looks for the note
Numbered = tuple[int, list[str]]
"""A job's place in the sweep, and what the sweep sets for it."""


@dataclass(frozen=True)
class Launch:
    """What the workers of a sweep are set up from: its configuration, folders with the user's YAML, and where it is."""

    config: DictConfig
    folders: list[Path]
    place: Path

    def write(self, folder: Path) -> None:
        """Write the file into the folder of the sweep, for its owner alone.

        Raises:
            ConfigError: Where another user has made its place.
        """
        own_folder(folder / WORKERS)
        with replacing(folder / LAUNCH) as unfinished:
            unfinished.touch(mode=0o600)
            unfinished.write_bytes(pickle.dumps(self))

    @staticmethod
    def read(folder: Path) -> "Launch":
        """Read the file in the folder of the sweep.

        Raises:
            ConfigError: Where another user can have written it, as reading it runs what it holds.
        """
        refuse_foreign(folder / WORKERS)
        with (folder / LAUNCH).open("rb") as file:
            refuse_foreign(folder / LAUNCH, file.fileno())
            return pickle.load(file)


def own_folder(folder: Path) -> Path:
    """Make a folder for this user alone, whatever the umask; refuse one that is there and is another user's."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    refuse_foreign(folder)
    return folder


def refuse_foreign(path: Path, opened: int | None = None) -> None:
    """Refuse a file or folder that another user can write, since workers run what is in it.

    Args:
        path: Its name.
        opened: Its descriptor, which no other user can exchange after the look at it; none for a folder.
    """
    if not is_private(path if opened is None else opened):
        raise ConfigError(f"{path} is not used: another user can write it, and workers run what it holds; remove it.")


@dataclass(frozen=True)
class Item:
    """Jobs that one worker runs at a stretch: a single one, or several that train together.

    Attributes:
        folder: Of the sweep, absolute.
        jobs: By their numbers.
        threads: How many of the machine's cores are this worker's.
        slots: Folder in which the workers of a machine agree on its devices; None where the launcher gives devices.
    """

    folder: Path
    jobs: list[Numbered]
    threads: int = 1
    slots: Path | None = None


@dataclass
class Done:
    """What became of an item.

    Attributes:
        values: The objectives of the jobs that were begun, by their numbers.
        failures: Folders of those that failed.
        out, err: What they wrote to standard output and standard error.
    """

    values: dict[int, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    out: str = ""
    err: str = ""


def work(item: Item) -> Done:
    """Run the jobs of an item in this process; what goes wrong with one is told in what is returned."""
    if (item.folder / STOP).exists():
        return Done()
    with suppress(OSError):  # of a process that leads a session already
        os.setpgrp()  # Ctrl-C goes to the process of the sweep, which tells its workers
    os.environ["OMP_NUM_THREADS"] = str(item.threads)
    done, before = Done(), len(failures)
    streams = redirect_stdout(StringIO()), redirect_stderr(StringIO())
    with streams[0] as out, streams[1] as err, ending_on_sigterm(), told(item, err):
        launch, context = enter(item.folder, (item.folder / LAUNCH).stat().st_mtime_ns)
        with ended_by(item.folder / STOP):
            for number, value in run_all(item, launch, context):
                done.values[number] = value
    done.failures, done.out, done.err = failures[before:], out.getvalue(), err.getvalue()
    return done


@contextmanager
def told(item: Item, err: StringIO) -> Iterator[None]:
    """Context manager: what ends the jobs is told as `main` does, and ends no more than them."""
    try:
        yield
    except (LabError, HydraException, OmegaConfBaseException, OSError) as error:
        err.write(f"error: {one_line(error)}\n")
    except (SystemExit, KeyboardInterrupt):
        return  # a signal; the job is written, and says that it was interrupted
    except Exception:
        err.write(traceback.format_exc())
    else:
        return
    failures.extend(str(item.folder / str(number)) for number, _ in item.jobs)


@lru_cache(maxsize=1)
def enter(folder: Path, written: int) -> tuple[Launch, HydraContext]:
    """Set this process up as that of the sweep: present folder, resolvers and composition.

    Args:
        folder: Of the sweep.
        written: When its file was; a process that has seen another one is set up anew.
    """
    gc.set_threshold(NEW_OBJECTS)
    launch = Launch.read(folder)
    os.chdir(launch.place)
    hydra_adapter.install()
    return launch, hydra_adapter.context_of(launch.config, launch.folders)


@contextmanager
def ended_by(note: Path) -> Iterator[None]:
    """Context manager: this process gets SIGTERM as soon as a file exists."""
    over, main = threading.Event(), threading.main_thread().ident

    def watch() -> None:
        while not over.wait(EVERY):
            if note.exists() and main is not None:
                return signal.pthread_kill(main, signal.SIGTERM)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def run_all(item: Item, launch: Launch, context: HydraContext) -> Iterator[tuple[int, float]]:
    """Run the jobs of an item as a sweep in this process does; yield the objective of each."""
    from .batched_sweeper import BatchedSweeper  # torch, once the threads are set
    from .composing import Composed

    if item.slots is not None and wants_cuda(launch.config, item.jobs):
        take_device(item.slots)
    sweeper = BatchedSweeper()
    sweeper.enter(context, run_composed, launch.config)
    sweeper.log_as_sweep()
    single = len(item.jobs) == 1
    jobs = [Composed(*job) if single else sweeper.composer.compose(job[1], job[0]) for job in item.jobs]
    for composed, result in sweeper.run_group(jobs):
        yield composed.number, result.return_value


def run_composed(cfg: DictConfig) -> float:
    """Run a job in the folder that Hydra made for it; whether it is finished already, the sweep's process knows."""
    return run_job(make_job(cfg, Path(HydraConfig.get().runtime.output_dir)))


def wants_cuda(config: Any, jobs: list[Numbered]) -> bool:
    """Whether the sweep, or one of these jobs, may compute on a CUDA device."""
    pairs = (text.partition("=")[::2] for _, overrides in jobs for text in overrides)
    names = {config.device.name} | {value for key, value in pairs if key in ("device", "device.name")}
    return not names.isdisjoint(("cuda", "auto"))


@cache
def take_device(slots: Path) -> int | None:
    """Let this process compute on one of several CUDA devices; its neighbours take the others, in turn.

    A process holds the lock of its slot until it ends, whatever ends it. With more processes than devices some share.

    Args:
        slots: Folder of the locks.

    Returns:
        The number of the device; None where there is no choice.
    """
    import fcntl

    import torch

    devices = torch.cuda.device_count()
    if devices < 2:
        return None
    for number in range(os.cpu_count() or 1):
        descriptor = os.open(slots / str(number), os.O_RDWR | os.O_CREAT, 0o600)
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            torch.cuda.set_device(number % devices)
            return number % devices
        os.close(descriptor)
    return None
