"""Compiled steps are the eager steps: same draws, same numbers to rounding, in the same rows; and they cost no run.

Making machine code takes most of a minute, so that the quick tests run the traced graph of operations as it is; the
slow ones run the compiler.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.cli.test_resume import drive
from tests.conftest import CommandLine, summary_of, trace_text
from tests.contracts.test_config import EXPERIMENTS, run_experiment
from vi_core.execution import choice as compilation
from vi_core.execution import compiled
from vi_core.execution.base import count_operations, rehearse
from vi_core.execution.choice import Choice, Compilation, chunk_of, fits
from vi_core.execution.replay import ReplayedSteps, interpreted, record
from vi_core.optimizers.adam import Adam
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
    """Run traced graphs without making machine code of them, and store them in memory; the list holds the graphs."""
    graphs: list[Any] = []
    stored: dict[Path | None, Any] = {}

    def lower(graph: Any, inputs: list[torch.Tensor], path: Path | None) -> Any:
        graphs.append(graph)
        stored[path] = graph
        return graph

    monkeypatch.setattr(compiled, "lower", lower)
    monkeypatch.setattr(compiled, "read_code", stored.get)
    monkeypatch.setattr(compilation, "CHUNK", 4)  # what is traced is n times as long
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    return graphs


def trained(folder: Path, *arguments: str) -> Loop:
    folder.mkdir()
    return drive(arguments, folder)


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
    eager = trained(tmp_path / "eager", *arguments, "trainer.compile=off")
    chunked = trained(tmp_path / "chunked", *arguments, "trainer.compile=chunk")
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
    eager = trained(tmp_path / "eager", *arguments, "trainer.compile=off")
    replayed = trained(tmp_path / "replayed", *arguments, "trainer.compile=replay")
    assert replayed.compilation.steps is not None
    assert (replayed.done, replayed.step.good_steps.tolist()) == (eager.done, eager.step.good_steps.tolist())
    assert same_trace(eager, replayed)
    states = zip(eager.step.state_dict().values(), replayed.step.state_dict().values(), strict=True)
    assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in states)


@pytest.mark.parametrize("arguments", [("dtype=float32",), ("dtype=float32", "matmul=bfloat16")])
def test_replayed_networks_in_narrow_types(arguments: tuple[str, ...], tmp_path: Path) -> None:
    problem = (*PROBLEMS["an autoencoder"], *arguments, "trainer.eval_every=0")
    eager = trained(tmp_path / "eager", *problem, "trainer.compile=off")
    replayed = trained(tmp_path / "replayed", *problem, "trainer.compile=replay")
    assert isinstance(replayed.compilation.steps, ReplayedSteps)
    assert same_trace(eager, replayed)


def test_another_formula_is_caught(graph_only: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: an update without bias correction, as a compiler would be given it."""

    def without_correction(self: Adam, gradients: Any) -> list[torch.Tensor]:
        return [0.1 * gradient for gradient in gradients]

    arguments = PROBLEMS["control variates"]
    eager = trained(tmp_path / "eager", *arguments, "trainer.compile=off")
    monkeypatch.setattr(Adam, "_written_out", without_correction)
    chunked = trained(tmp_path / "chunked", *arguments, "trainer.compile=chunk")
    assert worst_difference(eager.recorder.trace(), chunked.recorder.trace()) > 1e-3


@pytest.mark.parametrize(("mode", "settled"), [("auto", False), ("off", True), ("replay", True), ("chunk", True)])
def test_a_resumed_run_goes_on_as_it_had_settled(mode: Any, settled: bool, tmp_path: Path) -> None:
    loop = trained(tmp_path / "run", *SHORT, "trainer.compile=off")
    first, second = (Compilation("auto", loop.step, loop.plan, loop.batches) for _ in range(2))
    first.mode, first.settled, first.short = mode, settled, False
    second.load_state_dict(first.state_dict())
    assert (second.mode, second.settled) == (mode, settled)
    assert second.short == (mode == "auto")
    assert second.used == "off"
    assert first._make("replay")
    second.load_state_dict(first.state_dict())
    assert second.used == "replay"  # as a job of a batched sweep, which makes no step itself
    first.mode, first.settled = "replay", False  # it is still being timed
    assert first.state_dict()["mode"] == "auto"


