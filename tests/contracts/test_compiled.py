"""Every executor makes the eager steps: same draws, same numbers (compiled ones to rounding), in the same rows.

Making machine code takes most of a minute, so that the quick tests run the traced graph of operations as it is; the
slow ones run the compiler. CUDA graphs are recorded and replayed by a stand-in for `torch.cuda` that works on the
processor: it keeps every tensor where it was while the step was recorded, as a device does.
"""

import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from experiments.run import process
from tests.cli.test_resume import drive
from tests.conftest import CommandLine, summary_of, trace_text
from tests.contracts.test_config import EXPERIMENTS, run_experiment
from vi_core.execution import choice, compiled, replay
from vi_core.execution.base import rehearse
from vi_core.execution.choice import Execution, chunk_of, fits
from vi_core.execution.cuda_graph import GraphedSteps, captured
from vi_core.execution.functional import Watching
from vi_core.execution.replay import ReplayedSteps, interpreted, record
from vi_core.optimizers.adam import Adam
from vi_core.storage.renamed import modernised
from vi_core.training.history import History
from vi_core.training.loop import Loop
from vi_core.training.trainer import Plan

SHORT = ("replicates=3", "trainer.steps=40", "trainer.checkpoint_every=1000")
NETWORKS = ("dtype=float64", "model.hidden=[8]", "family.hidden=[8]", "trainer.checkpoint_every=1000", "threads=1")
PROBLEMS = {
    "control variates": (*SHORT, "trainer.log_every=2"),
    "rows that share no factor with a chunk": (*SHORT, "trainer.log_every=7"),
    "rows longer than a chunk": (*SHORT, "trainer.log_every=8"),
    "path derivative of a structured q": (
        *SHORT, "experiment=bbvi_structured", "estimator=sticking_the_landing", "bound=iwelbo", "optimizer=adam",
    ),
    "Markov blankets": (*SHORT, "experiment=rao_blackwell", "trainer.log_every=4", "trainer.gradient_draws=0"),
    "adagrad": (*SHORT, "optimizer=adagrad", "estimator=pathwise"),
    "robbins-monro": (*SHORT, "experiment=bbvi_robbins_monro"),
    "natural gradient": (*SHORT, "estimator=exact", "optimizer=natural_gradient"),
    "coordinate ascent": (*SHORT, "experiment=cavi_normal_gamma"),
    "stages": (*SHORT, "optimizer/schedule=staged", "optimizer.schedule.first=3"),
    "two layers of latents, in stages": (
        "experiment=iwae_burda", "dataset=digits", "dtype=float64", "model.latent_dims=[3,2]", "model.widths=[[8],[4]]",
        "family.widths=[[8],[4]]", "estimator.num_samples=3", "optimizer.schedule.first=0.1", "trainer.limit=40",
        "trainer.log_every=1", "trainer.checkpoint_every=1000", "threads=1",
    ),
    "an autoencoder": (
        *NETWORKS, "experiment=vae_digits", "trainer.limit=40", "dataset.binarization=dynamic", "trainer.log_every=1",
    ),
    "an importance-weighted one in parts": (
        *NETWORKS, "experiment=vae_digits", "bound=iwelbo", "estimator=sticking_the_landing",
        "estimator.num_samples=6", "estimator.chunk_size=2", "trainer.limit=40", "trainer.log_every=1",
    ),
    "a categorical one, whose temperature falls": (
        *NETWORKS, "experiment=categorical_vae_digits", "trainer.limit=40", "trainer.log_every=4",
    ),
    "a diffusion model, whose process is also the family's": (
        "experiment=ddpm_bound", "dtype=float64", "model.denoiser.hidden=[8]", "trainer.limit=40",
        "trainer.log_every=1", "trainer.eval_every=0", "trainer.checkpoint_every=1000",
    ),
}  # fmt: skip


