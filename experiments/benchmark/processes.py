"""Processes that the benchmark starts: contenders that answer, and commands that end."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config.places import PROGRAM
from .protocol import Broken, Missing, Settings

PATIENCE_S = 600.0
"""A contender that is silent for longer is given up."""
SOURCES = Path(__file__).resolve().parents[2]
"""Where `experiments` or, once installed, `vi_core` is found."""


def environment(threads: int | None, extra: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process with so many threads for each library; None leaves that to the process."""
    base = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "HYDRA_FULL_ERROR")}
    base["PYTHONPATH"] = os.pathsep.join(filter(None, [str(SOURCES), os.environ.get("PYTHONPATH")]))
    if threads is not None:
        base |= {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        base["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'}"
    return base | {"JAX_PLATFORMS": "cpu"} | dict(extra)


class Worker:
    """A contender's process: `ask` sends a message and returns its reply.

    Args:
        module: Of this package, with a `build(settings)`.
        settings: One problem, or several that one process holds.
        threads: That it may use.
        extra: Variables of its environment.
    """

    def __init__(self, module: str, settings: Sequence[Settings], threads: int, extra: Mapping[str, str]):
        started = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment(threads, extra),
            start_new_session=True,
        )
        try:
            content = self._exchange({"module": module, "settings": [dict(s) for s in settings], "threads": threads})
        except BaseException:
            self.close()
            raise
        self.startup_s = time.perf_counter() - started
        self.strides: list[int] = [each["stride"] for each in content["ready"]]

    def ask(self, at: int, **request: Any) -> dict[str, Any]:
        """Send a request to the problem number `at`. Raises `Missing` or `Broken`."""
        return self._exchange({"at": at, **request})

    def _exchange(self, message: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        timer = threading.Timer(PATIENCE_S, self.process.kill)
        timer.start()
        try:
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except (BrokenPipeError, ValueError):  # it has ended, or was closed
            line = ""
        finally:
            timer.cancel()
        if not line:
            raise Broken(f"its process ended ({describe_end(self.process.wait())})")
        reply = json.loads(line)
        if "missing" in reply:
            raise Missing(reply["missing"])
        if "error" in reply:
            raise Broken(reply["error"])
        return reply

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


def describe_end(code: int) -> str:
    """Return how a process ended, in words."""
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


def command(arguments: Sequence[str], folder: Path, extra: Mapping[str, str]) -> float:
    """Run the program on `arguments` in `folder`, as a user types them; return its wall seconds."""
    program = f"from {PROGRAM}.cli import main; main()"
    return python(["-c", program, *arguments], folder, extra)[0]


def python(arguments: Sequence[str], folder: Path, extra: Mapping[str, str]) -> tuple[float, str]:
    """Run Python in `folder`; return the wall seconds and what it wrote. Raises `Broken` when it fails."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment(None, extra),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        raise Broken((done.stderr.strip() or describe_end(done.returncode)).splitlines()[-1])
    return seconds, done.stdout
