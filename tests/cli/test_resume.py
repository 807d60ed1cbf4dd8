"""An interrupted and resumed run is the uninterrupted one, bit for bit: whatever ended it, and wherever.

Most of it drives the loop in this process, at many points of interruption; signals and SIGKILL end real processes.
"""

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from experiments.config.validate import plain_values
from experiments.run.interrupt import Interrupt
from experiments.run.process import compiled_folder, prepare
from tests.conftest import ROOT, SMOKE, CommandLine, configuration, run_in, summary_of, trace_text
from vi_core.estimators.base import Estimate
from vi_core.estimators.score_function.estimator import ScoreFunction
from vi_core.problem import assemble
from vi_core.run import Run
from vi_core.training import checkpoint
from vi_core.training.batches import Batches
from vi_core.training.history import read_history
from vi_core.training.loop import Loop

BBVI = ("replicates=3", "trainer.steps=24", "trainer.log_every=7", "trainer.checkpoint_every=5")
VAE = (
    "experiment=vae_digits", "trainer.epochs=3", "dataset.batch_size=400", "dataset.binarization=dynamic",
    "trainer.log_every=3", "trainer.checkpoint_every=100", "model.hidden=[8]", "family.hidden=[8]",
    "threads=1",
)  # fmt: skip
"""Twelve steps of four to an epoch: rows, epochs and held-out evaluations do not align. Sums depend on the threads."""
CATEGORICAL = (
    "experiment=categorical_vae_digits", "trainer.epochs=3", "dataset.batch_size=400", "trainer.log_every=3",
    "trainer.checkpoint_every=100", "model.hidden=[8]", "family.hidden=[8]", "family.relaxation.steps=10", "threads=1",
)  # fmt: skip
"""The same, with a temperature that falls until the tenth step."""
BURDA = (
    "experiment=iwae_burda", "dataset=digits", "dataset.batch_size=400", "trainer.epochs=3", "trainer.log_every=3",
    "trainer.checkpoint_every=100", "model.latent_dims=[3,2]", "model.widths=[[8],[4]]", "family.widths=[[8],[4]]",
    "estimator.num_samples=3", "optimizer.schedule.stages=3", "optimizer.schedule.first=0.5", "threads=1",
)  # fmt: skip
"""The same, with two layers of latents and a learning rate in stages, which end with the second and the eighth step."""
STAGED = ("optimizer/schedule=staged", "optimizer.schedule.first=3", "optimizer.schedule.stages=3")
PLATEAU = ("trainer/stopping=plateau", "trainer.stopping.window=6", "trainer.stopping.patience=9")


class Straight(NamedTuple):
    """A command line, its loop when it was done, and torch's random state then."""

    arguments: tuple[str, ...]
    loop: Loop
    stream: torch.Tensor


class After(Interrupt):
    """An interruption after a number of steps."""

    def __init__(self, steps: int):
        super().__init__()
        self.left = steps

    def requested(self) -> bool:
        """Count the question: the loop asks once a step."""
        self.left -= 1
        return self.left == 0


def drive(
    arguments: tuple[str, ...], folder: Path, steps: int = 0, resume: bool = False, ends: str = "completed"
) -> Loop:
    """Run the loop of a command line in `folder` until it is done or has made `steps` steps."""
    config = plain_values(configuration("threads=1", *arguments))
    problem = assemble(config, *prepare(config))
    content = checkpoint.load(folder / "checkpoint.pt") if resume else None
    code = compiled_folder() / "steps"
    run = Run(config, problem, folder, interrupted=After(steps).requested, content=content, code=code)
    run.fit(lambda run: {})
    assert run.loop.status == ("interrupted" if steps else ends)
    return run.loop


def differences(first: Loop, second: Loop) -> list[str]:
    """What differs in the last bit: columns of the trace, tensors of the state, the random streams."""
    traces, states = (
        [loop.recorder.trace() for loop in (first, second)],
        [loop.step.state_dict() for loop in (first, second)],
    )
    assert traces[0].columns.keys() == traces[1].columns.keys()
    columns = {name: [trace.columns[name] for trace in traces] for name in traces[0].columns}
    found = [name for name, pair in columns.items() if not np.array_equal(*pair, equal_nan=True)]
    found += [] if np.array_equal(traces[0].step, traces[1].step) else ["step"]
    found += [name for name, value in states[0].items() if not np.array_equal(value, states[1][name], equal_nan=True)]
    found += [] if torch.equal(first.batches.generator.get_state(), second.batches.generator.get_state()) else ["order"]
    return found


