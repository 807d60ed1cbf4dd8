"""A Slurm of one node on this machine, from Debian's packages `slurm-wlm` and `munge`, for the time of a `with` block.

Key, sockets, configuration and state lie in a temporary folder, so that a Slurm that is configured on the machine is
neither used nor changed. Needs root, as Slurm's daemons do.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue")
CONFIGURATION = """
ClusterName=vi-lab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
MpiDefault=none
KillWait=20
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why Slurm cannot be started here, or nothing."""
    absent = [name for name in PROGRAMS if find(name) is None]
    if absent:
        return f"{', '.join(absent)} not installed (Debian: apt-get install slurm-wlm munge)"
    return "" if os.geteuid() == 0 else "Slurm's daemons need root"


def find(name: str) -> str | None:
    """The path of a program, which may be among those of the system."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Context manager: Slurm runs; yields what its commands need in the environment."""
    host = socket.gethostname().partition(".")[0]
    for name in ("munge", "state", "spool"):
        (folder / name).mkdir(mode=0o700)
    folder.chmod(0o755)
    (folder / "munge").chmod(0o755)  # munged refuses sockets that not all can reach
    text = CONFIGURATION.format(host=host, folder=folder, controller_port=free_port(), node_port=free_port())
    (folder / "slurm.conf").write_text(text)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    environment = {"SLURM_CONF": str(folder / "slurm.conf")}
    munge = [f"--{name}={folder}/{place}" for name, place in MUNGE.items()]
    with ExitStack() as stack:
        for command in (["munged", "--foreground", *munge], ["slurmctld", "-D", "-i"], ["slurmd", "-D", "-N", host]):
            stack.enter_context(daemon(command, folder, environment))
        wait_for_idle(environment)
        try:
            yield environment
        finally:  # or the guards of the last jobs would look for the controller for ever
            subprocess.run(["scancel", "--me"], env=os.environ | environment, capture_output=True)
            wait_for_idle(environment)


MUNGE = {
    "key-file": "munge.key", "socket": "munge/socket", "pid-file": "munge/pid", "log-file": "munge/log",
    "seed-file": "munge/seed",
}  # fmt: skip


@contextmanager
def daemon(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """Context manager: a daemon runs in the foreground of a process of ours, which is ended behind the block."""
    program = find(command[0])
    assert program is not None
    with (folder / f"{command[0]}.out").open("w") as out:
        process = subprocess.Popen([program, *command[1:]], env=os.environ | environment, stdout=out, stderr=out)
        try:
            time.sleep(1)
            if process.poll() is not None:
                raise RuntimeError(f"{command[0]} does not start: {(folder / f'{command[0]}.out').read_text()}")
            yield
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def wait_for_idle(environment: dict[str, str], seconds: float = 60) -> None:
    """Wait until the node takes jobs."""
    end, found = time.monotonic() + seconds, ""
    while time.monotonic() < end:
        command = ["sinfo", "--noheader", "--format=%T"]
        state = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
        found = state.stdout.strip() or state.stderr
        if found == "idle":
            return
        time.sleep(1)
    raise RuntimeError(f"Slurm's node is {found} after {seconds} s")
