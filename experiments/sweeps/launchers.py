"""The launchers joblib, submitit_local, submitit_slurm and ray, each a few lines on its package's public interface.

Settings of a launcher are the arguments of its class; `experiments.config.plugins` names them for Hydra. Where a
package is missing, one line says which extra brings it.
"""

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from vi_core.errors import ConfigError, require
from vi_core.extras import needed

from ..config.messages import one_line
from .launching import Workers, cores, without_ctrl_c
from .worker import Done, Item, own_folder, wants_cuda, work

Outcome = tuple[int, Done | Exception]
ANSWER = 10  # seconds in which a cluster of Ray has to answer
LARGEST_ARRAY = 1000  # jobs of one array; Slurm's own limit is 1001 unless it is configured


def require_count(**settings: Any) -> None:
    """Raise `ConfigError` for a setting of a launcher that is no whole number from 1."""
    for name, value in settings.items():
        require(type(value) is int and value >= 1, f"hydra.launcher.{name}={value} must be a whole number from 1.")


def numbered(place: int, item: Item) -> tuple[int, Done]:
    """Do an item; return its place with it, as joblib returns items in the order in which they end."""
    return place, work(item)


class Joblib(Workers):
    """Processes of this machine, by joblib.

    Args:
        n_jobs: How many, -1 for one on each core.
    """

    name = "joblib"

    def __init__(self, n_jobs: int = -1):
        if n_jobs != -1:
            require_count(n_jobs=n_jobs)
        self.n_jobs = n_jobs

    @property
    def parallel(self) -> int:
        return needed("joblib", "joblib").effective_n_jobs(self.n_jobs)

    def map(self, items: Sequence[Item]) -> Iterator[Outcome]:
        with tempfile.TemporaryDirectory(prefix="vi-lab-slots-") as slots:
            left = {place: replace(item, slots=Path(slots)) for place, item in enumerate(items)}
            while left:
                try:
                    for place, done in self.pool(left):
                        del left[place]
                        yield place, done
                except BrokenProcessPool as error:  # a worker was killed, and joblib has ended the others
                    begun = [place for place, item in left.items() if has_begun(item)] or list(left)
                    for place in begun:
                        del left[place]
                        yield place, error

    def pool(self, items: dict[int, Item]) -> Iterator[tuple[int, Done]]:
        """Do items in a pool of processes; yield each as it is done.

        For one worker two are there, of which one waits: joblib would take this process in its place.
        """
        joblib, count = needed("joblib", "joblib"), self.parallel
        ahead = 1 if count == 1 else 2 * count
        pool = joblib.Parallel(
            max(2, count), backend="loky", batch_size=1, pre_dispatch=ahead, return_as="generator_unordered"
        )
        yield from pool(joblib.delayed(numbered)(place, item) for place, item in list(items.items()))


def has_begun(item: Item) -> bool:
    """Whether one of the jobs has a folder."""
    return any((item.folder / str(number)).exists() for number, _ in item.jobs)


class Local(Workers):
    """Processes of this machine as submitit starts them, one for each job: Slurm's ways, without Slurm.

    Args:
        at_once: How many run at the same time; None for one on each core.
        parameters: Of the jobs, as `submitit.AutoExecutor.update_parameters` knows them.
    """

    name, cluster, look_every = "submitit_local", "local", 0.2

    def __init__(self, at_once: int | None = None, **parameters: Any):
        self.at_once, self.parameters = cores() if at_once is None else at_once, parameters
        require_count(at_once=self.at_once)
        self.room, self.over = self.at_once, False  # how many jobs submitit may have; whether no other is to begin

    @property
    def parallel(self) -> int:
        return self.at_once

    def map(self, items: Sequence[Item]) -> Iterator[Outcome]:
        waiting, running = list(enumerate(items)), dict[int, Any]()
        place = own_folder(self.folder.absolute() / ".submitit")  # pickles, in both directions
        with self.told_in_one_line():
            executor = needed("submitit", "slurm").AutoExecutor(place, cluster=self.cluster)
            executor.update_parameters(**self.parameters)
        while waiting or running:
            waiting, room = [] if self.over else waiting, self.room - len(running)
            if begin := waiting[:room]:
                waiting = waiting[room:]
                with without_ctrl_c(), self.told_in_one_line():
                    started = executor.map_array(work, [item for _, item in begin])
                running |= zip([place for place, _ in begin], started, strict=True)
            time.sleep(self.look_every)
            ended = self.ended(list(running.values()))
            for place in [place for place, job in running.items() if job in ended]:
                yield place, outcome(running.pop(place))

    @contextmanager
    def told_in_one_line(self) -> Iterator[None]:
        """Context manager: what submitit or Slurm has against a setting, or the lack of Slurm, becomes one line."""
        try:
            yield
        except (NameError, RuntimeError) as error:
            raise ConfigError(f"hydra/launcher={self.name} cannot hand in jobs: {one_line(error)}") from error

    def cancel(self) -> None:
        self.over = True

    def ended(self, jobs: list[Any]) -> list[Any]:
        """Return those of the jobs that run no more."""
        return [job for job in jobs if job.done()]


