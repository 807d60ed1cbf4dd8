"""Stages of doubling length: where they end, what is averaged, when a fit has settled, and its resuming and replay."""

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

import vi_core
from experiments import cli
from tests.conftest import configuration, run_in
from tests.league import Banana, outcomes, posteriors
from vi_core.fits.parts import part
from vi_core.fits.recipes import RECIPES, chosen_estimator, chosen_optimizer, chosen_trainer
from vi_core.optimizers.adam import Adam
from vi_core.optimizers.averaging import Doubling, Tail, stage_ends
from vi_core.optimizers.schedules import Decay
from vi_core.training.stopping import Settled
from vi_core.training.trainer import Trainer


@pytest.mark.parametrize(
    ("steps", "ends"),
    [
        (1, [1]),
        (125, [125]),
        (300, [125, 300]),
        (500, [125, 500]),
        (875, [125, 375, 875]),
        (1400, [125, 375, 875, 1400]),
    ],
)
def test_stages_double_and_the_last_ends_the_run(steps: int, ends: list[int]) -> None:
    assert stage_ends(125, steps) == ends


def test_the_rate_falls_within_each_stage_and_begins_again() -> None:
    factors = Doubling(first=4, steps=12, final=0.1).factor(torch.arange(12))
    expected = [0.1 ** (t / 4) for t in range(4)] + [0.1 ** (t / 8) for t in range(8)]
    torch.testing.assert_close(factors, torch.tensor(expected, dtype=torch.float64))


def test_a_stage_ends_in_the_average_of_its_last_part() -> None:
    """Iterates are numbered 1, 2, ...: of stages of 4 and 8 steps the last quarter is step 4, and steps 11 and 12."""
    rule, seen = Tail(first=4, steps=12), []
    parameter = torch.zeros(1)
    rule.bind([parameter])
    for step in range(1, 13):
        parameter.fill_(float(step))
        rule([parameter])
        seen.append(parameter.item())
    assert seen == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 11.5]
    whole = Tail(first=4, steps=4, share=1.0)
    whole.bind([parameter])
    for step in range(1, 5):
        parameter.fill_(float(step))
        whole([parameter])
    assert parameter.item() == 2.5


def test_an_average_is_of_the_optimizer_s_own_state() -> None:
    optimizer = Adam(lr=0.1, averaging=Tail(first=2, steps=2))
    optimizer.bind([torch.zeros(1, 1, 3)], 1)
    assert {"averaging.time", "averaging.average_0"} <= set(optimizer.state_dict())


def settled(bounds: list[float], places: list[float]) -> list[bool]:
    """What the rule says at looks of one step each, with one parameter."""
    rule = Settled(window=1, gain=0.05, movement=0.1)
    rule.bind([torch.zeros(1, 1)], 1)
    found = []
    for bound, place in zip(bounds, places, strict=True):
        rule.observe(torch.tensor([bound]))
        found.append(bool(rule.holds([torch.full((1, 1), place)]).item()))
    return found


def test_a_fit_has_settled_where_a_stage_changes_nothing() -> None:
    """Stages end at looks 1, 3 and 7; nothing can be said of the first, and nothing is said between."""
    assert settled([0.0] * 7, [0.0] * 7) == [False, False, True, False, False, False, True]
    assert not any(settled([0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 2.0], [0.0] * 7))
    assert not any(settled([0.0] * 7, [0.0, 0.0, 0.2, 0.2, 0.2, 0.2, 0.4]))


def test_gradients_are_counted_and_limited() -> None:
    trainer = Trainer(steps=1000, max_gradients=2000, stopping=Settled())
    assert trainer.plan(1, 4, spent=400, each=8).steps == 200
    fit = vi_core.fit(Banana(), {"y": np.zeros(1)}, max_gradients=1500, replicates=2)
    assert 1400 < fit.gradients <= 1500
    assert fit.gradients == fit.run.problem.step.start_gradients + 8 * fit.run.loop.done


def test_a_budget_ends_a_run_in_an_average() -> None:
    """Of 12 steps a budget leaves 6: the two of the second stage, less than half of it, belong to the first."""
    for staged in (Tail(first=4, steps=12), Doubling(first=4, steps=12)):
        staged.within(6)
        assert staged.ends.tolist() == [6]
        staged.within(100)
        assert staged.ends.tolist() == [4, 12]
    decay = Decay(steps=10, final=0.1)
    decay.within(5)
    assert decay.factor(torch.tensor(5)) == pytest.approx(0.1)
    fit = vi_core.fit(Banana(), {"y": np.zeros(1)}, max_gradients=1500, replicates=2)
    averaging = fit.run.problem.step.optimizer.averaging  # pyright: ignore[reportAttributeAccessIssue]
    assert averaging.ends.tolist()[-1] == fit.run.loop.done == averaging.time


