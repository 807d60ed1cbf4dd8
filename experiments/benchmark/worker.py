"""The process of a contender: `python -m experiments.benchmark.worker`, driven over standard input and output."""

import importlib
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from .protocol import Contender, Missing

EXTRA = ("pyro", "numpyro", "jax")
"""Packages of the extra `bench`."""


class Warnings(logging.Handler):
    """Keeps the warnings of a contender: one that falls back to something else says so there."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the first line."""
        self.seen.append(record.getMessage().strip().partition("\n")[0])


def main() -> None:
    """Build what the first line asks for, then answer line by line until there are no more."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a contender prints is no reply
    request = json.loads(sys.stdin.readline())
    pin(request["threads"])
    heard = Warnings()
    logging.captureWarnings(True)
    logging.getLogger().addHandler(heard)
    try:
        build = importlib.import_module(located(request["module"])).build
        contenders = [build(settings) for settings in request["settings"]]
        send(replies, {"ready": [{"stride": contender.stride} for contender in contenders]})
        for line in sys.stdin:
            heard.seen.clear()
            send(replies, reply(json.loads(line), contenders) | {"warnings": heard.seen})
    except Missing as error:
        send(replies, {"missing": str(error)})
    except ModuleNotFoundError as error:
        extra = error.name in EXTRA
        text = f"{error.name} is not installed: pip install 'vi-lab[bench]'" if extra else str(error)
        send(replies, {"missing" if extra else "error": text})
    except Exception as error:
        send(replies, {"error": f"{type(error).__name__}: {error}".partition("\n")[0]})


def located(module: str) -> str:
    """Return the dotted name of a module: of this package, unless it has dots of its own."""
    return module if "." in module else f"{__package__}.{module}"


def send(replies: TextIO, content: dict[str, Any]) -> None:
    """Write one line."""
    replies.write(json.dumps(content) + "\n")


def reply(request: dict[str, Any], contenders: Sequence[Contender]) -> dict[str, Any]:
    """Do what is asked, and return the result."""
    contender = contenders[request.get("at", 0)]
    if "run" in request:
        return {"seconds": contender.run(request["run"])}
    if "peak_mib" in request:
        reset_peak()
        before = resident("VmRSS")
        contender.run(request["peak_mib"])
        return {"peak_mib": resident("VmHWM") - before}
    return {"answer": contender.answer()}


def pin(threads: int) -> None:
    """Keep this process, with every thread that it will start, on as many cores as it may use threads."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def reset_peak() -> None:
    """Let the peak of the resident memory begin anew, which Linux does on request."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError as error:
        raise Missing("the peak of a process's memory is only known on Linux") from error


def resident(name: str) -> float:
    """Return `VmRSS`, the memory of this process now, or `VmHWM`, its peak, in MiB."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