def test_a_diverged_replicate_is_frozen(graph_only: list[Any], tmp_path: Path) -> None:
    arguments = (*SHORT, "optimizer=sgd", "optimizer.lr=[1e-4,1e200,1e-4]", "trainer.on_nonfinite=skip")
    eager = trained(tmp_path / "eager", *arguments, "trainer.compile=off")
    chunked = trained(tmp_path / "chunked", *arguments, "trainer.compile=chunk")
    assert len(graph_only) == 1
    assert chunked.step.alive.tolist() == eager.step.alive.tolist() == [True, False, True]
    assert chunked.step.good_steps.tolist() == eager.step.good_steps.tolist()


def test_a_stopping_rule_sees_every_step(
    graph_only: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = ("trainer/stopping=plateau", "trainer.stopping.window=20", "trainer.stopping.patience=2")
    arguments = (*SHORT, *rule, "trainer.stopping.tolerance=1e6", "trainer.steps=400")
    run = Loop.run
    monkeypatch.setattr(Loop, "run", lambda *a: {"converged": "completed"}.get(run(*a), "too long"))
    eager = trained(tmp_path / "eager", *arguments, "trainer.compile=off")
    chunked = trained(tmp_path / "chunked", *arguments, "trainer.compile=chunk")
    assert len(graph_only) == 1
    assert chunked.done == eager.done == 60


@pytest.mark.parametrize("mode", ["chunk", "replay"])
def test_resumed_calls_go_on_bit_for_bit(mode: str, graph_only: list[Any], tmp_path: Path) -> None:
    arguments = (*SHORT, "trainer.log_every=2", f"trainer.compile={mode}")
    whole = trained(tmp_path / "whole", *arguments)
    assert whole.compilation.steps is not None
    (tmp_path / "cut").mkdir()
    drive(arguments, tmp_path / "cut", steps=2)
    assert same_trace(whole, drive(arguments, tmp_path / "cut", resume=True))


def test_a_rehearsal_leaves_no_trace(tmp_path: Path) -> None:
    loop = trained(tmp_path / "run", *SHORT, "trainer.compile=off")
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
    found = trained(tmp_path / "run", *SHORT, "dtype=float32", "optimizer.lr=1e-5", "trainer.compile=replay")
    assert (found.compilation.mode, found.compilation.steps, found.done) == ("off", None, 40)
    told = [record.message for record in caplog.records if "cannot be replayed" in record.message]
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


def settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int, base: float, short: bool = True) -> str:
    """Return what `auto` settles on after steps of 50 µs, where compiling takes `base` operations of a microsecond."""
    loop = trained(tmp_path / f"{steps}_{base}_{short}", *SHORT, "trainer.compile=off")
    found = Compilation("auto", loop.step, Plan(steps, 10, 0, steps), loop.batches)
    found.best, found.short = Choice("replay", None, 50e-6), short
    monkeypatch.setattr(compilation, "CompiledSteps", lambda *arguments: arguments)
    monkeypatch.setattr(compilation, "operation_seconds", lambda: 1e-6)
    monkeypatch.setattr(compilation, "COLD_BASE", base)
    found._settle(steps)
    monkeypatch.undo()
    return found.mode


def test_auto_compiles_where_it_cannot_cost_a_tenth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """300 s are left."""
    assert settled(tmp_path, monkeypatch, 6_000_000, 20e6) == "chunk"
    assert settled(tmp_path, monkeypatch, 6_000_000, 20e6, short=False) == "step"
    assert settled(tmp_path, monkeypatch, 6_000_000, 40e6) == "replay"


