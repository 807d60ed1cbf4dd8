"""Stacked networks: a step of several runs is the step of each.

Without noise, with q so narrow that a draw is its mean, the weights of stacked runs are those of single ones to
rounding. With noise the runs of a batch draw independently of each other; a batched sweep and the sweep agree in law,
in twelve pairs: Student's t beyond 8.5 standard errors, a false alarm in 300,000 runs of this file.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from experiments.config.validate import plain_values
from tests.cli.test_batched_sweeps import BATCHED, rows
from tests.conftest import CommandLine, configuration, run_in
from vi_core.distributions.categorical import one_hot_argmax
from vi_core.execution import compiled
from vi_core.execution.replay import ReplayedSteps
from vi_core.problem import Problem, assemble, can_stack, stacked
from vi_core.stacking.networks import StackedStep
from vi_core.training.history import read_history

RATES = [1e-2, 3e-3, 1e-3]
DIGITS = ("experiment=vae_digits", "trainer.final_samples=2", "plot.enabled=false", "dtype=float64")
BOUND = 8.5
"""Standard errors of twelve pairs."""
NARROW = -60.0
"""A log-variance beside which noise is rounding."""


def settings(*arguments: str) -> dict[str, Any]:
    """The settings that a command line has."""
    return plain_values(configuration(*arguments))


def problem(config: dict[str, Any], seed: int, lr: float) -> Problem:
    """A run of its own."""
    torch.manual_seed(seed)
    torch.set_default_dtype(torch.float64)
    own = config | {"optimizer": config["optimizer"] | {"lr": lr}}
    return assemble(own, torch.device("cpu"), torch.float64, torch.Generator().manual_seed(seed))


def narrow(single: Problem) -> Problem:
    """Fix the variance of q, with no slope."""
    head: Any = list(single.family.modules())[-1]
    with torch.no_grad():
        head.weight[8:] = 0
        head.bias[8:] = NARROW
    return single


@pytest.fixture
def config() -> dict[str, Any]:
    """A small `vae_digits`."""
    return settings("experiment=vae_digits", "dataset.batch_size=20", "model.hidden=[9]", "family.hidden=[7]")


def weights(single: Problem) -> Tensor:
    """All of them."""
    return torch.cat([value.detach().flatten() for value in single.step.moving])


def train(whole: Problem, steps: int) -> None:
    """Some steps of the loop, without the loop."""
    for _ in range(steps):
        whole.step(whole.batches.next()[0])


def both(config: dict[str, Any], rates: Sequence[float], steps: int = 6) -> tuple[list[Tensor], list[Tensor]]:
    """Weights of runs alone, and of the same runs stacked with these rates."""
    alone = [narrow(problem(config, seed, lr)) for seed, lr in enumerate(RATES)]
    singles = [narrow(problem(config, seed, lr)) for seed, lr in enumerate(RATES)]
    whole = stacked(config | {"optimizer": config["optimizer"] | {"lr": list(rates)}}, singles)
    for each in (*alone, whole):
        train(each, steps)
    return [weights(each) for each in alone], [weights(each) for each in singles]


def test_stacked_runs_are_the_runs(config: dict[str, Any]) -> None:
    alone, together = both(config, RATES)
    for first, second in zip(alone, together, strict=True):
        torch.testing.assert_close(second, first, rtol=1e-9, atol=1e-12)


def test_a_rate_of_another_run_is_seen(config: dict[str, Any]) -> None:
    alone, together = both(config, RATES[::-1])
    moved = [(first - second).abs().max().item() for first, second in zip(alone, together, strict=True)]
    assert moved[0] > 1e-3 and moved[1] < 1e-12 and moved[2] > 1e-3


def test_metrics_and_held_out_bounds_are_those_of_each(config: dict[str, Any]) -> None:
    alone = [narrow(problem(config, seed, 1e-3)) for seed in range(3)]
    whole = stacked(config, [narrow(problem(config, seed, 1e-3)) for seed in range(3)])
    metrics = whole.step(whole.batches.next()[0])
    single = [each.step(each.batches.next()[0]) for each in alone]
    assert metrics.keys() == single[0].keys()
    for name, value in metrics.items():
        torch.testing.assert_close(value, torch.cat([each[name] for each in single]))
    torch.testing.assert_close(whole.step.grad_norm, torch.cat([each.step.grad_norm for each in alone]))  # pyright: ignore
    torch.testing.assert_close(whole.held_out(), torch.cat([each.held_out() for each in alone]))


def test_runs_draw_noise_of_their_own(config: dict[str, Any]) -> None:
    """Two runs with the same weights and images, whose bounds differ by their draws alone, and are uncorrelated."""
    whole = stacked(config, [problem(config, 0, 1e-3), problem(config, 0, 1e-3)])
    assert isinstance(whole.step, StackedStep)
    x = whole.batches.decode(whole.batches.next_stored()[0])
    assert bool((x[0] == x[1]).all())
    with torch.no_grad():
        bounds = torch.stack([whole.step.estimate(x)[1]["elbo"] for _ in range(400)])
    assert bounds.std(dim=0).min() > 1e-3
    assert abs(torch.corrcoef(bounds.T)[0, 1].item()) < 4.5 / 20


def test_a_run_that_diverges_is_frozen_alone(config: dict[str, Any]) -> None:
    singles = [problem(config, seed, 1e-3) for seed in range(3)]
    whole = stacked(config, singles)
    with torch.no_grad():
        singles[1].step.moving[0].fill_(torch.nan)
    before = [weights(each) for each in singles]
    train(whole, 2)
    assert whole.step.alive.tolist() == [True, False, True]
    assert [bool((weights(each) == old).all()) for each, old in zip(singles, before, strict=True)] == [False] * 3
    assert [bool(weights(each).isfinite().all()) for each in singles] == [True, False, True]


def test_what_is_kept_in_two_places_stays_one() -> None:
    """A diffusion model and its family share the tables of the noise, and one of them is the variance, too."""
    diffusion = settings("experiment=ddpm_two_moons", "dataset.num_points=50", "model.num_steps=25")
    singles = [problem(diffusion, seed, 1e-3) for seed in range(2)]
    whole = stacked(diffusion, singles)
    model, family = (dict(part.named_buffers(remove_duplicate=False)) for part in (whole.model, whole.family))
    assert len(model["process.beta"]) == 2
    assert model["process.beta"] is family["process.beta"] is model["variance"]
    train(whole, 3)
    assert bool(whole.step.alive.all())


def test_stacked_steps_are_traced(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The traced step draws what the eager one draws."""
    monkeypatch.setattr(compiled, "lower", lambda graph, inputs, path: graph)
    eager, traced = (stacked(config, [problem(config, seed, 1e-3) for seed in range(2)]) for _ in range(2))
    steps = compiled.CompiledSteps(traced.step, traced.batches, 1, 1)
    torch.manual_seed(5)
    train(eager, 2)
    torch.manual_seed(5)
    for _ in range(2):
        steps([traced.batches.next_stored()[0]])
    torch.testing.assert_close(weights(traced), weights(eager))