def outcome(job: Any) -> Done | Exception:
    """Return what a job of submitit returned, or what it died of."""
    if not job.paths.result_pickle.exists():
        return RuntimeError(f"it left no result; its log is {job.paths.stderr}")
    try:
        return job.result()
    except Exception as error:  # submitit has several
        return error


class Slurm(Local):
    """Jobs of Slurm, in arrays, as submitit hands them in.

    Which jobs wait or run, `squeue` says: `sacct`, which submitit asks, needs a database that not every cluster has.

    Args:
        at_once: How many run at the same time.
        parameters: As `Local` has them: `timeout_min`, `cpus_per_task`, `mem_gb`, `slurm_partition`, ...
    """

    name, cluster, look_every = "submitit_slurm", "slurm", 2.0

    def __init__(self, at_once: int = 256, **parameters: Any):
        require_count(cpus_per_task=parameters.get("cpus_per_task", 1))
        super().__init__(at_once, **parameters, slurm_array_parallelism=at_once)
        self.arrays, self.missed, self.room = set[str](), set[str](), LARGEST_ARRAY

    @property
    def threads(self) -> int:
        return self.parameters.get("cpus_per_task", 1)

    def ended(self, jobs: list[Any]) -> list[Any]:
        self.arrays |= {job.job_id.partition("_")[0] for job in jobs}
        left = [job for job in jobs if not job.paths.result_pickle.exists()]
        known = self.queue() if left else set[str]()
        gone = {job.job_id for job in left if known is not None and job.job_id not in known}
        lost, self.missed = gone & self.missed, gone  # twice, as a file may be seen later than its job's end
        return [job for job in jobs if job not in left or job.job_id in lost]

    def queue(self) -> set[str] | None:
        """Return the ids of this user's jobs that wait or run; None where Slurm does not answer."""
        command = ["squeue", "--me", "--noheader", "--array", "--format=%i"]
        found = subprocess.run(command, capture_output=True, text=True)
        return None if found.returncode else set(found.stdout.split())

    def cancel(self) -> None:
        super().cancel()
        subprocess.run(["scancel", "--quiet", "--state=PENDING", *self.arrays], capture_output=True)


class Ray(Workers):
    """Tasks of a Ray cluster.

    Args:
        address: Of a running cluster, "auto" for the one that was last started here; None for RAY_ADDRESS, or else a
            cluster of its own on this machine, for the time of the sweep.
        num_cpus: Cores of a worker, and its threads.
        num_gpus: CUDA devices of a worker, or a part of one; None for one where a job may want it and the cluster has
            some.
    """

    name = "ray"

    def __init__(self, address: str | None = None, num_cpus: int = 1, num_gpus: float | None = None):
        require_count(num_cpus=num_cpus)
        self.address, self.num_cpus, self.num_gpus = address, num_cpus, num_gpus

    @property
    def parallel(self) -> int:
        return max(1, int(self.connected().cluster_resources().get("CPU", 1)) // self.num_cpus)

    @property
    def threads(self) -> int:
        return self.num_cpus

    def connected(self) -> Any:
        """Return Ray, connected to its cluster."""
        ray = needed("ray", "ray")
        if not ray.is_initialized():
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster of its own tells nobody of its use
            address = self.address or os.environ.get("RAY_ADDRESS", "")
            require_answer(address)
            own = {} if address else {"include_dashboard": False}
            ray.init(self.address, logging_level="ERROR", log_to_driver=False, **own)
        return ray

    def map(self, items: Sequence[Item]) -> Iterator[Outcome]:
        ray = self.connected()
        environment = {"env_vars": {"PYTHONPATH": os.environ["PYTHONPATH"]}}
        resources = {"num_cpus": self.num_cpus, "num_gpus": self.devices(ray, items)}
        task = ray.remote(work).options(**resources, max_retries=0, runtime_env=environment)
        waiting = {task.remote(item): place for place, item in enumerate(items)}
        try:
            while waiting:
                ready, _ = ray.wait(list(waiting), timeout=1.0)
                for reference in ready:
                    yield waiting.pop(reference), fetched(ray, reference)
        finally:
            ray.shutdown()

    def devices(self, ray: Any, items: Sequence[Item]) -> float:
        """Return how many CUDA devices a worker gets, which Ray then shows to it alone."""
        if self.num_gpus is not None:
            return self.num_gpus
        wanted = any(wants_cuda(self.config, item.jobs) for item in items)
        return float(wanted and ray.cluster_resources().get("GPU", 0) >= 1)


def require_answer(address: str) -> None:
    """Raise `ConfigError` where nothing listens at an address `host:port`, for which Ray would wait many minutes."""
    host, _, port = address.rpartition(":")
    if "/" in host or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), ANSWER).close()
    except OSError as error:
        raise ConfigError(f"no Ray cluster answers at {address}; ray start --head --port={port} starts one.") from error


def fetched(ray: Any, reference: Any) -> Done | Exception:
    """Return what a task of Ray returned, or what it died of."""
    try:
        return ray.get(reference)
    except Exception as error:  # Ray has a dozen, and raises what a task raised as another
        return error
