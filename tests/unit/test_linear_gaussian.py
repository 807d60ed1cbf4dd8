"""Minibatches and held-out data against absolute numbers: `tests/linear_gaussian.py` has the closed forms.

Nothing here is statistical. Draws are enumerated, so that a step on 7 of 23 points must be the closed form's to
rounding (1e-12 relative, in float64), and what is left to chance is the order of the minibatches alone. The smallest
error that a comparison detects is therefore one of 1e-9 of the number itself: a factor 7/23, a sum in place of a mean,
a step on other points or a bound of other points are larger by eight orders of magnitude.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests import linear_gaussian as exact
from tests.conftest import CommandLine
from tests.contracts.test_config import composed, names
from vi_core.problem import Problem, assemble
from vi_core.training.history import History, read_history

NUM_SAMPLES = len(exact.NODES)
CLOSED = {"_target_": "vi_core.estimators.closed_form_kl.ClosedFormKL", "num_samples": NUM_SAMPLES, "chunk_size": None}
ESTIMATORS = ("closed_form_kl", "pathwise", "sticking_the_landing", "score_function")
"""Estimators whose average over the enumerated draws is their expectation, for every parameter."""


@pytest.fixture(autouse=True)
def _double() -> None:
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def problem(
    estimator: dict[str, Any] = CLOSED, seed: int = 1, family: str = "EnumeratedEncoder", **dataset: Any
) -> Problem:
    """The linear-Gaussian problem, built from a configuration, at PARAMETERS."""
    generator = torch.Generator().manual_seed(seed)
    config = exact.settings(estimator, family, **dataset)
    return assemble(config, torch.device("cpu"), torch.float64, generator)


def values(of: Problem) -> exact.Values:
    """A copy of the six parameters."""
    named = [*of.model.named_parameters(), *of.family.named_parameters()]
    return {name: value.detach().clone() for name, value in named}


def assign(to: Problem, wanted: exact.Values) -> None:
    with torch.no_grad():
        for name, value in [*to.model.named_parameters(), *to.family.named_parameters()]:
            value.copy_(wanted[name])


# --- the closed form itself -----------------------------------------------------------------------------------------


def test_written_gradient_is_the_derivative_of_the_bound() -> None:
    x, free = torch.randn(5, exact.PIXELS), {name: value.requires_grad_() for name, value in exact.start().items()}
    slopes = torch.autograd.grad(exact.elbo(free, x).mean(), list(free.values()))
    written = exact.gradient({name: value.detach() for name, value in free.items()}, x)
    for name, slope in zip(free, slopes, strict=True):
        close(written[name], slope)


def test_bound_is_the_evidence_at_the_posterior_and_below_it_elsewhere() -> None:
    x, tight = torch.randn(5, exact.PIXELS), exact.with_exact_posterior(exact.start())
    close(exact.elbo(tight, x), exact.log_evidence(tight, x))
    assert bool((exact.elbo(exact.start(), x) < exact.log_evidence(exact.start(), x) - 1e-2).all())


def test_nodes_have_the_moments_of_a_normal() -> None:
    first, second = exact.NODES.unbind(1)
    moments = {(1, 0): 0, (2, 0): 1, (1, 1): 0, (3, 0): 0, (2, 1): 0, (4, 0): 3, (2, 2): 1, (3, 1): 0}
    found = {power: float((first ** power[0] * second ** power[1]).mean()) for power in moments}
    assert found == pytest.approx(moments, abs=1e-12)


# --- one step on a minibatch ----------------------------------------------------------------------------------------


def after_step(start: exact.Values, x: Tensor) -> exact.Values:
    """PARAMETERS after one step of gradient ascent on the mean bound of the points x."""
    slopes = exact.gradient(start, x)
    return {name: start[name] + exact.RATE * slopes[name] for name in start}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_step_on_seven_of_23_points_is_the_closed_form(name: str) -> None:
    """The four steps of an epoch, three on 7 points and one on the last 2, and the bound that each reports."""
    one = problem(composed(f"estimator/{name}") | {"num_samples": NUM_SAMPLES})
    now, seen = exact.start(), []
    for size in (7, 7, 7, 2):
        x, points = one.batches.next()
        assert (len(x), points) == (size, size)
        metrics = one.step(x)
        close(metrics["elbo"], exact.elbo(now, x).mean().reshape(1))
        now = after_step(now, x)
        for parameter, value in values(one).items():
            close(value, now[parameter])
        seen.append(x)
    close(torch.cat(seen).sort(dim=0).values, one.data.train.sort(dim=0).values)


def test_the_whole_data_set_is_a_batch_of_23() -> None:
    one = problem(batch_size=None)
    one.step(one.batches.next()[0])
    for parameter, value in after_step(exact.start(), one.data.train).items():
        close(values(one)[parameter], value)


@pytest.mark.parametrize("wrong", [7.0, 7 / 23])
def test_a_sum_or_a_mean_over_other_points_is_caught(wrong: float) -> None:
    """A gradient scaled by B, or by B/N, misses the closed form by more than a hundred thousand times the tolerance."""
    one = problem()
    x, _ = one.batches.next()
    slopes = exact.gradient(exact.start(), x)
    step = {name: exact.start()[name] + wrong * exact.RATE * slopes[name] for name in slopes}
    one.step(x)
    assert max(float((step[name] - value).abs().max()) for name, value in values(one).items()) > 1e-4


def test_an_epoch_sees_every_point_once_in_an_order_of_its_seed() -> None:
    def epoch(seed: int) -> Tensor:
        batches = problem(seed=seed).batches
        return torch.cat([batches.next()[0] for _ in range(2 * batches.steps_per_epoch)])

    first, again, other = epoch(1), epoch(1), epoch(2)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[: exact.NUM_POINTS], first[exact.NUM_POINTS :])
    close(first[: exact.NUM_POINTS].sort(dim=0).values, other[exact.NUM_POINTS :].sort(dim=0).values)


# --- held-out data --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("num_test", [exact.NUM_TEST, 0])
def test_held_out_bound_is_the_closed_form_of_the_held_out_points(
    num_test: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the points held out, in parts of 4, 4 and 3; on all data where there are none. The training points' bound is
    another number."""
    monkeypatch.setattr("vi_core.problem.POINTS_AT_ONCE", 4)
    one = problem(composed(f"estimator/{name}") | {"num_samples": NUM_SAMPLES}, num_test=num_test)
    points = one.data.train if one.data.test is None else one.data.test
    assert len(points) == (num_test or exact.NUM_POINTS)
    expected = exact.elbo(exact.start(), points).mean()
    close(one.held_out(), expected.reshape(1))
    if num_test:
        assert abs(float(expected - exact.elbo(exact.start(), one.data.train).mean())) > 1