def interrupted_and_resumed(arguments: tuple[str, ...], folder: Path, *stops: int) -> Loop:
    """Run with an interruption after each number of steps, then to the end."""
    for i, steps in enumerate(stops):
        drive(arguments, folder, steps, resume=i > 0)
    return drive(arguments, folder, resume=True)


@pytest.fixture(scope="module", params=[BBVI, VAE, CATEGORICAL, BURDA], ids=["bbvi", "vae", "categorical", "burda"])
def straight(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Straight:
    """A run without interruption."""
    loop = drive(request.param, tmp_path_factory.mktemp("straight"))
    return Straight(request.param, loop, torch.get_rng_state())


@pytest.mark.parametrize("stop", [1, 2, 4, 5, 6, 7, 8, 11])
def test_interrupted_anywhere(stop: int, straight: Straight, tmp_path: Path) -> None:
    """On rows and between them, on checkpoints and between them, at the ends of epochs and inside."""
    resumed = interrupted_and_resumed(straight.arguments, tmp_path, stop)
    assert differences(straight.loop, resumed) == []
    assert torch.equal(straight.stream, torch.get_rng_state())


@pytest.mark.parametrize(
    "parts",
    [
        ("optimizer=adagrad", *PLATEAU),
        ("optimizer=robbins_monro", "estimator=control_variate_in_sample"),
        ("optimizer=sgd", "optimizer.lr=1e-4", "estimator=score_function", "family=normal_gamma"),
        ("estimator=pathwise", "bound=iwelbo", "estimator.num_samples=5", "optimizer.lr=[1e-3,1e-2,1e-1]"),
        (
            "estimator=exact",
            "trainer/stopping=parameter_change",
            "trainer.stopping.window=5",
            "trainer.stopping.tolerance=1e-9",
        ),
        ("experiment=cavi_normal_gamma",),
        ("optimizer=sgd", "optimizer.lr=[1e9,1e-6,1e-6]", "trainer.on_nonfinite=skip"),
        (*STAGED, "optimizer.lr=[1e-3,1e-2,1e-1]"),
        (*STAGED, "optimizer=adagrad"),
    ],
    ids=lambda parts: parts[0].partition("=")[2],
)
def test_every_part_that_has_a_state(parts: tuple[str, ...], tmp_path: Path) -> None:
    """Stopped twice: an interruption of a resumed run, one of them between two rows."""
    straight = drive((*BBVI, *parts), tmp_path)
    resumed = interrupted_and_resumed((*BBVI, *parts), tmp_path, 3, 10)
    assert differences(straight, resumed) == []


@pytest.mark.parametrize(
    ("owner", "name", "arguments"),
    [
        (checkpoint, "restore_random_state", BBVI),
        (checkpoint, "restore_random_state", VAE),
        (Batches, "load_state_dict", VAE),
    ],
    ids=["random streams of bbvi", "random streams of the VAE", "order of minibatches"],
)
def test_a_state_that_is_not_restored_is_caught(
    owner: Any, name: str, arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = drive(arguments, tmp_path)
    drive(arguments, tmp_path, 5)
    monkeypatch.setattr(owner, name, lambda *given: None)
    assert differences(straight, drive(arguments, tmp_path, resume=True)) != []


def test_resuming_what_is_done_changes_nothing(finished_run: Path, cli: CommandLine, tmp_path: Path) -> None:
    shutil.copytree(finished_run, tmp_path / "run")
    assert cli("resume=run").code == 0
    assert trace_text(tmp_path / "run") == trace_text(finished_run)
    assert summary_of(tmp_path / "run")["estimates"] == summary_of(finished_run)["estimates"]


def test_a_resumed_run_may_be_longer(cli: CommandLine, tmp_path: Path) -> None:
    """20 steps, resumed up to 30, are 30 steps."""
    assert cli(*SMOKE, "hydra.run.dir=run").code == 0
    assert cli(*SMOKE, "trainer.limit=30", "hydra.run.dir=straight").code == 0
    assert cli("resume=run", "trainer.limit=30").code == 0
    assert trace_text(tmp_path / "run") == trace_text(tmp_path / "straight")
    assert "limit: 30" in (tmp_path / "run" / "config.yaml").read_text()


@pytest.mark.parametrize("replicates", [1, 2])
def test_a_resumed_run_may_have_another_learning_rate(replicates: int, cli: CommandLine, tmp_path: Path) -> None:
    """The new rate counts, and not the one in the checkpoint: with a tiny one, nothing moves any more."""
    assert cli(*SMOKE, f"replicates={replicates}", "hydra.run.dir=run").code == 0
    assert cli("resume=run", "trainer.limit=30", "optimizer.lr=1e-12").code == 0
    loc = read_history(tmp_path / "run" / "trace.csv").columns["mu.loc"]
    assert np.abs(np.diff(loc[:20], axis=0)).max() > 1e-4
    assert np.abs(np.diff(loc[20:], axis=0)).max() < 1e-8


# --- signals --------------------------------------------------------------------------------------------------------


def signalling(step: int, *numbers: int) -> Any:
    """A score-function estimator during whose `step`-th call signals arrive."""
    genuine, calls = ScoreFunction.forward, iter(range(1, 1_000_000))

    def forward(self: ScoreFunction, *inputs: Any) -> Estimate:
        if next(calls) == step:
            for number in numbers:
                signal.raise_signal(number)
        return genuine(self, *inputs)

    return forward


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_in_good_order(
    number: int, code: int, cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished_run: Path
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ScoreFunction, "forward", signalling(12, number))
        result = cli(*SMOKE, "hydra.run.dir=run")
    assert (result.code, result.err) == (code, "")
    run = tmp_path / "run"
    assert {file.name for file in run.iterdir()} >= {"checkpoint.pt", "trace.csv", "summary.json", "samples.npz"}
    assert summary_of(run)["status"] == "interrupted"
    assert summary_of(run)["timing"]["iterations"] == 12
    assert trace_text(finished_run).startswith(trace_text(run))
    assert cli("resume=run").code == 0
    assert trace_text(run) == trace_text(finished_run)
    assert summary_of(run)["status"] == "completed"


def test_a_second_signal_ends_the_process_at_once(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished_run: Path
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ScoreFunction, "forward", signalling(12, signal.SIGINT, signal.SIGINT))
        assert cli(*SMOKE, "trainer.checkpoint_every=5", "hydra.run.dir=run").code == 130
    assert not (tmp_path / "run" / "summary.json").exists()
    assert cli("resume=run").code == 0
    assert trace_text(tmp_path / "run") == trace_text(finished_run)


# --- processes ------------------------------------------------------------------------------------------------------

LONG_BBVI = ("replicates=4", "trainer.steps=800", "trainer.checkpoint_every=25", "plot.enabled=false", "threads=1")
LONG_VAE = (*VAE, "trainer.epochs=75", "trainer.checkpoint_every=21", "plot.enabled=false")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The long runs, without interruption."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    for name, arguments in {"bbvi": LONG_BBVI, "vae": LONG_VAE}.items():
        assert run_in(folder, *arguments, f"hydra.run.dir={name}").code == 0
    return folder


def end_at_random(arguments: tuple[str, ...], folder: Path, number: int, seed: int) -> int:
    """Start the program, end it with a signal soon after one of its first checkpoints, and return its exit code."""
    command = [sys.executable, str(ROOT / "run.py"), *arguments, "hydra.run.dir=run"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    path, seen, chance = folder / "run" / "checkpoint.pt", set(), random.Random(seed)
    wanted = chance.randint(1, 6)
    try:
        while len(seen) < wanted:
            assert process.poll() is None, "it ended before it was to be interrupted"
            seen |= {path.stat().st_mtime_ns} if path.exists() else set()
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.01))
        process.send_signal(number)
        return process.wait(timeout=60)
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments", "seed"), [("bbvi", LONG_BBVI, 0), ("bbvi", LONG_BBVI, 1), ("vae", LONG_VAE, 2)]
)
def test_killed_and_resumed(
    name: str, arguments: tuple[str, ...], seed: int, uninterrupted: Path, tmp_path: Path
) -> None:
    assert end_at_random(arguments, tmp_path, signal.SIGKILL, seed) == -signal.SIGKILL
    run = tmp_path / "run"
    assert not (run / "summary.json").exists(), "it was done before the signal"
    assert not list(run.glob("*.csv"))
    assert run_in(tmp_path, "resume=run").code == 0
    assert trace_text(run) == trace_text(uninterrupted / name)


@pytest.mark.slow
def test_terminated_and_resumed(uninterrupted: Path, tmp_path: Path) -> None:
    assert end_at_random(LONG_VAE, tmp_path, signal.SIGTERM, 3) == 143
    run = tmp_path / "run"
    assert summary_of(run)["status"] == "interrupted"
    steps = torch.load(run / "checkpoint.pt", weights_only=True)["done"]
    assert summary_of(run)["timing"]["iterations"] == steps
    whole = uninterrupted / "vae"
    rows = trace_text(run).splitlines()
    assert rows[: 1 + steps // 3] == trace_text(whole).splitlines()[: 1 + steps // 3]
    assert run_in(tmp_path, "resume=run").code == 0
    assert trace_text(run) == trace_text(whole)
    assert summary_of(run)["final"] == summary_of(whole)["final"]
