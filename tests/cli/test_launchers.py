"""Launchers: jobs in other processes end as in this one, and what a dead worker leaves is done by `sweep.resume`.

Most tests let the workers' function run in this process, in the launcher's place: what it is given, what it returns
and what the sweep makes of that is the same. `make test-cluster` has the real processes: joblib, submitit, Ray, Slurm.
"""

import inspect
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from experiments.config import hydra_adapter
from experiments.config.plugins import PLUGINS
from experiments.sweeps import launching, worker
from experiments.sweeps.batched_sweeper import cut
from experiments.sweeps.composing import Composed
from experiments.sweeps.launchers import Joblib, Local, Ray, Slurm, require_answer
from experiments.sweeps.worker import Done, Item, Launch, take_device, wants_cuda, work
from tests.cli.test_sweeps import table
from tests.cluster.scenario import until
from tests.conftest import CommandLine, run_in, summary_of, trace_text
from vi_core.errors import ConfigError

QUICK = ("-m", "experiment=cavi_normal_gamma", "trainer.steps=3", "plot.enabled=false")
FAILING = (*QUICK, "replicates=2,0", "seed=0,1")
HERE = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=sweep")
SAME = ("job", "replicates", "seed", "status", "objective", "final", "error")


@pytest.fixture
def dies() -> set[int]:
    """Numbers of jobs whose worker dies, which a test may add to."""
    return set()


@pytest.fixture(autouse=True)
def in_this_process(dies: set[int], monkeypatch: pytest.MonkeyPatch) -> list[Item]:
    """Joblib's workers are this process; returns the items that it was given."""
    given: list[Item] = []

    def done(self: Joblib, items: Sequence[Item]) -> Iterator[tuple[int, Done | Exception]]:
        given.extend(items)
        for place, item in reversed(list(enumerate(items))):  # workers end in any order
            handlers = logging.root.handlers[:]
            yield place, RuntimeError("killed\nby hand") if item.jobs[0][0] in dies else work(item)
            for handler in set(logging.root.handlers) - set(handlers):
                handler.close()  # of a job's log file
            logging.root.handlers[:] = handlers

    monkeypatch.setattr(Joblib, "map", done)
    monkeypatch.setattr(os, "setpgrp", lambda: None)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return given


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the sweep as Hydra's own launcher runs it."""
    folder = tmp_path_factory.mktemp("local")
    assert run_in(folder, *FAILING, "hydra.sweep.dir=sweep").code == 1
    return folder / "sweep"