def test_auto_replays_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = (*SHORT, "trainer.steps=200", "trainer.log_every=2")
    eager = trained(tmp_path / "eager", *arguments, "trainer.compile=off")
    monkeypatch.setattr(compilation, "REPLAY", 0.0)
    monkeypatch.setattr(compilation, "SHORT", math.inf)
    found = trained(tmp_path / "auto", *arguments, "trainer.compile=auto")
    assert found.compilation.seconds > 0
    assert isinstance(found.compilation.steps, ReplayedSteps)
    assert found.compilation.mode == "replay"
    assert same_trace(eager, found)


def test_auto_does_not_replay_a_short_run(tmp_path: Path) -> None:
    """A second of eager steps is not worth a quarter of one to get ready."""
    found = trained(tmp_path / "auto", *SHORT, "trainer.steps=60", "trainer.compile=auto").compilation
    assert (found.mode, found.seconds, found.settled) == ("off", 0.0, True)


@pytest.mark.parametrize(("seconds", "mode"), [(0.5, "replay"), (2.0, "off")])
def test_auto_gives_up_steps_that_are_slower(
    seconds: float, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An eager step takes a second, and a replayed one `seconds`."""
    loop = trained(tmp_path / "run", *SHORT, "trainer.compile=off")
    found = Compilation("auto", loop.step, loop.plan, loop.batches)
    found.best = Choice("off", None, 1.0)
    assert found._make("replay")
    assert found.steps is not None
    monkeypatch.setattr(Compilation, "_pays", lambda *_: False)
    for _ in range(2 + compilation.WATCHED):
        found.observe(100.0, several=False)
        found.observe(seconds, several=True)
    found.next(13, None)
    assert (found.mode, found.times, found.settled) == (mode, None, True)
    assert (found.steps is None) == (mode == "off")


def judge_eager_steps_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not give up what is read: a graph that runs without its code may be slow."""
    observe = Compilation.observe
    monkeypatch.setattr(Compilation, "observe", lambda self, *seen: None if seen[1] else observe(self, *seen))


# --- what is stored --------------------------------------------------------------------------------------------------


def compiled_once(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Loop:
    """A run in chunks, long enough that what its steps take is remembered."""
    monkeypatch.setattr(compilation, "WATCHED", 2)
    monkeypatch.setattr(compilation, "SHORT", math.inf)
    return trained(folder, *SHORT, *arguments, "trainer.compile=chunk")


def test_what_reading_and_a_step_take_is_remembered(
    graph_only: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = tmp_path / "cache" / "seconds.json"
    first = compiled_once(tmp_path / "first", monkeypatch).compilation
    ((reading, step),) = compilation.read_history(history).values()
    assert reading == pytest.approx(compilation.WARM * first.seconds)
    assert 0 < step < 1
    second = compiled_once(tmp_path / "second", monkeypatch).compilation
    ((reading, _),) = compilation.read_history(history).values()
    assert reading == pytest.approx(second.seconds)
    history.write_text("{")
    assert compilation.read_history(history) == {}


def test_the_same_steps_are_compiled_once(
    graph_only: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rate and a seed go into the code when it runs; a number of the prior is a part of it, and so is a shape."""
    for index, (arguments, graphs) in enumerate(
        [((), 1), (("optimizer.lr=0.5", "seed=3"), 1), (("model.loc=3.25",), 2), (("replicates=2",), 3), ((), 3)]
    ):
        compiled_once(tmp_path / str(index), monkeypatch, *arguments)
        assert len(graph_only) == graphs


@pytest.mark.parametrize(("reading", "step", "graphs"), [(0.0, 0.0, 1), (1e9, 0.0, 0), (0.0, 1e9, 0)])
def test_auto_reads_what_is_stored_if_the_run_ends_sooner(
    reading: float, step: float, graphs: int, graph_only: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = tmp_path / "cache" / "seconds.json"
    compiled_once(tmp_path / "first", monkeypatch)
    (key,) = compilation.read_history(history)
    compilation.write_history(history, {key: (reading, step)})
    judge_eager_steps_only(monkeypatch)
    again = trained(tmp_path / "again", *SHORT, "trainer.compile=auto").compilation
    assert (again.steps is not None) == bool(graphs)
    assert len(graph_only) == 1


def test_auto_reads_chunks_where_it_would_compile_steps(
    graph_only: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled_once(tmp_path / "first", monkeypatch)
    history = tmp_path / "cache" / "seconds.json"
    (key,) = compilation.read_history(history)
    compilation.write_history(history, {key: (0.0, 0.0)})
    monkeypatch.setattr(compilation, "SHORT", 0.0)
    judge_eager_steps_only(monkeypatch)
    again = trained(tmp_path / "again", *SHORT, "trainer.compile=auto").compilation
    assert again.steps is not None
    assert (again.steps.was_stored, again.steps.count > 1) == (True, True)


def test_auto_does_not_compile_for_what_only_looks_the_same(
    graph_only: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another prior has a key in the history, and no code."""
    history = tmp_path / "cache" / "seconds.json"
    compiled_once(tmp_path / "first", monkeypatch)
    (key,) = compilation.read_history(history)
    compilation.write_history(history, {key: (0.0, 0.0)})
    again = trained(tmp_path / "again", *SHORT, "model.loc=3.25", "trainer.compile=auto").compilation
    assert (again.mode, again.steps, len(graph_only)) == ("off", None, 1)


def test_damaged_code_is_no_code(tmp_path: Path) -> None:
    (tmp_path / "code.bin").write_bytes(b"nothing")
    assert compiled.read_code(tmp_path / "code.bin") is None
    assert compiled.read_code(tmp_path / "none.bin") is None


def test_operations_are_counted(tmp_path: Path) -> None:
    loop = trained(tmp_path / "run", *SHORT, "trainer.compile=off")
    assert 100 < count_operations(loop.step, loop.batches) < 400


# --- failure ---------------------------------------------------------------------------------------------------------


def test_steps_that_cannot_be_compiled_are_made(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise RuntimeError("no compiler\nand more lines")

    monkeypatch.setattr(compiled, "lower", refuse)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    arguments = ("--run", "trainer.steps=30", "trainer.checkpoint_every=30", "plot.enabled=false")
    result = cli(*arguments, "trainer.compile=chunk", "hydra.run.dir=run")
    assert (result.code, result.out.count("cannot be compiled (no compiler)")) == (0, 1)
    assert cli(*arguments, "trainer.compile=off", "hydra.run.dir=eager").code == 0
    assert trace_text(tmp_path / "run") == trace_text(tmp_path / "eager")
    timing = summary_of(tmp_path / "run")["timing"]
    assert (timing["compiled"], timing["compile_s"]) == ("off", 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_steps_of_every_experiment_are_traced(
    name: str, graph_only: list[Any], cli: CommandLine, tmp_path: Path
) -> None:
    """Each job of a sweep runs a graph, which may be that of the job before."""
    runs = run_experiment(name, cli, tmp_path, "trainer.compile=step", "plot.enabled=false")
    assert graph_only
    assert [summary_of(run)["timing"]["compiled"] for run in runs] == ["step"] * len(runs)


# --- the compiler ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "problem"), [("chunk", "control variates"), *(("step", name) for name in PROBLEMS)])
def test_machine_code_gives_the_same_numbers(
    mode: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    arguments = PROBLEMS[problem]
    eager = trained(tmp_path / "eager", *arguments, "trainer.compile=off")
    tolerance = 1e-9 if eager.step.witness.dtype == torch.float64 else 2e-4
    for name in ("compiled", "read back"):
        fast = trained(tmp_path / name, *arguments, f"trainer.compile={mode}")
        assert fast.compilation.steps is not None
        stored = any((tmp_path / "cache" / "steps").glob("*.bin"))  # steps with tensors of their own are not
        assert stored or problem != "control variates"
        assert fast.compilation.steps.was_stored == (stored and name == "read back")
        assert worst_difference(eager.recorder.trace(), fast.recorder.trace()) < tolerance