@pytest.fixture
def graph_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """Run traced graphs without making machine code of them; the list holds the graphs.

    They are stored in memory, and their files are empty.
    """
    graphs: list[Any] = []
    stored: dict[Path | None, Any] = {}

    def lower(graph: Any, inputs: list[torch.Tensor], path: Path | None) -> Any:
        graphs.append(graph)
        stored[path] = graph
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return graph

    monkeypatch.setattr(compiled, "lower", lower)
    monkeypatch.setattr(compiled, "read_code", stored.get)
    monkeypatch.setattr(choice, "CHUNK", 4)  # what is traced is n times as long
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    return graphs


def trained(folder: Path, *arguments: str, ends: str = "completed") -> Loop:
    folder.mkdir()
    return drive(arguments, folder, ends=ends)


def worst_difference(first: History, second: History) -> float:
    """Return the largest difference of two traces, in units of each column's size."""
    assert list(first.columns) == list(second.columns)
    assert (first.step == second.step).all()
    pairs = [(first.columns[name], second.columns[name]) for name in first.columns]
    return max(float(np.nanmax(np.abs(a - b)) / max(1.0, np.nanmax(np.abs(a)))) for a, b in pairs)


def same_trace(first: Loop, second: Loop) -> bool:
    """Whether two runs have recorded the same numbers, bit for bit."""
    a, b = first.recorder.trace(), second.recorder.trace()
    return list(a.columns) == list(b.columns) and all(
        np.array_equal(a.columns[name], b.columns[name], equal_nan=True) for name in a.columns
    )


# --- the same numbers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", PROBLEMS.values(), ids=PROBLEMS.keys())
def test_a_chunk_is_its_steps(arguments: tuple[str, ...], graph_only: list[Any], tmp_path: Path) -> None:
    eager = trained(tmp_path / "eager", *arguments, "trainer.execution=eager")
    chunked = trained(tmp_path / "chunked", *arguments, "trainer.execution=compiled")
    assert len(graph_only) == 1
    tolerance = 1e-9 if eager.step.witness.dtype == torch.float64 else 2e-4
    assert worst_difference(eager.recorder.trace(), chunked.recorder.trace()) < tolerance
    assert (chunked.done, chunked.step.good_steps.tolist()) == (eager.done, eager.step.good_steps.tolist())
    assert {type(tensor) for tensor in chunked.step.buffers()} == {torch.Tensor}
    for a, b in zip(eager.step.state_dict().values(), chunked.step.state_dict().values(), strict=True):
        torch.testing.assert_close(b, a, rtol=1e3 * tolerance, atol=1e3 * tolerance)


@pytest.mark.parametrize("arguments", PROBLEMS.values(), ids=PROBLEMS.keys())
def test_replayed_steps_are_the_eager_ones(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """Bit for bit."""
    eager = trained(tmp_path / "eager", *arguments, "trainer.execution=eager")
    replayed = trained(tmp_path / "replayed", *arguments, "trainer.execution=replay")
    assert replayed.execution.executor is not None
    assert (replayed.done, replayed.step.good_steps.tolist()) == (eager.done, eager.step.good_steps.tolist())
    assert same_trace(eager, replayed)
    states = zip(eager.step.state_dict().values(), replayed.step.state_dict().values(), strict=True)
    assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in states)


@pytest.mark.parametrize("arguments", [("dtype=float32",), ("dtype=float32", "matmul=bfloat16")])
def test_replayed_networks_in_narrow_types(arguments: tuple[str, ...], tmp_path: Path) -> None:
    problem = (*PROBLEMS["an autoencoder"], *arguments, "trainer.eval_every=0")
    eager = trained(tmp_path / "eager", *problem, "trainer.execution=eager")
    replayed = trained(tmp_path / "replayed", *problem, "trainer.execution=replay")
    assert isinstance(replayed.execution.executor, ReplayedSteps)
    assert same_trace(eager, replayed)


