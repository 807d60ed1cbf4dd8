"""Stopping rules on given paths, for several replicates, and the loop that obeys them."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests import fakes
from vi_core.algorithms.base import Step
from vi_core.algorithms.coordinate_ascent import CoordinateAscentStep
from vi_core.algorithms.gradient import GradientStep
from vi_core.bounds.elbo import ELBO
from vi_core.datasets.base import Data
from vi_core.datasets.synthetic import NormalDraws
from vi_core.errors import LabError, NonFinite
from vi_core.estimators.exact import Exact
from vi_core.estimators.pathwise import Pathwise
from vi_core.execution.choice import Execution
from vi_core.models.conjugate.normal_gamma import NormalGamma
from vi_core.optimizers.sgd import SGD
from vi_core.training.batches import Batches
from vi_core.training.loop import Loop
from vi_core.training.recorder import Recorder
from vi_core.training.stopping import Fixed, ParameterChange, Plateau, StoppingRule
from vi_core.training.trainer import Plan

Verdicts = list[list[bool]]


def after_changes(rule: StoppingRule, windows: list[list[list[float]]]) -> Verdicts:
    """What a rule says after each window, in which each parameter of each replicate moves by a given amount."""
    first, second = torch.zeros(len(windows[0]), 1, 1), torch.zeros(len(windows[0]), 2, 1)
    rule.bind([first, second], len(first))
    said = []
    for moves in windows:
        change = torch.tensor(moves)
        first += change[:, :1].unsqueeze(1)
        second += change[:, 1:].reshape(-1, 2, 1)
        said.append(rule.holds([first, second]).tolist())
    return said


MOVES = [
    [[0.3, 0.0, 0.0], [0.001, -0.001, 0.001]],
    [[0.005, -0.005, 0.0], [0.0, 0.0, -0.02]],
    [[0.009, 0.0, 0.0], [0.0, 0.0, 0.0]],
    [[math.nan, 0.0, 0.0], [0.009, 0.009, 0.009]],
]
EXPECTED = [[False, True], [True, False], [True, True], [False, True]]


def test_parameter_change() -> None:
    """The largest change of any parameter over the last window, replicate by replicate; never where one is NaN."""
    assert after_changes(ParameterChange(window=10, tolerance=0.01), MOVES) == EXPECTED


def test_a_rule_that_averages_replicates_is_caught() -> None:
    assert after_changes(fakes.AveragedChange(10, 0.01), MOVES) != EXPECTED


def test_parameter_change_measures_from_the_start_of_its_window() -> None:
    """Also where a single packed tensor is moved in place, as optimizers do."""
    rule, raw = ParameterChange(window=1, tolerance=0.01), torch.zeros(1, 1, 2)
    rule.bind([raw], 1)
    raw += 1
    assert rule.holds([raw]).tolist() == [False]
    raw += 0.006
    assert rule.holds([raw]).tolist() == [True]
    raw += 0.006
    assert rule.holds([raw]).tolist() == [True]


def after_bounds(rule: StoppingRule, windows: list[list[list[float]]]) -> Verdicts:
    """What a rule says after each window of bounds, step by step and replicate by replicate."""
    rule.bind([torch.zeros(len(windows[0][0]), 1, 1)], len(windows[0][0]))
    said = []
    for window in windows:
        for bounds in window:
            rule.observe(torch.tensor(bounds))
        said.append(rule.holds([]).tolist())
    return said


BOUNDS = [
    [[-10.0, -10.0, -4.0], [-8.0, -8.0, -4.0]],
    [[-9.0, -7.0, -4.0], [-9.0, -7.0, -3.995]],
    [[-9.5, -20.0, math.nan], [-9.5, 5.0, math.nan]],
    [[-7.0, -6.0, math.nan], [-7.0, -6.0, math.nan]],
]


def test_plateau() -> None:
    """Windows are averaged: −9 and then −9 and −9.5 are two stale ones, and a new best begins the count anew. One good
    step in a bad window is no rise; a rise within the tolerance is stale, and so is NaN.
    """
    said = after_bounds(Plateau(window=2, patience=2, tolerance=0.01), BOUNDS)
    assert said == [[False, False, False], [False, False, False], [True, False, True], [False, False, True]]


def test_plateau_with_more_patience_waits_longer() -> None:
    flat = [[[-1.0]]] * 6
    assert after_bounds(Plateau(window=1, patience=4, tolerance=0.0), flat) == [[False]] * 4 + [[True]] * 2


@pytest.mark.parametrize("make", [lambda: ParameterChange(window=2), lambda: Plateau(window=2, patience=2)])
def test_state_round_trip(make: Callable[[], StoppingRule]) -> None:
    """A rule that loads another's state says what the other says."""
    rule, resumed = make(), make()
    raw = torch.zeros(2, 1, 3)
    for r in (rule, resumed):
        r.bind([raw], 2)
    for t in range(5):
        rule.observe(torch.tensor([-1.0, float(t)]))
    raw[1] += 0.005
    rule.holds([raw])
    rule.observe(torch.tensor([-3.0, 0.0]))
    resumed.load_state_dict(rule.state_dict())
    raw[0] += 0.02
    for _ in range(4):
        assert rule.holds([raw]).tolist() == resumed.holds([raw]).tolist()