@pytest.mark.parametrize("name", names("bound"))
def test_held_out_bound_of_the_exact_posterior_is_the_evidence(name: str) -> None:
    """With q(z | x) = p(z | x) every log-weight is log p(x): every bound is, with random draws too."""
    config = exact.settings(composed("estimator/pathwise") | {"num_samples": 3}, "Encoder")
    config["bound"] = composed(f"bound/{name}")
    one = assemble(config, torch.device("cpu"), torch.float64, torch.Generator())
    assign(one, exact.with_exact_posterior(exact.start()))
    assert one.data.test is not None
    close(one.held_out(), exact.log_evidence(values(one), one.data.test).mean().reshape(1))


def test_evaluation_leaves_the_random_stream_of_training_alone() -> None:
    one = problem(family="Encoder")
    before = torch.get_rng_state()
    one.held_out()
    assert torch.equal(torch.get_rng_state(), before)


# --- whole runs from the command line -------------------------------------------------------------------------------


@pytest.fixture
def train(cli: CommandLine, tmp_path: Path) -> Any:
    """`train(folder, *arguments)` runs the problem for five epochs of four steps; returns its history."""
    for group, name in {"model": "LinearGaussian", "dataset": "Points"}.items():
        (tmp_path / "mine" / group).mkdir(parents=True)
        (tmp_path / "mine" / group / "lines.yaml").write_text(f"_target_: tests.linear_gaussian.{name}\n")
    with (tmp_path / "mine" / "dataset" / "lines.yaml").open("a") as file:
        file.write(f"batch_size: {exact.BATCH}\nnum_test: {exact.NUM_TEST}\n")
    (tmp_path / "mine" / "family").mkdir()
    for family in ("Encoder", "EnumeratedEncoder"):
        path = tmp_path / "mine" / "family" / f"{family}.yaml"
        path.write_text(f"_target_: tests.linear_gaussian.{family}\n")

    def run(folder: str, family: str, *arguments: str) -> History:
        result = cli(
            "--run", f"--config-dir={tmp_path / 'mine'}", "model=lines", "dataset=lines", f"family={family}",
            "estimator=closed_form_kl", "optimizer=sgd", f"optimizer.lr={exact.RATE}", "trainer.steps=20",
            "trainer.log_every=1", "plot.enabled=false", "replicates=1", f"hydra.run.dir={folder}",
            *([f"estimator.num_samples={NUM_SAMPLES}"] if family == "EnumeratedEncoder" else []), *arguments,
        )  # fmt: skip
        assert (result.code, result.err) == (0, "")
        return read_history(tmp_path / folder / "trace.csv")

    return run


def test_a_trace_does_not_depend_on_evaluation(train: Any) -> None:
    """With draws from torch's stream, the rows of a run that evaluates after every epoch are those of one that never
    does: the same text."""
    never, always = (train(f"run{every}", "Encoder", f"trainer.eval_every={every}") for every in (0, 1))
    assert "held_out" in always.columns and "held_out" not in never.columns
    for name, column in never.columns.items():
        np.testing.assert_array_equal(column, always.columns[name])


def test_two_seeds_are_two_orders_of_the_minibatches(train: Any) -> None:
    """Start and draws are the same for every seed here, so that what differs between two traces is the order."""
    first, again, other = (
        train(folder, "EnumeratedEncoder", f"seed={seed}") for folder, seed in {"a": 1, "b": 1, "c": 2}.items()
    )
    np.testing.assert_array_equal(first.columns["elbo"], again.columns["elbo"])
    assert np.all(first.columns["elbo"][:3] != other.columns["elbo"][:3])


def test_rows_and_summary_of_a_run_that_stands_still(train: Any, tmp_path: Path) -> None:
    """At a rate of 1e-30 an epoch's row is the closed form's mean over all 23 points, whose batches of 7, 7, 7 and 2
    count by their sizes, and the held-out numbers of trace and summary are those of the 11 other points."""
    history = train("run", "EnumeratedEncoder", "optimizer.lr=1e-30", "trainer.log_every=4")
    data = exact.Points().load()
    assert data.test is not None
    trained, held_out = (float(exact.elbo(exact.start(), x).mean()) for x in (data.train, data.test))
    np.testing.assert_allclose(history.columns["elbo"], trained, rtol=1e-8)
    np.testing.assert_allclose(history.columns["held_out"], held_out, rtol=1e-8)
    final = json.loads((tmp_path / "run" / "summary.json").read_text())["final"]
    assert final["mean"] == pytest.approx(held_out, rel=1e-9)
    assert final["method"] == "held-out data"
