"""The launchers joblib, submitit_local, submitit_slurm and ray, each a few lines on the public interface of its package.

Settings of a launcher are the arguments of its class; `experiments.config.plugins` names them for Hydra. Where a
package is missing, one line says which extra brings it.
"""

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any

from .launching import Workers, cores, needed, without_ctrl_c
from .worker import Done, Item, wants_cuda, work

Outcome = tuple[int, Done | Exception]
LOOK_EVERY = 0.2  # seconds between two looks at jobs of submitit
LARGEST_ARRAY = 1000  # jobs of one array; Slurm's own limit is 1001 unless it is configured


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
        """Do items in a pool of processes; yield each as it is done."""
        joblib = needed("joblib", "joblib")
        pool = joblib.Parallel(self.n_jobs, backend="loky", batch_size=1, return_as="generator_unordered")
        yield from pool(joblib.delayed(numbered)(place, item) for place, item in list(items.items()))


def has_begun(item: Item) -> bool:
    """Whether one of the jobs has a folder."""
    return any((item.folder / str(number)).exists() for number, _ in item.jobs)


class Submitit(Workers):
    """Jobs of Slurm, or processes of this machine in its place, by submitit.

    Args:
        cluster: slurm or local.
        at_once: How many jobs run at the same time.
        parameters: Of the jobs, as `submitit.AutoExecutor.update_parameters` knows them: `timeout_min`,
            `cpus_per_task`, `mem_gb`, `gpus_per_node`, `slurm_partition`, ...
    """

    def __init__(self, cluster: str, at_once: int | None = None, **parameters: Any):
        self.name, self.cluster, self.parameters = f"submitit_{cluster}", cluster, parameters
        self.at_once = at_once or cores()
        self.jobs: list[Any] = []

    @property
    def parallel(self) -> int:
        return self.at_once

    @property
    def threads(self) -> int:
        return self.parameters.get("cpus_per_task", 1) if self.cluster == "slurm" else super().threads

    def map(self, items: Sequence[Item]) -> Iterator[Outcome]:
        waiting, running = list(enumerate(items)), dict[int, Any]()
        executor = self.executor()
        while waiting or running:
            room = LARGEST_ARRAY if self.cluster == "slurm" else self.at_once - len(running)
            if begin := waiting[:room]:
                waiting = waiting[room:]
                with without_ctrl_c():
                    started = executor.map_array(work, [item for _, item in begin])
                running |= zip([place for place, _ in begin], started, strict=True)
                self.jobs += started
            time.sleep(LOOK_EVERY)
            for place in [place for place, job in running.items() if job.done()]:
                yield place, outcome(running.pop(place))

    def executor(self) -> Any:
        """Return submitit's executor with the parameters of this launcher; its files lie in the sweep's folder."""
        executor = needed("submitit", "slurm").AutoExecutor(self.folder / ".submitit", cluster=self.cluster)
        array = {"slurm_array_parallelism": self.at_once} if self.cluster == "slurm" else {}
        executor.update_parameters(**array, **self.parameters)
        return executor

    def cancel(self) -> None:
        for job in self.jobs:
            if job.state == "PENDING":
                job.cancel()


def outcome(job: Any) -> Done | Exception:
    """Return what a job of submitit returned, or what it died of."""
    try:
        return job.result()
    except Exception as error:  # submitit has several for a job that left no result
        return error


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
            own = {"include_dashboard": False} if self.address is None and "RAY_ADDRESS" not in os.environ else {}
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


def fetched(ray: Any, reference: Any) -> Done | Exception:
    """Return what a task of Ray returned, or what it died of."""
    try:
        return ray.get(reference)
    except Exception as error:  # Ray has a dozen, and raises what a task raised as another
        return error