@pytest.mark.parametrize(
    "make",
    [
        lambda: ParameterChange(window=0),
        lambda: ParameterChange(tolerance=0.0),
        lambda: Plateau(window=0),
        lambda: Plateau(patience=0),
        lambda: Plateau(tolerance=-1.0),
    ],
)
def test_settings_out_of_range_are_refused(make: Callable[[], StoppingRule]) -> None:
    with pytest.raises(LabError, match=r"trainer\.stopping\."):
        make()


# --- the loop -------------------------------------------------------------------------------------------------------


def loop(step: Step, rule: StoppingRule, folder: Path, steps: int, on_nonfinite: str = "skip") -> Loop:
    """The loop on the hundred points of report 001, with this step and rule."""
    data = Data(NormalDraws().load().train.double(), "drawn")
    plan = Plan(steps=steps, log_every=10, eval_every=0, checkpoint_every=steps)
    rule.bind(step.moving, len(step.alive))
    batches = Batches(data, step.model, None, torch.Generator())
    return Loop(
        step=step,
        batches=batches,
        recorder=Recorder(step, plan.rows),
        stopping=rule,
        plan=plan,
        execution=Execution("eager", step, plan, batches),
        on_nonfinite=on_nonfinite,
        evaluate=lambda: torch.zeros(1),
        interrupted=lambda: False,
    )


def gaussian_step(diverged: list[int]) -> GradientStep:
    """Three replicates that stand still for a ParameterChange of 1e-3, some of them NaN from the start."""
    step = GradientStep(
        fakes.Gaussian(), fakes.gaussian_family([0.0] * 3, [1.0] * 3), ELBO(), Pathwise(num_samples=2), SGD(lr=1e-9)
    )
    with torch.no_grad():
        step.moving[0][diverged] = math.nan
    return step


@pytest.mark.parametrize("window", [7, 100])
def test_a_run_ends_at_the_first_window_where_every_live_replicate_holds(window: int, tmp_path: Path) -> None:
    """A dead one is not waited for."""
    for diverged in ([], [1]):
        run = loop(gaussian_step(diverged), ParameterChange(window=window, tolerance=1e-3), tmp_path, 300)
        assert run.run() == "converged"
        assert run.done == window


def test_one_restless_replicate_keeps_all_running(tmp_path: Path) -> None:
    step = gaussian_step([])
    step.optimizer = SGD(lr=[1e-9, 1e-2, 1e-9])
    step.optimizer.bind(step.moving, 3)
    run = loop(step, ParameterChange(window=5, tolerance=1e-6), tmp_path, 30)
    assert run.run() == "completed"
    assert run.done == 30


def test_a_fixed_rule_runs_all_steps(tmp_path: Path) -> None:
    run = loop(gaussian_step([]), Fixed(), tmp_path, 12)
    assert run.run() == "completed"
    assert run.done == 12


@pytest.mark.parametrize("window", [5, 100])
@pytest.mark.parametrize(("on_nonfinite", "diverged"), [("skip", [0, 1, 2]), ("stop", [1])])
def test_divergence_is_not_convergence(on_nonfinite: str, diverged: list[int], window: int, tmp_path: Path) -> None:
    """Whichever of the two is looked for first."""
    rule = ParameterChange(window=window, tolerance=1e-3)
    run = loop(gaussian_step(diverged), rule, tmp_path, 300, on_nonfinite)
    assert run.run() == "diverged"


@pytest.mark.parametrize("window", [5, 100])
def test_divergence_raises_before_a_rule_ends_the_run(window: int, tmp_path: Path) -> None:
    run = loop(gaussian_step([1]), ParameterChange(window=window, tolerance=1e-3), tmp_path, 300, "raise")
    with pytest.raises(NonFinite, match="step 1, replicate 1"):
        run.run()


def test_a_run_that_converges_early_is_still_checked(tmp_path: Path) -> None:
    """Coordinate ascent with a wrong update settles within a few sweeps, below an ELBO that it had."""
    q = {"loc": 0.0, "scale": 1.0, "concentration": 1.0, "rate": 1.0}

    def outcome(model: NormalGamma) -> str:
        step = CoordinateAscentStep(model, fakes.normal_gamma_family(q, 1), ELBO(), Exact())
        return loop(step, ParameterChange(window=5, tolerance=1e-6), tmp_path, 300).run()

    assert outcome(NormalGamma()) == "converged"
    with pytest.raises(LabError, match="ELBO fell"):
        outcome(fakes.WrongUpdate())
