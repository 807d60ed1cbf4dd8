"""Runner of the page's commands, a few at a time, each in a process of its own.

The processes are forked from one that has already imported torch and matplotlib, because the imports take longer than
many of the runs. Each child starts a session of its own, so that Ctrl-C reaches only this process, which then sends
exactly one signal to each child: the runs write what they have, and the same command continues them later.
"""

import logging
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

from vi_core.storage.reading import read_json

from ..config.places import PROGRAM
from ..results.files import write_json
from ..run.interrupt import interruptible
from .plan import Plan

log = logging.getLogger(__name__)
Main = Callable[[], None]  # the program's entry point, which reads `sys.argv`; an argument, as it imports this module
POLL_S = 0.1  # between two looks at the children
GRACE_S = 60.0  # for children to write their files after an interruption
STATE = "row.json"  # in a plan's folder: its identity, and the exit code once it has ended
# Modules of this program that are imported once for all children, with what they import.
SHARED = ("results.figures", "results.diagnostics", "results.mixtures", "run.fit", "run.study")


def run_all(
    main: Main, plans: Sequence[Plan], folder: Path, parallel: int, done: Callable[[Plan, float], None]
) -> None:
    """Run the plans that are not finished yet, longest first.

    Args:
        main: The program's entry point.
        plans: What to run.
        folder: Where each plan has a folder of its own name.
        parallel: How many run at a time, at least 1.
        done: Called with a plan and its seconds when its command has ended, well or not.
    """
    waiting = sorted((plan for plan in plans if not finished(plan, folder)), key=lambda plan: plan.minutes)
    running: dict[BaseProcess, tuple[Plan, float]] = {}  # the plan of a child, and when it began
    with interruptible() as interrupt:
        try:
            while (waiting or running) and not interrupt.requested():
                while waiting and len(running) < parallel:
                    plan = waiting.pop()
                    running[start(main, plan, folder)] = plan, time.perf_counter()
                time.sleep(POLL_S)
                for child in [child for child in running if not child.is_alive()]:
                    plan, started = running.pop(child)
                    write_json(folder / plan.name / STATE, {"identity": plan.identity, "code": child.exitcode})
                    done(plan, time.perf_counter() - started)
        finally:
            if running:
                log.info("interrupted: the same command goes on where %d experiments stop now", len(running))
            stop([*running])


def finished(plan: Plan, folder: Path) -> bool:
    """Whether the plan's folder holds a run of the same identity that ended with exit code 0."""
    return state(plan, folder) == {"identity": plan.identity, "code": 0}


def state(plan: Plan, folder: Path) -> dict[str, object]:
    """Return `identity` and `code`, the exit code, from the plan's folder; the code is missing until the end."""
    path = folder / plan.name / STATE
    return read_json(path) if path.is_file() else {}


def start(main: Main, plan: Plan, folder: Path) -> BaseProcess:
    """Start the plan's command in its own folder below `folder`, or continue it where it was interrupted."""
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
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the fork server must not start threads; children have one each
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([f"{PROGRAM}.{module}" for module in SHARED])
    process = context.Process(target=command, args=(main, arguments, target / "output.log"))
    process.start()
    return process


def command(main: Main, arguments: Sequence[str], output: Path) -> None:
    """Run a command line in this process, in a session of its own; what it prints goes to the file `output`."""
    os.setsid()
    with output.open("wb") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    sys.argv[1:] = arguments
    main()


def stop(children: Sequence[BaseProcess]) -> None:
    """Interrupt commands as Ctrl-C does, wait until they have written their files, and kill those that do not."""
    for child in children:
        if child.is_alive() and child.pid is not None:
            os.kill(child.pid, signal.SIGINT)
    deadline = time.perf_counter() + GRACE_S
    for child in children:
        with suppress(KeyboardInterrupt, SystemExit):
            child.join(max(0.0, deadline - time.perf_counter()))
        if child.is_alive():
            child.kill()
            child.join()


def complaint(plan: Plan, folder: Path) -> str:
    """Return why the plan's command failed, by the last line that it wrote; empty where it ended well."""
    code = state(plan, folder).get("code")
    if code == 0:
        return ""
    path = folder / plan.name / "output.log"
    lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
    said = [line for line in lines if line.startswith("error: ")] or [line for line in lines if line.strip()]
    return said[-1].removeprefix("error: ") if said else f"The command ended with exit code {code}."