def test_a_sweep_in_workers_is_the_same_sweep(local: Path, cli: CommandLine, tmp_path: Path) -> None:
    """Rows, numbers, one-line errors and exit code; and nothing of the launcher is left in the folder."""
    result = cli(*FAILING, *HERE)
    assert result.code == 1
    assert result.err == 2 * "error: replicates=0 must be at least 1.\n"
    assert result.out.count("results sweep/") == 3
    sweep = tmp_path / "sweep"
    assert [[row[key] for key in SAME] for row in table(sweep)] == [[row[key] for key in SAME] for row in table(local)]
    assert trace_text(sweep / "1") == trace_text(local / "1")
    assert {path.name for path in sweep.iterdir()} == {path.name for path in local.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("sweeper", ["this program's", "another"])
def test_a_dead_worker_loses_its_job_alone(
    sweeper: str, dies: set[int], cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line says so, the exit code is 1, and `sweep.resume` does what is missing and nothing else.

    Hydra's own sweeper, which is not used for grids in workers, stands for those of plugins.
    """
    if sweeper == "another":
        monkeypatch.setattr(hydra_adapter, "is_basic", lambda config: False)
    dies.add(1)
    result = cli(*QUICK, "seed=0,1,2", "replicates=2", *HERE)
    assert result.code == 1
    assert result.err == (
        "error: the worker of job 1 has died; sweep.resume=sweep does again what is missing"
        " (RuntimeError: killed by hand.)\n"
    )
    assert [row["job"] for row in table(tmp_path / "sweep")] == ["0", "2"]
    dies.clear()
    again = cli(*QUICK, "seed=0,1,2", "replicates=2", *HERE[:2], "sweep.resume=sweep")
    assert (again.code, again.err) == (0, "")
    assert again.out.count("is finished already") == 2
    assert [(row["job"], row["seed"]) for row in table(tmp_path / "sweep")] == [("0", "0"), ("2", "2"), ("4", "1")]


@pytest.mark.slow
def test_equal_jobs_of_a_sweep_are_both_done(cli: CommandLine, tmp_path: Path) -> None:
    """A worker that looked for finished jobs would take the first for the second."""
    assert cli(*QUICK, "seed=0,0", "replicates=2", *HERE).code == 0
    assert [row["job"] for row in table(tmp_path / "sweep")] == ["0", "1"]
    assert cli(*QUICK, "seed=0,0,0", "replicates=2", *HERE[:2], "sweep.resume=sweep").code == 0
    assert [row["job"] for row in table(tmp_path / "sweep")] == ["0", "1", "4"]


@pytest.mark.slow
def test_a_signal_ends_the_sweep_in_good_order(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep's process tells its workers by a note; what ran is written, nothing else begins."""
    inner = Joblib.map

    def signalled(self: Joblib, items: Sequence[Item]) -> Iterator[tuple[int, Done | Exception]]:
        for place, done in inner(self, items):
            yield place, done
            os.kill(os.getpid(), signal.SIGTERM) if place == 2 else None

    monkeypatch.setattr(Joblib, "map", signalled)
    result = cli(*QUICK, "seed=0,1,2", "replicates=2", *HERE)
    assert (result.code, result.err) == (143, "")
    assert [row["job"] for row in table(tmp_path / "sweep")] == ["2"]
    assert not (tmp_path / "sweep" / ".workers").exists()


@pytest.mark.slow
def test_the_note_interrupts_a_job_that_runs(cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker looks for the note while its job trains; the job is written as interrupted, and the sweep goes on."""
    monkeypatch.setattr(worker, "EVERY", 0.01)
    inner = worker.run_composed

    def noted(cfg: Any) -> float:
        Thread(target=note, args=(tmp_path / "sweep",), daemon=True).start()
        return inner(cfg)

    monkeypatch.setattr(worker, "run_composed", noted)
    long = ("-m", "experiment=bbvi", "plot.enabled=false", "replicates=2", "trainer.steps=100000",
            "trainer.execution=eager", "trainer.final_samples=10", "trainer.checkpoint_every=10")  # fmt: skip
    result = cli(*long, "seed=0", *HERE)
    assert result.code == 1
    assert summary_of(tmp_path / "sweep" / "0")["status"] == "interrupted"


def note(sweep: Path) -> None:
    """Write the note once the first job trains."""
    until((sweep / "0" / "checkpoint.pt").exists, 60)
    (sweep / worker.STOP).touch()


@pytest.mark.slow
def test_batches_are_handed_out(in_this_process: list[Item], cli: CommandLine, tmp_path: Path) -> None:
    """Two workers get the seeds of each rate in two batches; a job that cannot run is alone."""
    arguments = ("-m", "experiment=bbvi", "plot.enabled=false", "replicates=1", "trainer.steps=4",
                 "trainer.final_samples=10", "trainer.execution=eager")  # fmt: skip
    result = cli(*arguments, "seed=range(5)", "model.loc=0,1", "threads=1,0", "sweep.batched=true", *HERE)
    assert result.code == 1
    assert result.err == 10 * "error: threads=0 must be an integer from 1 to 1024, or auto.\n"
    assert sorted(len(item.jobs) for item in in_this_process) == [*10 * [1], 10]
    rows = table(tmp_path / "sweep")
    assert [row["status"] for row in rows].count("completed") == 10
    assert summary_of(tmp_path / "sweep" / "0")["batch"]["jobs"] == 10


class Planted:
    """An object whose pickle makes a file when it is read."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize(("name", "mode"), [("", 0o770), ("", 0o702), ("launch", 0o620), ("launch", 0o602), ("", None)])
def test_what_others_can_write_is_not_unpickled(
    name: str, mode: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the file that a worker is set up from, and its folder, both made for their owner alone under any umask.

    Without a mode the owner is another one.
    """
    mark, sweep, before = tmp_path / "mark", tmp_path / "sweep", os.umask(0)
    try:
        Launch(OmegaConf.create(), [], Planted(mark)).write(sweep)  # pyright: ignore[reportArgumentType]
    finally:
        os.umask(before)
    place = sweep / worker.WORKERS
    assert [path.stat().st_mode & 0o777 for path in (place, place / "launch")] == [0o700, 0o600]
    Launch.read(sweep)
    mark.unlink()
    if mode is None:
        monkeypatch.setattr("os.getuid", lambda: place.stat().st_uid + 1)
    else:
        (place / name).chmod(mode)
    done = work(Item(sweep, [(0, ["seed=0"])]))
    assert (
        done.err
        == f"error: {place / name} is not used: another user can write it, and workers run what it holds; remove it.\n"
    )
    assert done.failures == [str(sweep / "0")]
    assert not mark.exists()


def test_workers_are_set_up_in_no_folder_of_others(cli: CommandLine, tmp_path: Path) -> None:
    """The sweep ends before its first job, in one line."""
    place = tmp_path / "sweep" / worker.WORKERS
    place.mkdir(parents=True)
    place.chmod(0o777)
    result = cli(*QUICK, "seed=0,1", *HERE)
    assert result.code == 1
    assert result.err.startswith(f"error: {place} is not used: another user can write it")
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("jobs", "replicates", "workers", "sizes"),
    [(10, 1, 2, [5, 5]), (10, 1, 3, [3, 3, 4]), (2, 1, 8, [1, 1]), (10_000, 1, 8, 8 * [1250]), (10, 1024, 2, 6 * [2])],
)
def test_cut(jobs: int, replicates: int, workers: int, sizes: list[int]) -> None:
    """A multiple of the workers, no batch above 2,048 replicates, every job once and in order."""
    group = [Composed(number, [], settings={"replicates": replicates}) for number in range(jobs)]
    found = cut(group, workers)
    assert [job.number for batch in found for job in batch] == list(range(jobs))
    lengths = [len(batch) for batch in found]
    assert max(lengths) * replicates <= 2048
    assert max(lengths) - min(lengths) <= 1
    if jobs != 10 or replicates == 1:
        assert lengths == sizes


def test_threads_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight cores on two workers are four threads each, less where the environment says so."""
    monkeypatch.setattr(launching, "cores", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert launching.allowed_threads() == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert launching.allowed_threads() == 8
    assert [Joblib(n).threads for n in (1, 2, 16)] == [8, 4, 1]
    assert Ray(num_cpus=3).threads == 3
    assert Slurm(cpus_per_task=5).threads == 5


@pytest.mark.parametrize(
    ("launcher", "settings"),
    [(Joblib, {"n_jobs": 0}), (Joblib, {"n_jobs": "two"}), (Local, {"at_once": 0}), (Slurm, {"at_once": -1}),
     (Slurm, {"cpus_per_task": 0}), (Ray, {"num_cpus": 0.5})],
)  # fmt: skip
def test_what_cannot_be_counted_is_refused(launcher: Any, settings: dict[str, Any]) -> None:
    """No worker at a time would be a sweep without end."""
    ((name, value),) = settings.items()
    with pytest.raises(ConfigError, match=f"hydra.launcher.{name}={value} must be a whole number from 1."):
        launcher(**settings)


@pytest.mark.parametrize("error", [NameError("no such\nparameter"), RuntimeError("no srun")])
def test_what_submitit_refuses_is_one_line(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def executor(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setitem(sys.modules, "submitit", SimpleNamespace(AutoExecutor=executor))
    launcher: Any = Slurm()
    launcher.folder = tmp_path
    with pytest.raises(ConfigError, match="cannot hand in jobs: no s"):
        list(launcher.map([Item(tmp_path, [(0, [])])]))


def test_a_ray_cluster_that_is_not_there_is_named() -> None:
    """At once, where Ray would wait for minutes; addresses that are no host and port are left to it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        require_answer(address)
    with pytest.raises(ConfigError, match=f"no Ray cluster answers at {address}; ray start"):
        require_answer(address)
    for other in ("", "auto", "ray://nowhere:1"):
        require_answer(other)


def test_workers_take_devices_in_turn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Three processes share two devices; one device is no choice. Locks are held as long as the process lives."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    for _ in range(3):
        take_device.__wrapped__(tmp_path)
    assert chosen == [0, 1, 0]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert take_device.__wrapped__(tmp_path) is None


def test_who_wants_a_device() -> None:
    config = OmegaConf.create({"device": {"name": "cpu"}})
    assert not wants_cuda(config, [(0, ["seed=1"])])
    assert wants_cuda(config, [(0, ["seed=1"]), (1, ["device=cuda"])])
    assert wants_cuda(OmegaConf.create({"device": {"name": "auto"}}), [])


@pytest.mark.parametrize(
    ("given", "device", "gpus", "expected"),
    [(None, "cuda", 4.0, 1.0), (None, "cpu", 4.0, 0.0), (None, "cuda", 0.0, 0.0), (0.5, "cpu", 4.0, 0.5)],
)
def test_ray_gives_a_device_to_each_job(given: float | None, device: str, gpus: float, expected: float) -> None:
    launcher: Any = Ray(num_gpus=given)
    launcher.config = OmegaConf.create({"device": {"name": device}})
    assert launcher.devices(SimpleNamespace(cluster_resources=lambda: {"GPU": gpus}), [Item(Path(), [])]) == expected


def test_a_job_that_slurm_knows_no_more_is_lost_at_the_second_look(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A result may be seen later than its job's end; while Slurm does not answer, no job is lost."""

    def job(number: int) -> Any:
        return SimpleNamespace(job_id=f"7_{number}", paths=SimpleNamespace(result_pickle=tmp_path / str(number)))

    jobs = [job(0), job(1), job(2)]
    (tmp_path / "0").touch()
    launcher, answers = Slurm(), [{"7_1"}, None, {"7_1"}, {"7_1"}]
    monkeypatch.setattr(launcher, "queue", lambda: answers.pop(0))
    assert [[each.job_id for each in launcher.ended(jobs)] for _ in range(4)] == [
        ["7_0"], ["7_0"], ["7_0"], ["7_0", "7_2"],
    ]  # fmt: skip


@pytest.mark.parametrize("path", PLUGINS)
def test_settings_are_those_of_the_constructor(path: str) -> None:
    """A default may differ where it is a launcher's own; keys may not."""
    node = dict(PLUGINS[path])
    module, _, name = node.pop("_target_").rpartition(".")
    accepted = inspect.signature(getattr(import_module(module), name)).parameters
    open_ended = any(each.kind is each.VAR_KEYWORD for each in accepted.values())
    named = {key for key, each in accepted.items() if each.kind is not each.VAR_KEYWORD}
    assert named <= set(node)
    assert open_ended or named == set(node)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("hydra/launcher=ray",), "ray is not installed; pip install 'vi-lab[ray]' adds it."),
        pytest.param(
            ("hydra/launcher=submitit_local",),
            "submitit is not installed; pip install 'vi-lab[slurm]' adds it.",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ("hydra/sweeper=optuna",),
            "optuna is not installed; pip install 'vi-lab[search]' adds it.",
            marks=pytest.mark.slow,
        ),
        (("hydra/launcher=joblib", "hydra.launcher.jobs=2"), "hydra.launcher.jobs"),
    ],
)
def test_what_is_missing_is_named(
    arguments: tuple[str, ...], words: str, cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("ray", "submitit", "optuna"):
        monkeypatch.setitem(sys.modules, package, None)
    result = cli(*QUICK, "seed=0,1", "hydra.sweep.dir=sweep", *arguments)
    assert result.code == 1
    assert words in result.err
    assert len(result.err.splitlines()) == 1


@pytest.mark.slow
def test_real_processes(local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of joblib's processes give the table of the local launcher."""
    monkeypatch.undo()
    result = run_in(tmp_path, *FAILING, *HERE)
    assert (result.code, result.err) == (1, 2 * "error: replicates=0 must be at least 1.\n")
    rows = table(tmp_path / "sweep")
    assert [[row[key] for key in SAME] for row in rows] == [[row[key] for key in SAME] for row in table(local)]