def test_stacked_steps_are_replayed(config: dict[str, Any]) -> None:
    eager, replayed = (stacked(config, [problem(config, seed, 1e-3) for seed in range(2)]) for _ in range(2))
    steps = ReplayedSteps(replayed.step, replayed.batches, 1, 1)
    torch.manual_seed(5)
    train(eager, 2)
    torch.manual_seed(5)
    for _ in range(2):
        steps([replayed.batches.next_stored()[0]])
    torch.testing.assert_close(weights(replayed), weights(eager), rtol=0.0, atol=0.0)


def test_what_has_no_networks_is_not_stacked() -> None:
    assert not can_stack(problem(settings("experiment=bbvi", "replicates=1"), 0, 1e-3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_hot_of_the_largest(dtype: torch.dtype) -> None:
    values = torch.tensor([[0.1, 3.0, -1.0], [5.0, 3.0, 4.0]], dtype=dtype)
    assert one_hot_argmax(values).tolist() == [[0, 1, 0], [1, 0, 0]]
    assert one_hot_argmax(values).dtype == dtype


# --- the sweep --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Twelve seeds of `vae_digits`, two epochs, one by one and batched."""
    folder = tmp_path_factory.mktemp("stacked")
    for name, mode in {"alone": "sweep.batched=false", "batched": BATCHED}.items():
        result = run_in(folder, "-m", *DIGITS, "trainer.epochs=2", "seed=range(12)", mode, f"hydra.sweep.dir={name}")
        assert (result.code, result.err) == (0, "")
        assert ("12 jobs of 1 replicates in one batch" in result.out) == (name == "batched")
    return folder / "alone", folder / "batched"


def content(folder: Path, job: int) -> dict[str, Any]:
    """The checkpoint of a job."""
    return torch.load(folder / str(job) / "checkpoint.pt", weights_only=True)


@pytest.mark.slow
def test_a_job_begins_with_the_weights_and_images_of_the_run_alone(sweeps: tuple[Path, Path]) -> None:
    """The rate of the first step, KL(q ‖ p), depends on no noise."""
    for job in range(12):
        alone, batched = (read_history(folder / str(job) / "trace.csv").columns for folder in sweeps)
        assert batched["rate"][0] == pytest.approx(alone["rate"][0], rel=1e-8)
        assert batched["distortion"][0] != alone["distortion"][0]
        assert np.isfinite(batched["held_out"][-1])


@pytest.mark.slow
def test_a_job_leaves_the_checkpoint_of_the_run_alone(sweeps: tuple[Path, Path]) -> None:
    alone, batched = (content(folder, 7) for folder in sweeps)
    assert alone.keys() == batched.keys()
    assert {k: v.shape for k, v in alone["step"].items()} == {k: v.shape for k, v in batched["step"].items()}
    for key in ("order", "generator"):
        assert bool((alone["batches"][key] == batched["batches"][key]).all())
    assert batched["batches"]["position"] == alone["batches"]["position"]


@pytest.mark.slow
def test_a_job_goes_on_alone(sweeps: tuple[Path, Path]) -> None:
    _, batched = sweeps
    before = read_history(batched / "3" / "trace.csv")
    assert run_in(batched.parent, f"resume={batched / '3'}", "trainer.epochs=3").code == 0
    after = read_history(batched / "3" / "trace.csv")
    assert after.step[-1] == 45
    name = after.bound
    assert after.columns[name][:30].tolist() == before.columns[name].tolist()
    assert after.columns[name][-5:].mean() > before.columns[name][-5:].mean()


@pytest.mark.slow
def test_both_sweeps_agree_in_law(sweeps: tuple[Path, Path]) -> None:
    """Pairs of runs with the same weights and images at first."""
    alone, batched = (np.array([float(row["final"]) for row in rows(folder)]) for folder in sweeps)
    error = (batched - alone).std(ddof=1) / np.sqrt(len(alone))
    assert 0.01 < error < 0.1
    assert abs((batched - alone).mean()) < BOUND * error
    assert abs((batched + 0.7 - alone).mean()) > BOUND * error  # what one epoch brings is ten times as much


def test_what_cannot_be_mapped_runs_one_by_one(cli: CommandLine, tmp_path: Path) -> None:
    arguments = (
        "experiment=categorical_vae_digits",
        "trainer.limit=2",
        "trainer.final_samples=2",
        "plot.enabled=false",
    )
    changed = ("estimator=score_function", "estimator.num_samples=2", "seed=0,1", "hydra.sweep.dir=sweep")
    result = cli("-m", BATCHED, *arguments, *changed)
    assert (result.code, result.err) == (0, "")
    assert result.out.count("jobs like this one run one by one (torch.func cannot map") == 1
    assert [row["status"] for row in rows(tmp_path / "sweep")] == ["completed", "completed"]