@pytest.mark.slow
def test_a_recipe_ends_by_itself_and_is_good() -> None:
    """Slopes on predictors that correlate by 0.99, unstandardised scores: four of four replicates, under 10,000."""
    for name in ("correlated", "kids"):
        posterior = posteriors()[name]
        fit = vi_core.fit(posterior.model(), posterior.data, seed=5)
        assert fit.run.loop.ended == "converged"
        assert fit.gradients <= 10_000
        assert all(found.good for found in outcomes(fit, name))
        assert fit.verdict.trust == "good"


def test_a_bad_fit_is_not_trusted() -> None:
    """Mean field on predictors that correlate by 0.99 has a tenth of the deviations."""
    posterior = posteriors()["correlated"]
    fit = vi_core.fit(posterior.model(), posterior.data, family="mean_field_normal", steps=875)
    assert not any(found.good for found in outcomes(fit, "correlated"))
    assert fit.verdict.trust == "poor"
    assert "family=full_rank_normal" in fit.verdict.line


@pytest.mark.parametrize("execution", ["eager", "replay"])
def test_steps_can_be_replayed(execution: str, numbers: dict[str, Any]) -> None:
    """The same numbers, whoever makes the steps, over the ends of two stages."""
    from vi_core.fits import recipes
    from vi_core.fits.parts import part

    before = recipes.part

    def chosen(group: str, name: str, **settings: Any) -> Any:
        return part(group, name, **settings, **({"execution": execution} if group == "trainer" else {}))

    recipes.part = chosen
    try:
        fit = vi_core.fit(Banana(), {"y": np.zeros(1)}, steps=300, replicates=2)
    finally:
        recipes.part = before
    assert fit.run.loop.execution.used == execution
    raw = next(fit.run.problem.family.parameters()).detach()
    assert torch.equal(numbers.setdefault("raw", raw), raw)


@pytest.fixture(scope="module")
def numbers() -> dict[str, Any]:
    """Parameters of the first way of making steps."""
    return {}


@pytest.mark.slow
@pytest.mark.parametrize("family", ["full_rank_normal", "mean_field_normal"])
def test_the_bench(family: str) -> None:
    """Of fits from a seed that chose no threshold: every one that is trusted is good, every correction is good."""
    from tests.league import corrected_outcome

    good = kept = 0
    for name, posterior in posteriors().items():
        fit = vi_core.fit(posterior.model(), posterior.data, family=family, seed=11)
        best, trust = outcomes(fit, name)[fit.best], fit.verdict.trust
        assert trust != "good" or best.good, name
        assert trust != "corrected" or corrected_outcome(fit, name).good, name
        good, kept = good + best.good, kept + (best.good and trust != "poor")
    assert kept >= 0.75 * good


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_command_line_has_the_same_recipe(recipe: str) -> None:
    """conf/recipe and `vi_core.fits.recipes` choose equal parts, rates and stages, and as many replicates and steps."""
    chosen = OmegaConf.to_container(configuration("experiment=own", f"recipe={recipe}", "model=eight_schools"))
    assert isinstance(chosen, dict)
    arguments = {name: p.default for name, p in inspect.signature(vi_core.fit).parameters.items()}
    steps = arguments["steps"]
    assert chosen["optimizer"] == chosen_optimizer(arguments["optimizer"], recipe, steps)
    assert chosen["trainer"]["stopping"] == chosen_trainer(recipe)["stopping"]
    assert chosen["estimator"] == chosen_estimator("auto", part("bound", "elbo"), arguments["num_samples"])
    assert (chosen["trainer"]["steps"], chosen["replicates"]) == (steps, arguments["replicates"])


def test_experiments_without_a_recipe_take_one() -> None:
    """`recipe=none` is what they do by themselves; `recipe=auto` brings its parts to their model."""
    assert cli.RECIPES == RECIPES
    assert configuration("recipe=none") == configuration()
    assert configuration("experiment=bbvi", "recipe=none", "seed=1") == configuration("experiment=bbvi", "seed=1")
    chosen = configuration("recipe=auto")
    assert (chosen.parts.family, chosen.parts.model, chosen.replicates) == ("full_rank_normal", "normal_gamma", 4)
    assert chosen.trainer.stopping._target_.endswith("Settled")


@pytest.mark.parametrize(
    ("experiment", "has"),
    [
        ("vae_digits", "family=amortized_normal, with latents for each data point"),
        ("categorical_vae_digits", "family=amortized_categorical, with latents for each data point"),
        ("iwae_burda", "family=amortized_normal_chain, with latents for each data point"),
        ("ddpm_two_moons", "family=forward_process, with latents for each data point"),
        ("earthquakes_cavi", "optimizer=coordinate_ascent"),
    ],
)
def test_a_recipe_is_refused_where_it_has_no_meaning(tmp_path: Path, experiment: str, has: str) -> None:
    result = run_in(tmp_path, "--run", f"experiment={experiment}", "recipe=auto", "hydra.run.dir=run")
    wrong = "error: recipe=auto trains by gradients a model whose latents all data points share, and "
    assert (result.code, result.err) == (1, f"{wrong}experiment={experiment} has {has}; leave recipe=auto out.\n")
    assert not (tmp_path / "run").exists()