def test_another_formula_is_caught(graph_only: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: an update without bias correction, as a compiler would be given it."""

    def without_correction(self: Adam, gradients: Any) -> list[torch.Tensor]:
        return [0.1 * gradient for gradient in gradients]

    arguments = PROBLEMS["control variates"]
    eager = trained(tmp_path / "eager", *arguments, "trainer.execution=eager")
    monkeypatch.setattr(Adam, "_written_out", without_correction)
    chunked = trained(tmp_path / "chunked", *arguments, "trainer.execution=compiled")
    assert worst_difference(eager.recorder.trace(), chunked.recorder.trace()) > 1e-3


@pytest.mark.parametrize(
    ("old", "new"),
    [("auto", "auto"), ("off", "eager"), ("replay", "replay"), ("step", "compiled"), ("chunk", "compiled")],
)
def test_the_setting_of_earlier_runs_is_read(old: str, new: str) -> None:
    """`trainer.compile` of version 0.1, in a trainer and nowhere else; a present value wins."""
    target = "vi_core.training.trainer.Trainer"
    trainer = {"_target_": target, "steps": 3, "compile": old}
    assert modernised({"trainer": trainer}) == {"trainer": {"_target_": target, "steps": 3, "execution": new}}
    assert modernised(trainer | {"execution": "eager"})["execution"] == "eager"
    assert modernised({"_target_": "mine.Part", "compile": old}) == {"_target_": "mine.Part", "compile": old}


@pytest.mark.parametrize(
    ("stored", "mode", "used"),
    [
        ({"mode": "auto", "used": "eager"}, "auto", "eager"),
        ({"mode": "eager", "used": "eager"}, "eager", "eager"),
        ({"mode": "replay", "used": "replay"}, "replay", "replay"),
        ({"mode": "cuda_graph", "used": "cuda_graph"}, "auto", "cuda_graph"),  # there is no device here
        ({"mode": "chunk", "short": True, "used": "off"}, "compiled", "eager"),  # as version 0.1 wrote it
    ],
)
def test_a_resumed_run_goes_on_as_it_had_settled(stored: Any, mode: str, used: str, tmp_path: Path) -> None:
    loop = trained(tmp_path / "run", *SHORT, "trainer.execution=eager")
    found = Execution("auto", loop.step, loop.plan, loop.batches)
    found.load_state_dict(stored)
    assert (found.mode, found.used) == (mode, used)
    if mode != "auto":
        assert found.state_dict() == {"mode": mode, "used": used}
    asked = Execution("eager", loop.step, loop.plan, loop.batches)
    asked.load_state_dict(stored)
    assert asked.mode == "eager"


def test_a_diverged_replicate_is_frozen(graph_only: list[Any], tmp_path: Path) -> None:
    arguments = (*SHORT, "optimizer=sgd", "optimizer.lr=[1e-4,1e200,1e-4]", "trainer.on_nonfinite=skip")
    eager = trained(tmp_path / "eager", *arguments, "trainer.execution=eager")
    chunked = trained(tmp_path / "chunked", *arguments, "trainer.execution=compiled")
    assert len(graph_only) == 1
    assert chunked.step.alive.tolist() == eager.step.alive.tolist() == [True, False, True]
    assert chunked.step.good_steps.tolist() == eager.step.good_steps.tolist()


def test_a_stopping_rule_sees_every_step(graph_only: list[Any], tmp_path: Path) -> None:
    rule = ("trainer/stopping=plateau", "trainer.stopping.window=20", "trainer.stopping.patience=2")
    arguments = (*SHORT, *rule, "trainer.stopping.tolerance=1e6", "trainer.steps=400")
    eager = trained(tmp_path / "eager", *arguments, "trainer.execution=eager", ends="converged")
    chunked = trained(tmp_path / "chunked", *arguments, "trainer.execution=compiled", ends="converged")
    assert len(graph_only) == 1
    assert chunked.done == eager.done == 60


@pytest.mark.parametrize("mode", ["compiled", "replay"])
def test_resumed_calls_go_on_bit_for_bit(mode: str, graph_only: list[Any], tmp_path: Path) -> None:
    arguments = (*SHORT, "trainer.log_every=2", f"trainer.execution={mode}")
    whole = trained(tmp_path / "whole", *arguments)
    assert whole.execution.executor is not None
    (tmp_path / "cut").mkdir()
    drive(arguments, tmp_path / "cut", steps=2)
    assert same_trace(whole, drive(arguments, tmp_path / "cut", resume=True))


def test_a_rehearsal_leaves_no_trace(tmp_path: Path) -> None:
    loop = trained(tmp_path / "run", *SHORT, "trainer.execution=eager")
    before, random = {k: v.clone() for k, v in loop.step.state_dict().items()}, torch.get_rng_state()
    rehearse(loop.step, loop.batches)
    assert all(bool((value == before[name]).all()) for name, value in loop.step.state_dict().items())
    assert bool((torch.get_rng_state() == random).all())


def test_operations_are_noted_as_they_are_done() -> None:
    """What is changed in place, what is made on the way, several results at once, constants, and what is not used."""
    constant = torch.arange(3.0)

    def function(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        first, second = y.split([1, 2])
        x.add_(y * constant)
        torch._foreach_mul_([x, y], 2.0)
        x[1:] += second.sum()
        return torch.stack([x.detach(), y.new_full((3,), -0.0)]).amax(dim=0), first.to(torch.float64)

    replay = interpreted(*record(function, [torch.ones(3), torch.ones(3)]))
    for _ in range(2):
        ours = [torch.randn(3), torch.randn(3)]
        theirs = [tensor.clone() for tensor in ours]
        results = zip([*replay(*ours), *ours], [*function(*theirs), *theirs], strict=True)
        assert all(torch.equal(x, y) for x, y in results)


def test_numbers_keep_their_digits_beside_narrow_types() -> None:
    def function(x: torch.Tensor) -> tuple[torch.Tensor]:
        return (x.bfloat16() * 0.1,)

    x = torch.linspace(-3.0, 3.0, 1000)
    assert torch.equal(interpreted(*record(function, [x]))(x)[0], function(x)[0])


directions = Adam.directions


def look(self: Adam, gradients: Any) -> Any:
    """Have the direction depend on a value."""
    slope = math.tanh(gradients[0].sum().item())
    return [slope * direction for direction in directions(self, gradients)]


def count(self: Any, gradients: Any) -> Any:
    """Have it depend on a counter that is no tensor."""
    self.count = getattr(self, "count", 0) + 1
    return [self.count * direction for direction in directions(self, gradients)]


def choose(self: Adam, gradients: Any) -> Any:
    """Have it depend on how many values are positive, by a shape."""
    return [len(d[d > 0]) * d for d in directions(self, gradients)]


def rebind(self: Any, gradients: Any) -> Any:
    """Put another tensor in the place of one of the state."""
    self.mean_0 = self.mean_0 * 1
    return directions(self, gradients)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (look, "looks at a value"), (choose, "looks at a value"), (count, "more than its tensors"),
        (rebind, "another tensor in the place of step.optimizer.mean_0"),
    ],
)  # fmt: skip
def test_steps_that_are_not_the_same_each_time_are_not_replayed(
    changed: Any, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Adam, "directions", changed)
    found = trained(tmp_path / "run", *SHORT, "dtype=float32", "optimizer.lr=1e-5", "trainer.execution=replay")
    assert (found.execution.mode, found.execution.executor, found.done) == ("eager", None, 40)
    told = [record.message for record in caplog.records if "no trainer.execution=replay" in record.message]
    assert len(told) == 1
    assert reason in told[0]


# --- when ------------------------------------------------------------------------------------------------------------


def test_nothing_happens_within_a_chunk() -> None:
    plan = Plan(steps=100, log_every=10, eval_every=25, checkpoint_every=1000)
    taken = [done for done in range(100) if fits(done, 10, 1, plan, None)]
    assert taken == [0, 10, 30, 40, 50, 60, 80, 90]
    assert not fits(95, 10, 1, plan, None)
    assert [done for done in (0, 10, 20) if fits(done, 10, 1, Plan(100, 15, 0, 100), None)] == [0, 20]
    short = Plan(steps=100, log_every=5, eval_every=25, checkpoint_every=1000)
    assert [done for done in range(100) if fits(done, 5, 4, short, None)] == [0, 5, 25, 30, 50, 55, 75, 80]
    assert not any(fits(done, 5, 4, plan, None) for done in range(100))
    long = Plan(steps=1000, log_every=1, eval_every=0, checkpoint_every=1000)
    assert [done for done in range(0, 400, 20) if fits(done, 10, 10, long, None)] == [0, 100, 200, 300]
    lengths = {1: 10, 3: 9, 5: 10, 7: 7, 10: 10, 25: 5, 200: 10}
    assert {every: chunk_of(Plan(1000, every, 0, 500), None) for every in lengths} == lengths
    periods = {4: 4, 7: 7, 15: 5, 33: 3, 469: 10}
    assert {every: chunk_of(Plan(1000, 1, every, 500), None) for every in periods} == periods
    assert {every: chunk_of(Plan(1000, 1, 0, 500), every) for every in periods} == periods
    assert chunk_of(Plan(1000, 4, 15, 500), None) == 1


@pytest.mark.parametrize(("left", "stored"), [(1.9, True), (2.1, True), (27.0, True), (29.0, True), (29.0, False)])
def test_the_rule_of_auto(
    left: float, stored: bool, graph_only: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recording costs half a second and reading seven; each is worth a fourth of what eager steps would take."""
    if stored:
        trained(tmp_path / "first", *SHORT, "trainer.execution=compiled")
    loop = trained(tmp_path / "run", *SHORT, "trainer.execution=eager")
    found = Execution("auto", loop.step, loop.plan, loop.batches, tmp_path / "cache" / "steps")
    for seconds in (9e9, left / 40, 9e9):
        assert found.next(0, None)[0] is found.eager
        assert found.mode == "auto"
        found.observe(seconds)
    found.last = 0.0
    found.next(0, None)
    assert found.mode == ("eager" if left < 2 else "compiled" if stored and left > 28 else "replay")
    assert (found.executor is None) == (left < 2)


def test_auto_replays_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = (*SHORT, "trainer.steps=200", "trainer.log_every=2")
    eager = trained(tmp_path / "eager", *arguments, "trainer.execution=eager")
    monkeypatch.setattr(choice, "WORTH", 1e-9)
    found = trained(tmp_path / "auto", *arguments, "trainer.execution=auto")
    assert found.execution.seconds > 0
    assert isinstance(found.execution.executor, ReplayedSteps)
    assert found.execution.used == "replay"
    assert same_trace(eager, found)


def test_auto_does_not_replay_a_short_run(tmp_path: Path) -> None:
    found = trained(tmp_path / "auto", *SHORT, "trainer.steps=60", "trainer.execution=auto").execution
    assert (found.mode, found.seconds, found.executor) == ("eager", 0.0, None)


def test_several_calls_are_made_at_once_where_that_is_soon_over(tmp_path: Path) -> None:
    plan = Plan(10_000, 1, 0, 10_000)
    loop = trained(tmp_path / "run", *SHORT, "trainer.execution=eager")
    found = Execution("replay", loop.step, plan, loop.batches)
    sizes = []
    for seconds in (1e-3, 1.0, 1e-3):
        sizes.append(len(found.next(0, None)[1]))
        found.observe(seconds)
    assert sizes == [10, 100, 10]


def test_long_steps_come_one_by_one(tmp_path: Path) -> None:
    """So that an interrupt does not wait for ten of them."""
    loop = trained(tmp_path / "run", *SHORT, "trainer.execution=eager")
    found = Execution("replay", loop.step, Plan(1000, 1, 0, 1000), loop.batches)
    found.last = 1.0
    assert found._count(None) == 1
    found.last = 0.01
    assert found._count(None) == 10


def test_eager_runs_import_no_private_torch() -> None:
    """Neither `--help` nor an eager run pays for the modules of the other executors."""
    code = (
        "import sys, vi_core.training.loop, experiments.run.fit, vi_core.problem;"
        "print([m for m in sys.modules if m.startswith('vi_core.execution.')])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not any(name in found for name in ("functional", "replay", "cuda_graph", "compiled"))
    assert "choice" in found


# --- TorchScript, which is deprecated ---------------------------------------------------------------------------------


def test_this_torch_has_what_the_replay_needs() -> None:
    """Fails with the name of what a newer torch has taken away: `torch X has no torch._C.Y; the replay needs it`."""
    replay.require_torchscript()


def test_without_torchscript_steps_are_eager(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(replay, "NEEDED", ("Graph", "absent"))
    found = trained(tmp_path / "run", *SHORT, "trainer.execution=replay")
    assert (found.execution.used, found.done) == ("eager", 40)
    told = [record.message for record in caplog.records if "torch._C.absent; the replay needs it" in record.message]
    assert len(told) == 1 and "\n" not in told[0]


# --- CUDA graphs, on a stand-in ---------------------------------------------------------------------------------------


class Memory(Watching):
    """Notes operations with the tensors that they read and write, to repeat them at the same places."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_dispatch__(func, types, args, kwargs)
        self.done.append((func, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        """Do all operations again; what they return goes where it was."""
        with torch.no_grad():
            for func, args, kwargs, result in self.done:
                again = func(*args, **kwargs)
                for old, new in zip(tensors(result), tensors(again), strict=True):
                    if old.data_ptr() != new.data_ptr():
                        old.copy_(new)


def tensors(result: Any) -> list[torch.Tensor]:
    """The tensors that an operation returns."""
    return [part for part in ([result] if isinstance(result, torch.Tensor) else result or ()) if part is not None]


class FakeCuda(SimpleNamespace):
    """Streams and graphs of `torch.cuda` on the processor; `said` holds the calls in their order."""

    def __init__(self) -> None:
        super().__init__(said=[], live=[])

    def Stream(self) -> Any:
        return SimpleNamespace(wait_stream=lambda other: self.said.append("side waits"))

    def current_stream(self) -> Any:
        return SimpleNamespace(wait_stream=lambda other: self.said.append("main waits"))

    @contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        self.said.append("on side")
        yield
        self.said.append("off side")

    def CUDAGraph(self) -> Any:
        return SimpleNamespace(replay=lambda: (self.said.append("replay"), self.memory.replay()))

    @contextmanager
    def graph(self, graph: Any) -> Iterator[None]:
        """Note operations, and put back what they changed: a device records without doing anything."""
        self.said.append("record")
        kept, random = [tensor.clone() for tensor in self.live], torch.get_rng_state()
        with Memory() as self.memory:
            yield
        with torch.no_grad():
            for tensor, value in zip(self.live, kept, strict=True):
                tensor.copy_(value)
        torch.set_rng_state(random)


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """CUDA graphs on the processor."""
    fake = FakeCuda()
    make = GraphedSteps._make

    def made(self: GraphedSteps) -> Any:
        fake.live = self.inputs
        return make(self)

    monkeypatch.setattr(GraphedSteps, "device_type", "cpu")
    monkeypatch.setattr(GraphedSteps, "cuda", fake)
    monkeypatch.setattr(GraphedSteps, "_make", made)
    return fake


def test_a_graph_is_recorded_after_a_warm_up_and_replayed_in_place() -> None:
    """Order of streams; the state is not moved by recording; batches are copied in and results out."""
    fake, calls = FakeCuda(), []
    state, batch = torch.zeros(2), torch.ones(2)
    fake.live = [state]

    def function(state: torch.Tensor, batch: torch.Tensor) -> tuple[torch.Tensor]:
        calls.append(state)
        fake.said.append("call")
        return (state.add_(batch) * 2,)

    replay = captured(function, [state], [batch], fake)
    warm = ["side waits", "on side", "call", "call", "call", "off side", "main waits"]
    assert fake.said == [*warm, "record", "call"]
    assert [call is state for call in calls] == [False, False, False, True]
    assert state.tolist() == [0, 0]
    (first,) = replay(state, torch.full((2,), 3.0))
    (second,) = replay(state, torch.full((2,), 4.0))
    assert (first.tolist(), second.tolist(), state.tolist()) == ([6, 6], [14, 14], [7, 7])
    assert len(calls) == 4
    same = torch.full((2,), 5.0)
    batch.copy_(same)
    assert replay(state, batch)[0].tolist() == [24, 24]


@pytest.mark.parametrize("arguments", PROBLEMS.values(), ids=PROBLEMS.keys())
def test_graphed_steps_are_the_eager_ones(arguments: tuple[str, ...], fake_cuda: FakeCuda, tmp_path: Path) -> None:
    """Bit for bit: state, rows and random numbers."""
    eager = trained(tmp_path / "eager", *arguments, "trainer.execution=eager")
    stream = torch.get_rng_state()
    graphed = trained(tmp_path / "graphed", *arguments, "trainer.execution=cuda_graph")
    assert isinstance(graphed.execution.executor, GraphedSteps)
    assert fake_cuda.said.count("replay") > 20
    assert same_trace(eager, graphed)
    assert torch.equal(stream, torch.get_rng_state())
    states = zip(eager.step.state_dict().values(), graphed.step.state_dict().values(), strict=True)
    assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in states)


def test_graphed_steps_resume_bit_for_bit(fake_cuda: FakeCuda, tmp_path: Path) -> None:
    arguments = (*SHORT, "trainer.log_every=2", "trainer.execution=cuda_graph")
    whole = trained(tmp_path / "whole", *arguments)
    (tmp_path / "cut").mkdir()
    drive(arguments, tmp_path / "cut", steps=7)
    assert same_trace(whole, drive(arguments, tmp_path / "cut", resume=True))


@pytest.mark.parametrize(("changed", "reason"), [(look, "looks at a value"), (count, "more than its tensors")])
def test_steps_that_are_not_the_same_each_time_are_not_graphed(
    changed: Any, reason: str, fake_cuda: FakeCuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(Adam, "directions", changed)
    found = trained(tmp_path / "run", *SHORT, "dtype=float32", "trainer.execution=cuda_graph")
    assert (found.execution.mode, found.done) == ("eager", 40)
    assert sum(reason in record.message for record in caplog.records) == 1


def test_a_processor_has_no_cuda_graphs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = trained(tmp_path / "run", *SHORT, "trainer.execution=cuda_graph")
    assert found.execution.used == "eager"
    assert sum("they need device=cuda, and this is cpu" in record.message for record in caplog.records) == 1


# --- what is stored --------------------------------------------------------------------------------------------------


def test_the_same_steps_are_compiled_once(graph_only: list[Any], tmp_path: Path) -> None:
    """A rate and a seed go into the code when it runs; a number of the prior is a part of it, and so is a shape."""
    for index, (arguments, graphs) in enumerate(
        [((), 1), (("optimizer.lr=0.5", "seed=3"), 1), (("model.loc=3.25",), 2), (("replicates=2",), 3), ((), 3)]
    ):
        trained(tmp_path / str(index), *SHORT, *arguments, "trainer.execution=compiled")
        assert len(graph_only) == graphs


def test_auto_reads_what_is_stored_and_does_not_compile(
    graph_only: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another prior has the same outline, and no code."""
    trained(tmp_path / "first", *SHORT, "trainer.execution=compiled")
    monkeypatch.setattr(choice, "WORTH", 1e-9)
    again = trained(tmp_path / "again", *SHORT, "trainer.execution=auto").execution
    assert isinstance(again.executor, compiled.CompiledSteps) and again.executor.was_stored
    other = trained(tmp_path / "other", *SHORT, "model.loc=3.25", "trainer.execution=auto").execution
    assert (other.mode, len(graph_only)) == ("replay", 1)


def test_damaged_code_is_no_code(tmp_path: Path) -> None:
    (tmp_path / "code.bin").write_bytes(b"nothing")
    assert compiled.read_code(tmp_path / "code.bin") is None
    assert compiled.read_code(tmp_path / "none.bin") is None


class Code:
    """Machine code that notes whether it was stored or read."""

    read: Callable[[], None]

    def save(self, path: str) -> None:
        Path(path).write_text("code")


def test_code_that_others_can_write_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Folders are made for this user alone, whatever the umask; a planted file is not opened."""
    import torch._inductor as inductor

    opened: list[str] = []
    monkeypatch.setattr(inductor, "standalone_compile", lambda *_, **__: Code())
    monkeypatch.setattr(inductor.CompiledArtifact, "load", lambda path: opened.append(path))
    path = tmp_path / "cache" / "steps" / "code.bin"
    compiled.lower(None, [], path)
    modes = [place.stat().st_mode & 0o777 for place in (path.parent.parent, path.parent, path)]
    assert modes == [0o700, 0o700, 0o600]
    compiled.read_code(path)
    assert opened == [str(path)]
    for place, mode in ((path, 0o620), (path, 0o602), (path.parent, 0o720), (path.parent, 0o702)):
        before = place.stat().st_mode & 0o777
        place.chmod(mode)
        assert compiled.read_code(path) is None
        place.chmod(before)
    monkeypatch.setattr("os.getuid", lambda: path.stat().st_uid + 1)
    assert compiled.read_code(path) is None
    assert opened == [str(path)]
    assert sum("is not read: another user can write it" in record.message for record in caplog.records) == 5


def test_a_folder_of_machine_code_that_others_can_write_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir(mode=0o700)
    assert process.compiled_folder() == tmp_path / "cache"
    (tmp_path / "cache").chmod(0o777)
    other = process.compiled_folder()
    assert other != tmp_path / "cache" and not any(other.iterdir())
    assert process.compiled_folder() == other
    assert sum("is not used" in record.message for record in caplog.records) == 1


# --- failure ---------------------------------------------------------------------------------------------------------


def test_steps_that_cannot_be_compiled_are_made(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise RuntimeError("no compiler\nand more lines")

    monkeypatch.setattr(compiled, "lower", refuse)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    arguments = ("--run", "trainer.steps=30", "trainer.checkpoint_every=30", "plot.enabled=false")
    result = cli(*arguments, "trainer.execution=compiled", "hydra.run.dir=run")
    assert (result.code, result.out.count("no trainer.execution=compiled for these steps (no compiler)")) == (0, 1)
    assert cli(*arguments, "trainer.execution=eager", "hydra.run.dir=eager").code == 0
    assert trace_text(tmp_path / "run") == trace_text(tmp_path / "eager")
    timing = summary_of(tmp_path / "run")["timing"]
    assert (timing["execution"], timing["compile_s"]) == ("eager", 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_steps_of_every_experiment_are_traced(
    name: str, graph_only: list[Any], cli: CommandLine, tmp_path: Path
) -> None:
    """Each job of a sweep runs a graph, which may be that of the job before."""
    runs = run_experiment(name, cli, tmp_path, "trainer.execution=compiled", "plot.enabled=false")
    assert graph_only
    assert [summary_of(run)["timing"]["execution"] for run in runs] == ["compiled"] * len(runs)


# --- the compiler ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("problem", PROBLEMS)
def test_machine_code_gives_the_same_numbers(problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    if problem != "control variates":
        monkeypatch.setattr(choice, "CHUNK", 1)
    arguments = PROBLEMS[problem]
    eager = trained(tmp_path / "eager", *arguments, "trainer.execution=eager")
    tolerance = 1e-9 if eager.step.witness.dtype == torch.float64 else 2e-4
    for name in ("compiled", "read back"):
        fast = trained(tmp_path / name, *arguments, "trainer.execution=compiled")
        assert isinstance(fast.execution.executor, compiled.CompiledSteps)
        stored = any((tmp_path / "cache" / "steps").glob("*.bin"))  # steps with tensors of their own are not
        assert stored or problem != "control variates"
        assert fast.execution.executor.was_stored == (stored and name == "read back")
        assert worst_difference(eager.recorder.trace(), fast.recorder.trace()) < tolerance
