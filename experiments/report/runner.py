"""Run the commands of the page, a few at a time, each in a process of its own.

A child starts a session of its own, so that Ctrl-C reaches this process alone, which hands on exactly one signal: the
runs then write what they have, and the same command goes on with them.
"""

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..files import read_json, write_json
from ..interrupt import Interrupt
from .plan import PROGRAM, Plan

log = logging.getLogger(__name__)
POLL_S = 0.1
GRACE_S = 60.0
STATE = "row.json"


@dataclass
class Child:
    """A command that runs."""

    plan: Plan
    process: "subprocess.Popen[bytes]"
    output: IO[bytes]
    started: float


def run_all(plans: Sequence[Plan], folder: Path, parallel: int, done: Callable[[Plan, float], None]) -> None:
    """Run what is not finished yet, longest first; call `done(plan, seconds)` at the end of each."""
    waiting = sorted((plan for plan in plans if not finished(plan, folder)), key=lambda plan: plan.cost)
    running: list[Child] = []
    with Interrupt() as interrupt:
        try:
            while (waiting or running) and not interrupt.requested():
                while waiting and len(running) < parallel:
                    running.append(start(waiting.pop(), folder))
                time.sleep(POLL_S)
                for child in [child for child in running if child.process.poll() is not None]:
                    running.remove(child)
                    done(child.plan, close(child, folder))
        finally:
            if running:
                log.info("interrupted: the same command goes on where %d experiments stop now", len(running))
            stop(running)
    interrupt.leave()


def finished(plan: Plan, folder: Path) -> bool:
    """Whether the plan's folder holds what this very plan gives."""
    return state(plan, folder) == {"identity": plan.identity, "code": 0}


def state(plan: Plan, folder: Path) -> dict[str, object]:
    """Return identity and exit code that were noted in the plan's folder; the code is missing until the end."""
    path = folder / plan.name / STATE
    return read_json(path) if path.is_file() else {}


def start(plan: Plan, folder: Path) -> Child:
    """Begin, or go on with, the plan's command in its own folder below `folder`."""
    target = folder / plan.name
    begun = state(plan, folder).get("identity") == plan.identity
    arguments = [f"experiment={plan.name}", *plan.overrides]
    if plan.swept and begun:
        arguments.append(f"sweep.resume={target}")
    elif begun and state(plan, folder) == {"identity": plan.identity} and (target / "checkpoint.pt").is_file():
        arguments = [f"resume={target}"]
    else:
        shutil.rmtree(target, ignore_errors=True)
        arguments.append(f"hydra.{'sweep' if plan.swept else 'run'}.dir={target}")
    target.mkdir(parents=True, exist_ok=True)
    write_json(target / STATE, {"identity": plan.identity})
    output = (target / "output.log").open("wb")
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    process = subprocess.Popen(
        [*program(), *arguments], stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
    )
    return Child(plan, process, output, time.perf_counter())


def program() -> list[str]:
    """Return the beginning of a command line of this program, wherever it is started."""
    shim = PROGRAM / "run.py"
    package = __name__.removesuffix(".report.runner")
    run = [str(shim)] if shim.is_file() else ["-c", f"from {package}.cli import main; main()"]
    return [sys.executable, *run]


def close(child: Child, folder: Path) -> float:
    """Note that a command has ended; return its seconds."""
    child.output.close()
    code = child.process.returncode
    write_json(folder / child.plan.name / STATE, {"identity": child.plan.identity, "code": code})
    return time.perf_counter() - child.started


def stop(children: Sequence[Child]) -> None:
    """Ask commands to end as Ctrl-C does, wait until they have written their files, and end those that do not."""
    for child in children:
        child.process.send_signal(signal.SIGINT)
    deadline = time.perf_counter() + GRACE_S
    for child in children:
        try:
            child.process.wait(max(0.0, deadline - time.perf_counter()))
        except (subprocess.TimeoutExpired, KeyboardInterrupt, SystemExit):
            child.process.kill()
            child.process.wait()
        child.output.close()


def complaint(plan: Plan, folder: Path) -> str:
    """Return why the plan's command failed, from the last line that it wrote, or nothing where it did not."""
    code = state(plan, folder).get("code")
    if code == 0:
        return ""
    path = folder / plan.name / "output.log"
    lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
    said = [line for line in lines if line.startswith("error: ")] or [line for line in lines if line.strip()]
    return said[-1].removeprefix("error: ") if said else f"The command ended with exit code {code}."
